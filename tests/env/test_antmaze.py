"""AntMaze against D4RL's own files: the ant's XML, the maps, and the code that samples goals and scales actions."""

import dataclasses
from types import SimpleNamespace

import gymnasium
import h5py
import mujoco
import numpy as np
import pytest
import torch
from command_line import jobs
from d4rl_package import LOCOMOTION, maze_env, wrappers
from models import assert_equal_physics

from genpolicy.config.schema import build
from genpolicy.dataset.hdf5 import HDF5
from genpolicy.dataset.npz import NPZ
from genpolicy.env.antmaze import MAPS, compiled

D4RL_MAPS = {
    "umaze": maze_env.U_MAZE_TEST,
    "medium": maze_env.BIG_MAZE_TEST,
    "large": maze_env.HARDEST_MAZE_TEST,
}


@pytest.fixture(scope="module", params=MAPS)
def maze(request):
    return request.param


class D4RLMaze(maze_env.MazeEnv):
    """D4RL's maze around D4RL's ant, in MuJoCo's own binding."""

    class LOCOMOTION_ENV:
        FILE = str(LOCOMOTION / "assets" / "ant.xml")

        def __init__(self, file_path, **_):
            self.model = mujoco.MjModel.from_xml_path(file_path)


@pytest.fixture(scope="module")
def theirs(maze, tmp_path_factory):
    """D4RL's model of the maze, built by its own code."""
    with pytest.MonkeyPatch.context() as patch:
        file = tmp_path_factory.mktemp("maze") / "maze.xml"
        patch.setattr(maze_env.tempfile, "mkstemp", lambda **_: (None, str(file)))
        built = D4RLMaze(D4RL_MAPS[maze], 4.0)
        D4RLMaze.LOCOMOTION_ENV.__init__(built, str(file))
    return built


def ours(maze):
    [(job, _)] = jobs(f"env=antmaze-{maze}{'' if maze == 'umaze' else '-play'}-v0", "algo=bc", "tuned=none")
    return build(job.config.env)


def test_the_compiled_physics_are_d4rls(maze, theirs):
    assert_equal_physics(theirs.model, compiled(maze))
    assert (theirs.model.nq, theirs.model.nv, theirs.model.nu) == (15, 14, 8)


@pytest.mark.filterwarnings("ignore:.*precision lowered")
def test_the_ant_moves_as_d4rls(maze, theirs):
    """Through D4RL's wrapper of actions, five steps of MuJoCo an action."""
    box = gymnasium.spaces.Box(*theirs.model.actuator_ctrlrange.T.astype(np.float32))
    env, data, rng = ours(maze).simulate(), mujoco.MjData(theirs.model), np.random.default_rng(0)

    def step(control):
        data.ctrl[:] = control
        for _ in range(5):
            mujoco.mj_step(theirs.model, data)
        return None, 0.0, False, {}

    wrapped = wrappers.NormalizedBoxEnv(SimpleNamespace(action_space=box, observation_space=None, step=step))
    observation, _ = env.reset(seed=1)
    data.qpos[:], data.qvel[:] = observation[:15], observation[15:]
    mujoco.mj_forward(theirs.model, data)
    for number in range(100):
        action = rng.integers(-80, 81, size=8).astype(np.float32) / 64  # which float32 scales without rounding
        observation, *_ = env.step(action)
        wrapped.step(action)
        np.testing.assert_allclose(observation, np.concatenate([data.qpos, data.qvel]), atol=1e-9, err_msg=number)


@pytest.mark.slow
def test_goals_are_distributed_as_d4rls(maze, theirs, monkeypatch):
    rng = np.random.RandomState(0)
    for name in ("uniform", "choice"):
        monkeypatch.setattr(maze_env.np.random, name, getattr(rng, name))
    theirs_drawn = np.array([theirs.goal_sampler(rng) for _ in range(4000)])
    env = ours(maze).simulate()
    drawn = []
    for number in range(4000):
        env.reset(seed=number)
        drawn.append(env.goal)
    levels = np.linspace(0.02, 0.98, 9)
    np.testing.assert_allclose(np.quantile(drawn, levels, axis=0), np.quantile(theirs_drawn, levels, axis=0), atol=0.05)
    np.testing.assert_allclose(
        [np.min(drawn, 0), np.max(drawn, 0)], [np.min(theirs_drawn, 0), np.max(theirs_drawn, 0)], atol=0.1
    )


def test_an_episode_ends_at_the_goal_with_reward_1(maze):
    env = ours(maze).simulate()
    observation, _ = env.reset(seed=0)
    assert np.linalg.norm(observation[:2]) < 0.2  # the start is the origin
    for distance, expected in [(0.3, True), (0.9, False)]:
        env.reset(seed=0, options={"goal": [observation[0] + distance, observation[1]]})
        _, reward, terminated, truncated, _ = env.step(np.zeros(8))
        assert (reward, terminated, truncated) == (float(expected), expected, False)


def test_starts_are_d4rls_and_follow_from_the_seed(maze):
    env = ours(maze).simulate()
    starts = np.array([env.reset(seed=seed)[0] for seed in range(2000)])
    rest = compiled(maze).qpos0
    free = [0, 1, 2, *range(7, 15)]  # the quaternion is normalised
    assert np.abs(starts[:, free] - rest[free]).max() <= 0.1
    np.testing.assert_allclose(starts[:, free].std(0), 0.1 / np.sqrt(3), rtol=0.06)
    np.testing.assert_allclose(starts[:, 15:].std(0), 0.1, rtol=0.06)
    np.testing.assert_allclose(np.linalg.norm(starts[:, 3:7], axis=1), 1)
    again, goal = env.reset(seed=7)[0], env.goal
    np.testing.assert_array_equal(again, starts[7])
    other = ours(maze).simulate()
    other.reset(seed=7)
    np.testing.assert_array_equal(other.goal, goal)


def test_a_jump_in_the_data_is_the_end_of_an_episode(tmp_path):
    env, rows = ours("umaze").simulate(), []
    for seed in range(3):
        observation, _ = env.reset(seed=seed, options={"qpos": compiled("umaze").qpos0 + 4.0 * seed * np.eye(15)[0]})
        for _ in range(5):
            rows.append(observation)
            observation, *_ = env.step(np.ones(8))
    with h5py.File(tmp_path / "data.hdf5", "w") as file:
        file["observations"], file["actions"] = np.array(rows, np.float32), np.ones((15, 8), np.float32)
        file["rewards"], file["terminals"] = np.zeros(15), np.zeros(15, bool)
        file["timeouts"] = np.arange(15) == 9  # the end after row 4 is not flagged
    data = HDF5(path=str(tmp_path / "data.hdf5"), directory=tmp_path).load(ours("umaze"))
    assert len(data.reward) == 12  # four transitions of each five rows
    assert (data.next_observation - data.observation)[:, :2].norm(dim=1).max() < 1


@pytest.mark.parametrize("format", ["hdf5", "npz"])
def test_a_walk_that_goes_on_from_the_goal_is_one_episode(format, tmp_path):
    """As D4RL's do, whose every step near the goal is terminated: of two walks one has been there."""
    task = dataclasses.replace(ours("umaze"), max_episode_steps=6)
    observation = np.zeros((14, 29), np.float32)
    observation[:, 0] = np.append(np.arange(7) / 10, 4 + np.arange(7) / 10)
    reached, last = np.isin(np.arange(14), (2, 3, 4)), np.isin(np.arange(14), (6, 13))
    action, path = np.zeros((14, 8), np.float32), tmp_path / f"data.{format}"
    if format == "hdf5":
        with h5py.File(path, "w") as file:
            file["observations"], file["actions"] = observation, action
            file["rewards"], file["terminals"], file["timeouts"] = reached.astype(float), reached, last
    else:
        rows = ~last
        columns = {"obs": observation[rows], "next_obs": observation[1:][rows[:-1]], "action": action[rows]}
        np.savez(path, reward=reached[rows], done=reached[rows], **columns)
    made = {"hdf5": HDF5, "npz": NPZ}[format]
    data = made(path=str(path), directory=tmp_path).load(task)
    assert (data.behaviour.episodes, data.behaviour.return_mean) == (2, 0.5)
    assert (data.size, int(data.terminated.sum())) == (12, 3)
    assert torch.nonzero(data.ends).flatten().tolist() == [5, 11]
    parts = made(path=str(path), directory=tmp_path, held_out=0.5).load(task)
    assert {len(parts.observation[:, 0].floor().unique()), len(parts.held_out.observation[:, 0].floor().unique())} == {
        1
    }


def test_episodes_are_as_long_as_d4rls_and_score_success(maze):
    task = ours(maze)
    assert task.max_episode_steps == {"umaze": 700}.get(maze, 1000)
    assert task.score(0.25) == 25.0
