"""OGBench's tasks, against the package itself."""

import itertools

import gymnasium
import numpy as np
import pytest
from composed import CONF, names, nodes, task
from ogbench.manipspace.oracles.markov.button_markov import ButtonMarkovOracle
from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle
from ogbench.manipspace.oracles.markov.drawer_markov import DrawerMarkovOracle
from ogbench.manipspace.oracles.markov.window_markov import WindowMarkovOracle

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
    if found.dear:
        assert env.metadata["render_fps"] == 20  # so that a video runs in real time
    env.reset(seed=0)
    assert of(name, env.unwrapped.cur_task_id).task is None  # by its number the default is the default
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


class Oracle:
    """The package's Markov oracles, which do one part of a task after the other: ("button", 0) is to press button 0."""

    def __init__(self, env, parts):
        self.raw, self.left, self.oracle = env.unwrapped, list(parts), None
        how = {"gripper_always_closed": True} if len(getattr(self.raw, "_button_site_ids", ())) > 2 else {}
        self.makes = {
            "cube": lambda: CubeMarkovOracle(env=env, max_step=200),
            "button": lambda: ButtonMarkovOracle(env=env, **how),
            "drawer": lambda: DrawerMarkovOracle(env=env),
            "window": lambda: WindowMarkovOracle(env=env),
        }

    def __call__(self, observation):
        seen = observation[0].numpy()
        if self.oracle is None or (self.oracle.done and self.left):
            self.what, self.which = self.left.pop(0)
            self.oracle = self.makes[self.what]()
            self.state = 1 - self.raw._cur_button_states[self.which] if self.what == "button" else None
            self.oracle.reset(seen, self.info())
        action = self.oracle.select_action(seen, self.info())
        return observation.new_tensor(action)[None]

    def info(self):
        raw, place = self.raw, lambda site: self.raw._data.site_xpos[site].copy()
        if self.what == "button":
            told = {"button": self.which, "button_state": self.state}
            told["button_top_pos"] = place(raw._button_site_ids[self.which])
        elif self.what == "cube":
            position = raw._data.mocap_pos[raw._cube_target_mocap_ids[self.which]].copy()
            told = {"block": self.which, "block_pos": position, "block_yaw": np.zeros(1)}
        else:
            told = {f"{self.what}_handle_pos": place(getattr(raw, f"_{self.what}_target_site_id"))}
        return raw.get_step_info() | {f"privileged/target_{name}": value for name, value in told.items()}


def presses(now, goal, rows):
    """The buttons of a square puzzle to press, each of which changes itself and its neighbours."""
    places = [divmod(number, rows) for number in range(rows**2)]
    changes = np.array([[abs(i - k) + abs(j - m) <= 1 for k, m in places] for i, j in places])
    for choice in itertools.product((0, 1), repeat=rows**2):
        if ((now + choice @ changes) % 2 == goal).all():
            return np.flatnonzero(choice)
    raise AssertionError("no way")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ogbench-cube-single-play", "ogbench-scene-play", "ogbench-puzzle-3x3-play"])
def test_an_oracle_scores_100(name):
    """The package's own Markov oracle plays our simulator; the episode ends one step after success."""
    found = task(name)
    (env,) = found.make(1)
    raw = env.unwrapped
    if "puzzle" in name:
        env.reset(seed=0)
        parts = [("button", number) for number in presses(raw._cur_button_states, raw._target_button_states, 3)]
    else:
        unlocked = lambda what, button: [("button", button), (what, 0), ("button", button)]  # noqa: E731
        parts = [*unlocked("drawer", 0), *unlocked("window", 1)] if "scene" in name else [("cube", 0)]
    played = rollout(found, Oracle(env, parts), 1, seed=0)
    assert summary(played, found)["score_mean"] == 100
    assert played.lengths[0] < found.max_episode_steps
