"""The embedded data: D4RL's layout, the task's own physics, the same for the same settings, made once."""

import dataclasses
from multiprocessing import get_context

import h5py
import numpy as np
import pytest
from composed import task
from d4rl_package import offline_env

from genpolicy.dataset import waypoint
from genpolicy.dataset.waypoint import Waypoint, shortest_paths, walk

EPISODES, STEPS = 12, 300


def make(directory, **settings) -> Waypoint:
    settings = {"episodes": EPISODES, "noise": 0.5, "seed": 0, "reward": "none"} | settings
    return Waypoint(directory=directory, **settings)


@pytest.fixture(scope="module")
def umaze():
    return task("maze2d-umaze-v1")


@pytest.fixture(scope="module")
def columns(umaze):
    return walk(umaze.simulate(), EPISODES, STEPS, 0.5, 0)


def test_columns_are_those_of_d4rls_files(columns):
    rows = EPISODES * STEPS
    shapes = {name: (column.shape, str(column.dtype)) for name, column in columns.items()}
    assert shapes == {
        "observations": ((rows, 4), "float32"),
        "actions": ((rows, 2), "float32"),
        "rewards": ((rows,), "float32"),
        "terminals": ((rows,), "bool"),
        "timeouts": ((rows,), "bool"),
        "infos/goal": ((rows, 2), "float32"),
        "infos/qpos": ((rows, 2), "float32"),
        "infos/qvel": ((rows, 2), "float32"),
    }
    np.testing.assert_array_equal(np.hstack([columns["infos/qpos"], columns["infos/qvel"]]), columns["observations"])
    np.testing.assert_array_equal(np.flatnonzero(columns["timeouts"]), np.arange(1, EPISODES + 1) * STEPS - 1)
    assert not columns["terminals"].any()
    assert np.abs(columns["actions"]).max() == 1.0


def test_rewards_are_those_of_the_fixed_goal(columns):
    distance = np.hypot(columns["observations"][:, 0] - 1.0, columns["observations"][:, 1] - 1.0)
    np.testing.assert_array_equal(columns["rewards"], distance <= 0.5)
    assert 0.01 < columns["rewards"].mean() < 0.3


def test_every_transition_replays_in_the_simulator(umaze, columns):
    env = umaze.simulate()
    observation, action = columns["observations"].astype(float), columns["actions"]
    for row in range(EPISODES * STEPS - 1):
        if not columns["timeouts"][row]:
            env.reset(options={"state": observation[row]})
            following, reward, *_ = env.step(action[row])
            np.testing.assert_allclose(following, observation[row + 1], atol=2e-3)
            assert np.abs(following[:2] - observation[row + 1][:2]).max() < 1e-4
            if abs(np.hypot(*(following[:2] - 1.0)) - 0.5) > 1e-3:
                assert reward == columns["rewards"][row + 1]


def test_the_simulator_of_the_data_pays_what_they_have(umaze, columns, tmp_path):
    """That of the state before a step, as D4RL has labelled its mazes; the task itself pays that of the one after."""
    crossing = np.flatnonzero(np.diff(columns["rewards"]) != 0)
    assert len(crossing) > 3
    paid = {}
    for name, env in {"task": umaze.simulate(), "data": make(tmp_path).simulate(umaze)}.items():
        env.reset(seed=0)
        rewards = []
        for row in crossing:
            env.reset(options={"state": columns["observations"][row].astype(float)})
            rewards.append(env.step(columns["actions"][row])[1])
        paid[name] = rewards
    assert paid["data"] == columns["rewards"][crossing].tolist()
    assert paid["data"] != paid["task"]


def test_goals_are_random_reached_and_forgotten(umaze, columns):
    goal, position = columns["infos/goal"], columns["observations"][:, :2]
    switch = np.flatnonzero((np.diff(goal, axis=0) != 0).any(axis=1) & ~columns["timeouts"][:-1])
    assert len(switch) / EPISODES > 2
    # a goal is given up for the next one only where the ball has just reached it
    assert np.abs(position[switch + 1] - goal[switch]).max() < waypoint.REACHED
    cells = np.rint(goal)
    assert np.abs(goal - cells).max() <= 0.1
    np.testing.assert_array_equal(np.unique(cells, axis=0), umaze.simulate().free_cells)


def test_without_noise_the_way_is_short(umaze):
    quiet = walk(umaze.simulate(), 6, STEPS, 0.0, 1)
    loud = walk(umaze.simulate(), 6, STEPS, 1.0, 1)
    reached = [(np.diff(c["infos/goal"], axis=0) != 0).any(axis=1).sum() for c in (quiet, loud)]
    assert reached[0] > reached[1]


def test_the_same_settings_make_the_same_data(umaze, columns):
    again = walk(umaze.simulate(), EPISODES, STEPS, 0.5, 0)
    other = walk(umaze.simulate(), EPISODES, STEPS, 0.5, 1)
    for name, column in columns.items():
        np.testing.assert_array_equal(column, again[name])
    assert (columns["observations"] != other["observations"]).mean() > 0.9


def grid_distance(walls: np.ndarray, goal: tuple[int, int]) -> dict[tuple[int, int], int]:
    """Cells to the goal, by relaxing every edge until nothing changes."""
    free = {tuple(cell) for cell in np.argwhere(~walls).tolist()}
    distance = {cell: 0 if cell == goal else 10**6 for cell in free}
    for _ in free:
        for row, column in free:
            near = [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
            best = 1 + min((distance[cell] for cell in near if cell in free), default=10**6)
            distance[row, column] = min(distance[row, column], best)
    return distance


@pytest.mark.parametrize("size", ["umaze", "medium", "large"])
def test_paths_are_shortest(size):
    env = task(f"maze2d-{size}-v1").simulate()
    for goal in map(tuple, env.free_cells.tolist()):
        towards, distance = shortest_paths(env.walls, goal), grid_distance(env.walls, goal)
        assert set(towards) == set(distance)
        assert towards[goal] == goal
        assert all(distance[towards[cell]] == distance[cell] - 1 for cell in towards if cell != goal)


def test_the_file_is_made_once_and_read_like_d4rls(umaze, tmp_path, monkeypatch):
    made = make(tmp_path, reward="antmaze").load(umaze)
    assert made.size == EPISODES * (STEPS - 1)
    assert set(made.reward.unique().tolist()) == {-1.0, 0.0}
    assert made.behaviour.episodes == EPISODES
    assert not made.terminated.any()
    (path,) = tmp_path.glob("*.hdf5")
    assert path.name == "genpolicy-waypoint-maze2d-umaze-v1-PointMaze_UMaze-v3-goal1-1-v1-12x300-noise0.5-seed0.hdf5"
    with h5py.File(path) as file:
        assert sorted(offline_env.get_keys(file)) == sorted(walk(umaze.simulate(), 1, 2, 0.5, 0))
        assert made.behaviour.return_mean == pytest.approx(file["rewards"][:].sum() / EPISODES)

    monkeypatch.setattr(waypoint, "walk", None)  # it must not be called again
    np.testing.assert_array_equal(make(tmp_path).load(umaze).reward, made.reward + 1)
    with pytest.raises(TypeError):
        make(tmp_path, seed=1).load(umaze)


def test_settings_that_differ_in_the_last_digit_have_files_of_their_own(umaze, tmp_path):
    assert len({make(tmp_path, noise=noise).location(umaze) for noise in (0.1234567, 0.1234571)}) == 2


def test_another_goal_has_data_of_its_own(umaze, tmp_path):
    for goal in umaze.goal, [3, 1]:
        made = make(tmp_path, episodes=4).load(dataclasses.replace(umaze, goal=goal))
        at_goal = np.linalg.norm(made.observation[:, :2] - np.array(goal), axis=1) <= 0.5
        np.testing.assert_array_equal(made.reward, at_goal)


def test_an_interrupted_making_leaves_nothing_that_is_taken_for_data(umaze, tmp_path, monkeypatch):
    real = h5py.File.create_dataset

    def interrupted(file, name, **settings):
        if name == "rewards":
            raise KeyboardInterrupt
        return real(file, name, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(h5py.File, "create_dataset", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, episodes=1).load(umaze)
    assert not list(tmp_path.glob("*.hdf5"))
    assert make(tmp_path, episodes=1).load(umaze).size == STEPS - 1


def _load(directory: str) -> tuple[int, float]:
    made = make(directory, episodes=2).load(task("maze2d-umaze-v1"))
    return made.size, float(made.observation.sum())


def test_processes_started_together_share_one_file(tmp_path):
    with get_context("fork").Pool(4) as pool:
        found = pool.map(_load, [str(tmp_path)] * 4)
    assert len(set(found)) == 1
    assert len(list(tmp_path.glob("*.hdf5"))) == 1
    assert not list(tmp_path.glob("*.part"))
