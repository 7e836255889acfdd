"""Tasks: settings against the d4rl package, simulators against v2's rules and D4RL's own model."""

import dataclasses
import os

import gymnasium
import mujoco
import numpy as np
import pytest
from command_line import genpolicy
from composed import CONF, names, nodes, task
from d4rl_package import d4rl, infos, maze_model
from rich.console import Console

from genpolicy.config.arguments import options
from genpolicy.config.option_content import given_settings
from genpolicy.config.schema import locate
from genpolicy.env.maze2d import PointMaze
from genpolicy.env.task import make_quietly
from genpolicy.errors import UserError
from genpolicy.modes import tasks

# These have tests of their own: gym in test_own_data.py, the control suite and OGBench in files of their name.
TASKS = [name for name in names("env") if name != "gym" and not name.startswith(("dmc-", "ogbench-"))]
TOYS = {"swiss-roll", "multi-goal"}
D4RL_TASKS = [name for name in TASKS if name not in TOYS]
ROBOTS = ("hopper-medium", "halfcheetah-medium", "walker2d-medium")
SIZES = {"hopper": (11, 3), "halfcheetah": (17, 6), "walker2d": (17, 6), "maze2d": (4, 2), "antmaze": (29, 8)}
SIZES |= {"pen": (45, 24), "door": (39, 28), "hammer": (46, 26), "relocate": (39, 30), "kitchen": (60, 9)}
SIZES |= {"swiss": (0, 2), "multi": (2, 2)}


def test_all_tasks_are_there():
    qualities = ("random", "medium", "medium-replay", "medium-expert", "expert")
    locomotion = {f"{robot}-{q}-v2" for robot in ("hopper", "halfcheetah", "walker2d") for q in qualities}
    mazes = {f"maze2d-{size}-v1" for size in ("umaze", "medium", "large")}
    walks = ("umaze", "umaze-diverse", "medium-play", "medium-diverse", "large-play", "large-diverse")
    mazes |= {f"antmaze-{walk}-{version}" for walk in walks for version in ("v0", "v2")}
    hands = {f"{task}-{q}-v1" for task in ("pen", "door", "hammer", "relocate") for q in ("human", "cloned", "expert")}
    kitchens = {f"kitchen-{q}-v0" for q in ("complete", "partial", "mixed")}
    assert set(TASKS) == locomotion | mazes | hands | kitchens | TOYS


@pytest.mark.parametrize(
    ("name", "known"),
    {"hopper-medium-v2": "Hopper-v4", "walker2d-expert-v2": "Walker2d-v4"}.items(),
)
def test_a_registered_environment_is_named_where_it_is_the_simulator_itself(name, known):
    found = task(name)
    assert found.registered_as == known
    ours, theirs = found.make(1)[0], make_quietly(known)
    np.testing.assert_array_equal(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])
    for mine, its in zip(ours.step(found.action_high), theirs.step(found.action_high), strict=True):
        np.testing.assert_equal(mine, its)


@pytest.mark.parametrize("name", ["maze2d-umaze-v1", "door-human-v1", "dmc-fish-swim", "multi-goal"])
def test_no_registered_environment_is_named_where_genpolicy_s_own_is_played(name):
    assert task(name).registered_as is None


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in names("env") if name != "gym"])
def test_a_file_sets_what_its_class_declares(name):
    env = nodes(f"env={name}", only=["env"]).env
    fields = {field.name for field in dataclasses.fields(locate(env._target_)) if field.init}
    assert set(env) - {"_target_"} == fields
    assert (CONF / "env" / f"{name}.yaml").read_text().startswith("# ")


@pytest.mark.parametrize("name", names("dataset"))
def test_a_data_sets_file_sets_what_its_class_declares(name, tmp_path):
    of = {
        "swiss_roll": "swiss-roll",
        "multi_goal": "multi-goal",
        "rl_unplugged": "dmc-fish-swim",
        "ogbench": "ogbench-scene-play",
        "ogbench_made": "ogbench-scene-play",
    }
    env = of.get(name, "maze2d-umaze-v1")
    (tmp_path / "x.hdf5").touch()
    path = [f"dataset.path={tmp_path}/x.hdf5"] if name in ("hdf5", "npz", "rl_unplugged") else []
    if name == "minari":
        path = ["dataset.id=D4RL/any/thing-v0"]
    dataset = nodes(f"env={env}", f"dataset={name}", *path).dataset
    fields = {field.name for field in dataclasses.fields(locate(dataset._target_)) if field.init}
    assert set(dataset) - {"_target_"} == fields
    assert (CONF / "dataset" / f"{name}.yaml").read_text().startswith("# ")


@pytest.mark.slow
@pytest.mark.parametrize("name", D4RL_TASKS)
def test_scores_and_addresses_are_d4rls(name):
    found = task(name)
    assert found.name == name
    assert found.reference_min == infos.REF_MIN_SCORE[name]
    assert found.reference_max == infos.REF_MAX_SCORE[name]
    assert found.url == infos.DATASET_URLS[name]
    returns = np.array([-10.0, 0.0, 100.0, 3000.0])
    np.testing.assert_allclose(found.score(returns), 100 * d4rl.get_normalized_score(name, returns))


@pytest.mark.parametrize(
    ("env", "dataset"),
    [
        ("hopper-expert-v2", "D4RL"),
        ("maze2d-large-v1", "Waypoint"),
        ("swiss-roll", "SwissRollData"),
        ("multi-goal", "MultiGoalData"),
    ],
)
def test_a_task_brings_its_data(env, dataset):
    assert nodes(f"env={env}").dataset._target_.endswith(f".{dataset}")


def test_the_command_line_may_choose_other_data(tmp_path):
    (tmp_path / "mine.hdf5").touch()
    node = nodes("env=hopper-medium-v2", "dataset=hdf5", f"dataset.path={tmp_path}/mine.hdf5").dataset
    assert node.path == f"{tmp_path}/mine.hdf5"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["env=hopper-medium-v2", "dataset=waypoint"],
            "dataset=waypoint does not go with env=hopper-medium-v2",
        ),
        (["env=swiss-roll", "dataset=waypoint"], "dataset=waypoint does not go with env=swiss-roll"),
        (["env=swiss-roll", "dataset=d4rl"], "dataset=d4rl does not go with env=swiss-roll"),
        (["env=maze2d-umaze-v1", "dataset=swiss_roll"], "it goes with env=swiss-roll"),
        (
            ["env=maze2d-umaze-v1", "env.goal=[3,1]"],
            r"of maze2d-umaze-v1 are those of \[1, 1\]; another task needs a name",
        ),
        (["env=kitchen-mixed-v0", "env.things=[kettle]"], "another task needs a name of its own"),
        (["env=antmaze-umaze-v2", "env.maze=large"], "another task needs a name of its own"),
        (["env=door-human-v1", "env.simulator=AdroitHandPen-v1"], "another task needs a name of its own"),
        (["env=maze2d-umaze-v1", "env.goal=[3,1]", "env.name=own", "dataset=d4rl"], "D4RL has no data for it"),
    ],
)
def test_data_that_do_not_fit_the_task_are_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        nodes(*overrides)


def test_another_goal_may_have_another_name():
    own = "env.name=own", "env.reference_min=null", "env.reference_max=null"
    assert nodes("env=maze2d-umaze-v1", "env.goal=[3,1]", *own).env.goal == [3, 1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["env=multi-goal", "env.reference_min=0"], "one is null"),
        (["env=hopper-medium-v2", "env.reference_max=null"], "one is null"),
        (["env=multi-goal", "env.reference_min=0", "env.reference_max=0"], "env.reference_max=0: must be above"),
    ],
)
def test_a_score_has_two_ends(overrides, message):
    with pytest.raises(UserError, match=message):
        nodes(*overrides)


def simulated() -> list[str]:
    """A task for each simulator: those that differ in their data only would be the same test again."""
    first = {}
    for name in TASKS:
        env = given_settings("env", name)
        first.setdefault(tuple(str(env.get(key)) for key in ("_target_", "simulator", "maze", "things")), name)
    return list(first.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", simulated())
def test_simulators_run(name, tmp_path, monkeypatch, recwarn, capfd):
    monkeypatch.chdir(tmp_path)
    found = task(name)
    assert (found.observation_size, found.action_size) == SIZES[name.split("-")[0]]
    envs = found.make(3)
    assert all(env is again for env, again in zip(envs, found.make(4), strict=False))
    observation = np.stack([env.reset(seed=seed)[0] for env, seed in zip(envs, (1, 2, 1), strict=True)])
    assert observation.shape == (3, found.observation_size)
    np.testing.assert_array_equal(observation[0], observation[2])
    if found.observation_size:
        assert (observation[0] != observation[1]).any()
    for env in envs:
        env.action_space.seed(0)
        for _ in range(100):
            action = env.action_space.sample()
            assert ((action >= found.action_low) & (action <= found.action_high)).all()
            observation, reward, terminated, _, _ = env.step(action)
            assert np.isfinite(observation).all()
            assert np.isfinite(reward)
            assert not (terminated and name.startswith(("halfcheetah", "maze2d")))
            if terminated:
                env.reset()
    found.close()
    assert os.listdir(tmp_path) == []  # MuJoCo leaves no log behind
    assert [str(warning.message) for warning in recwarn] == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["hopper-medium-v2", "halfcheetah-medium-v2", "walker2d-medium-v2", "maze2d-umaze-v1"])
def test_an_episode_is_cut_off_at_the_limit_of_d4rl(name):
    found = task(name)
    found.max_episode_steps, limit = 7, found.max_episode_steps
    assert limit == (300 if name.startswith("maze2d") else 1000)
    (env,) = found.make(1)
    env.reset(seed=0)
    ends = [env.step(np.zeros(found.action_size, np.float32))[2:4] for _ in range(7)]
    assert [bool(truncated) for _, truncated in ends] == [False] * 6 + [True]
    assert not any(terminated for terminated, _ in ends)


# gym's -v2 environments: seconds a step, alive bonus, control cost, and when a state (qpos, qvel) is alive
V2 = {
    "hopper-medium-v2": (
        0.008,
        1.0,
        1e-3,
        lambda q, v: (np.abs([*q[2:], *v]) < 100).all() and q[1] > 0.7 and abs(q[2]) < 0.2,
    ),
    "halfcheetah-medium-v2": (0.05, 0.0, 0.1, lambda q, v: True),
    "walker2d-medium-v2": (0.008, 1.0, 1e-3, lambda q, v: 0.8 < q[1] < 2.0 and -1.0 < q[2] < 1.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", V2)
def test_recorded_transitions_replay_by_the_rules_of_v2(name):
    """Set to recorded positions and velocities, the simulator repeats the step, by v2's rules."""
    seconds, alive_bonus, control_cost, alive = V2[name]
    replay = task(name).simulate()
    source = gymnasium.make(task(name).simulator).unwrapped
    replay.reset(seed=9)
    source.action_space.seed(0)
    falls = 0
    for episode in range(5):
        source.reset(seed=episode)
        for _ in range(200):
            qpos, qvel = source.data.qpos.copy(), source.data.qvel.copy()
            action = source.action_space.sample()
            observation, *_ = source.step(action)

            replay.set_state(qpos, qvel)
            again, reward, terminated, truncated, _ = replay.step(action)
            np.testing.assert_allclose(again, observation, atol=1e-6)
            forward = (source.data.qpos[0] - qpos[0]) / seconds
            assert reward == pytest.approx(forward + alive_bonus - control_cost * np.square(action).sum(), abs=1e-4)
            assert terminated == (not alive(source.data.qpos, source.data.qvel))
            assert not truncated
            if terminated:
                falls += 1
                break
    assert falls == (0 if name.startswith("halfcheetah") else 5)


def test_a_simulator_that_does_not_exist():
    with pytest.raises(UserError, match=r"env.simulator: Hoper-v4 cannot be made"):
        make_quietly("Hoper-v4")
    with pytest.raises(UserError, match="CartPole-v1 is none of Hopper-v4"):
        nodes("env=hopper-medium-v2", "env.simulator=CartPole-v1")


MAZES = {
    "maze2d-umaze-v1": maze_model.U_MAZE,
    "maze2d-medium-v1": maze_model.MEDIUM_MAZE,
    "maze2d-large-v1": maze_model.LARGE_MAZE,
}


@pytest.mark.parametrize("name", MAZES)
def test_mazes_are_d4rls(name):
    found, cells = task(name), maze_model.parse_maze(MAZES[name])
    env = found.simulate()
    np.testing.assert_array_equal(env.walls, cells == maze_model.WALL)
    np.testing.assert_array_equal([found.goal], np.argwhere(cells == maze_model.GOAL))


@pytest.mark.parametrize("name", MAZES)
def test_the_ball_moves_as_in_d4rls_model(name):
    """D4RL's own MuJoCo model, built by its own code, stepped as its environment steps it."""
    with maze_model.point_maze(MAZES[name]).asfile() as file:
        model = mujoco.MjModel.from_xml_path(file.name)
    data = mujoco.MjData(model)
    ours = task(name).simulate()
    rng = np.random.default_rng(0)
    touched_walls = 0
    for episode in range(5):
        observation, _ = ours.reset(seed=episode)
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:] = observation[:2], observation[2:]
        for step in range(300):
            if step % 30 == 0:
                action = rng.uniform(-1.2, 1.2, size=2)
            data.qvel[:] = np.clip(data.qvel, -5, 5)
            data.ctrl[:] = np.clip(action, -1, 1)
            mujoco.mj_step(model, data)
            observation, *_ = ours.step(action)
            np.testing.assert_allclose(observation, [*data.qpos, *data.qvel], atol=1e-6)
            touched_walls += data.ncon > 0
    assert touched_walls > 50


def test_maze_starts_and_rewards_are_d4rls():
    env = task("maze2d-umaze-v1").simulate()
    starts = np.array([env.reset(seed=seed)[0] for seed in range(700)])
    cells = np.rint(starts[:, :2])
    assert np.abs(starts[:, :2] - cells).max() <= 0.1
    found, counts = np.unique(cells, axis=0, return_counts=True)
    np.testing.assert_array_equal(found, env.free_cells)
    assert (np.abs(counts - 100) < 45).all()
    assert starts[:, 2:].std() == pytest.approx(0.1, rel=0.1)
    for position, expected in [((1.0, 1.0), 1), ((1.0, 1.49), 1), ((1.0, 1.52), 0), ((3.0, 1.0), 0)]:
        env.reset(options={"state": [*position, 0.0, 0.0]})
        _, reward, terminated, truncated, _ = env.step(np.zeros(2))
        assert (reward, terminated, truncated) == (expected, False, False)


def test_a_goal_in_a_wall_is_refused():
    with pytest.raises(UserError, match=r"env.goal: \[0, 1\] is no free cell"):
        PointMaze("PointMaze_UMaze-v3", [0, 1])


def test_all_tasks_at_a_glance(tmp_path):
    (tmp_path / "hopper_medium-v2.hdf5").write_bytes(bytes(1_234_567))
    result = genpolicy("mode=tasks", f"paths.data={tmp_path}")
    assert result.code == 0, result.err
    rows = {line.split()[0]: line.split()[1:] for line in result.out.splitlines()[4:] if line.strip()}
    assert set(rows) == set(names("env")) - {"gym"}
    assert rows["hopper-medium-v2"] == ["11", "3", "1,000", "Hopper-v4", "-20.2723", "3234.3", "1", "MB"]
    assert rows["antmaze-umaze-v0"] == ["29", "8", "700", "AntMaze", "0", "1", "not", "there"]
    assert rows["swiss-roll"] == ["0", "2", "1", "SwissRoll"]


def test_a_task_that_cannot_be_made_is_a_row_that_says_why(tmp_path, monkeypatch):
    (tmp_path / "bad.yaml").write_text(
        "_target_: genpolicy.env.gym.Gym\nname: bad\nid: Nope-v0\nmax_episode_steps: null\n"
    )
    shown = {"bad": tmp_path / "bad.yaml", "swiss-roll": options("env")["swiss-roll"]}
    monkeypatch.setattr(tasks, "options", lambda group: shown)
    found = genpolicy("mode=tasks", f"paths.data={tmp_path}")
    assert found.code == 0, found.err
    words = found.out.split()
    assert "Nope-v0" in words
    assert "SwissRoll" in words


def test_a_narrow_terminal_folds_names_and_keeps_numbers(tmp_path, monkeypatch):
    shown = {name: options("env")[name] for name in ("hopper-medium-v2", "ogbench-humanoidmaze-medium-navigate")}
    monkeypatch.setattr(tasks, "options", lambda group: shown)
    monkeypatch.setattr(tasks, "console", lambda: Console(width=80))
    lines = genpolicy("mode=tasks", f"paths.data={tmp_path}").out.splitlines()
    assert max(map(len, lines)) <= 80
    words = " ".join(lines).split()
    for word in ("11", "3", "1,000", "-20.2723", "3234.3", "69", "21", "2,000"):
        assert word in words, lines
