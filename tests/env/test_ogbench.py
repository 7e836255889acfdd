"""OGBench's tasks, against the package itself."""

import gymnasium
import numpy as np
import pytest
from composed import CONF, names, nodes, task

from genpolicy.config import plain_yaml
from genpolicy.config.schema import build
from genpolicy.errors import UserError
from genpolicy.evaluation.rollout import rollout, summary

NAMES = [name for name in names("env") if name.startswith("ogbench-")]


def of(name, number=None):
    return build(nodes(f"env={name}", *([f"env.task={number}"] if number is not None else []), only=["env"]).env)


def test_all_data_sets_of_states_are_there():
    walks = {"pointmaze": "navigate stitch", "antmaze": "navigate stitch explore", "humanoidmaze": "navigate stitch"}
    mazes = {
        f"{who}-{maze}-{how}" for who in walks for maze in ("medium", "large", "giant") for how in walks[who].split()
    }
    mazes |= {f"{who}-teleport-{how}" for who in ("pointmaze", "antmaze") for how in walks[who].split()}
    mazes -= {"antmaze-giant-explore"}
    mazes |= {f"antsoccer-{where}-{how}" for where in ("arena", "medium") for how in ("navigate", "stitch")}
    tables = [*(f"cube-{number}" for number in ("single", "double", "triple", "quadruple")), "scene"]
    tables += [f"puzzle-{size}" for size in ("3x3", "4x4", "4x5", "4x6")]
    expected = {
        f"ogbench-{name}" for name in mazes | {f"{table}-{how}" for table in tables for how in ("play", "noisy")}
    }
    assert len(expected) == 47
    assert set(NAMES) == expected
    assert set(plain_yaml.read(CONF / "taskset" / "ogbench-all.yaml")) == expected
    default = plain_yaml.read(CONF / "taskset" / "ogbench.yaml")
    assert len(default) == 10
    assert set(default) < expected


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(("-navigate", "-play"))])
def test_a_task_is_the_packages(name, recwarn):
    """Sizes, limit, and when success is judged."""
    found = of(name)
    env, spec = found.simulate(), gymnasium.spec(f"{found.recorded_in}-singletask-v0")
    assert env.observation_space.shape == (found.observation_size,)
    np.testing.assert_array_equal(found.action_low, env.action_space.low)
    np.testing.assert_array_equal(found.action_high, env.action_space.high)
    assert found.max_episode_steps == spec.max_episode_steps
    assert env.unwrapped._success_timing == "pre"
    env.reset(seed=0)
    assert env.step(np.zeros(found.action_size, np.float32))[1:4] == (0, False, False)
    assert [str(warning.message) for warning in recwarn] == []
    env.close()


@pytest.mark.parametrize("name", ["ogbench-pointmaze-teleport-navigate", "ogbench-antsoccer-arena-navigate"])
def test_a_seed_repeats_an_episode_to_the_bit(name):
    """Also while another simulator is stepped in between; nothing of NumPy's global generator is used up."""
    first, second = of(name).make(2)
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.RandomState(5).uniform()

    def played(env, beside):
        actions = np.random.RandomState(0).uniform(-1, 1, (60, env.action_space.shape[0])).astype(np.float32)
        seen = [env.reset(seed=7)[0]]
        for action in actions:
            seen.append(env.step(action)[0])
            if beside:
                beside.step(action)
        return np.array(seen)

    alone = played(first, None)
    second.reset(seed=8)
    np.testing.assert_array_equal(played(first, second), alone)
    assert (second.reset(seed=8)[0] != alone[0]).any()
    assert np.random.uniform() == expected  # noqa: NPY002


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["ogbench-cube-double-play", "ogbench-scene-play", "ogbench-humanoidmaze-medium-stitch"]
)
def test_a_seed_repeats_an_episode_of_any_family(name):
    test_a_seed_repeats_an_episode_to_the_bit(name)


def test_tasks_by_number():
    goals = []
    for number in (1, 2, 3, 4, 5):
        env = of("ogbench-pointmaze-medium-navigate", number).simulate()
        assert env.unwrapped.cur_task_id == number
        goals.append(tuple(env.unwrapped.cur_goal_xy))
    assert len(set(goals)) == 5
    default = of("ogbench-antsoccer-arena-navigate").simulate()
    assert default.unwrapped.cur_task_id == 4
    for wrong in (0, 6):
        with pytest.raises(UserError, match=rf"env.task.*{wrong}"):
            of("ogbench-pointmaze-medium-navigate", wrong)


def test_a_simulator_leaves_no_file_open(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    of("ogbench-pointmaze-medium-navigate").simulate()
    assert not list(tmp_path.iterdir())


def test_an_oracle_in_a_maze_scores_100_and_a_random_policy_0():
    found = of("ogbench-pointmaze-medium-navigate")
    (maze,) = found.make(1)
    oracle = maze.unwrapped

    def to_goal(observation):
        subgoal, _ = oracle.get_oracle_subgoal(oracle.get_xy(), oracle.cur_goal_xy)
        way = subgoal - oracle.get_xy()
        return observation.new_tensor(way / (np.linalg.norm(way) + 1e-9))[None]

    played = rollout(found, to_goal, 1, seed=0)
    values = summary(played, found)
    assert (values["return_mean"], values["score_mean"]) == (1, 100)
    assert played.lengths[0] < found.max_episode_steps
    still = rollout(found, lambda seen: seen.new_zeros(len(seen), 2), 1, seed=0)
    assert (still.returns[0], still.lengths[0]) == (0, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ogbench-cube-single-play", "ogbench-scene-play", "ogbench-puzzle-3x3-play"])
def test_a_random_policy_scores_0(name):
    found, rng = of(name), np.random.default_rng(0)
    act = lambda seen: seen.new_tensor(rng.uniform(-1, 1, (len(seen), 5)))  # noqa: E731
    assert summary(rollout(found, act, 1, seed=0), found)["score_mean"] == 0


@pytest.mark.slow
def test_an_arm_that_moves_the_cube_scores_100():
    """The package's own Markov oracle plays our simulator; the episode ends one step after success."""
    from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle

    found = task("ogbench-cube-single-play")
    (env,) = found.make(1)
    oracle = CubeMarkovOracle(env=env, max_step=200)
    raw = env.unwrapped

    def info():
        seen = raw.get_step_info()
        target = raw._cube_target_mocap_ids[0]
        return seen | {
            "privileged/target_block": 0,
            "privileged/target_block_pos": raw._data.mocap_pos[target].copy(),
            "privileged/target_block_yaw": np.zeros(1),
        }

    started = []

    def act(observation):
        if not started:
            started.append(oracle.reset(observation[0].numpy(), info()))
        return observation.new_tensor(oracle.select_action(observation[0].numpy(), info()))[None]

    played = rollout(found, act, 1, seed=0)
    assert summary(played, found)["score_mean"] == 100
    assert played.lengths[0] < found.max_episode_steps
