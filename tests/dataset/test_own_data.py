"""One's own data and simulator: dataset=npz and env=gym."""

import json
import zipfile

import gymnasium
import h5py
import numpy as np
import pytest
from command_line import genpolicy, jobs, tried
from gymnasium.envs.registration import EnvSpec
from tiny import only_run, records

from genpolicy import load_policy
from genpolicy.config.schema import build
from genpolicy.dataset.npz import NPZ
from genpolicy.env.gym import Plain
from genpolicy.errors import UserError

O, A, LIMIT = 3, 1, 200  # noqa: E741, Pendulum's


def pendulum():
    [(job, _)] = jobs("env=gym", "env.id=Pendulum-v1", "dataset=npz", f"dataset.path={__file__}", "algo=bc")
    return build(job.config.env)


def recorded(episodes=3, steps=5) -> dict[str, np.ndarray]:
    """Episodes of random actions, without an end of their own."""
    env, columns = gymnasium.make("Pendulum-v1"), {name: [] for name in ("obs", "action", "next_obs", "reward", "done")}
    for seed in range(episodes):
        observation, _ = env.reset(seed=seed)
        env.action_space.seed(seed)
        for _ in range(steps):
            action = env.action_space.sample()
            following, reward, terminated, _, _ = env.step(action)
            for name, value in zip(columns, (observation, action, following, reward, terminated), strict=True):
                columns[name].append(value)
            observation = following
    return {name: np.array(column) for name, column in columns.items()}


def loaded(folder, **columns):
    np.savez(folder / "data.npz", **columns)
    return NPZ(path=str(folder / "data.npz"), directory=folder).load(pendulum())


def test_a_file_is_read_as_it_is(tmp_path):
    columns = recorded()
    data = loaded(tmp_path, **columns)
    np.testing.assert_array_equal(data.observation, columns["obs"])
    np.testing.assert_array_equal(data.next_observation, columns["next_obs"])
    np.testing.assert_allclose(data.reward, columns["reward"], rtol=1e-6)
    assert not data.terminated.any()
    assert data.behaviour.episodes == 0  # none terminated, none is as long as the task's
    column = loaded(tmp_path, **columns | {name: columns[name][:, None] for name in ("reward", "done")})
    np.testing.assert_array_equal(column.reward, data.reward)


def test_episodes_end_where_they_terminate_or_break_off(tmp_path):
    columns = recorded()
    columns["done"][[4, 12]] = True
    data = loaded(tmp_path, **columns)
    assert data.terminated.nonzero().flatten().tolist() == [4, 12]
    sums = [columns["reward"][:5].sum(), columns["reward"][10:13].sum()]  # the second episode only broke off
    assert data.behaviour.episodes == 2
    assert data.behaviour.return_mean == pytest.approx(np.mean(sums), rel=1e-6)
    whole = loaded(tmp_path, **recorded(episodes=2, steps=LIMIT))
    assert whole.behaviour.episodes == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"obs": None}, "has no obs, only: action, next_obs, reward, done"),
        ({"obs": np.zeros((15, 4))}, r"obs has shape \[15, 4\], but must have \[N,3\]"),
        ({"reward": np.zeros(14)}, "reward has 14 rows but obs has 15"),
        ({"reward": np.full(15, np.nan)}, "reward has a NaN or infinite value in row 0"),
        ({"done": np.full(15, 2)}, "done must be 0 or 1 everywhere"),
        ({"action": np.full((15, 1), 7.0)}, "action in row 0 leaves the action space of Pendulum-v1 by 5"),
        ({"action": np.array([["x"]] * 15)}, "action holds values of type <U1, not numbers"),
        (
            {"reward": np.array([{}] * 15, dtype=object)},
            "not a readable NPZ file .no arrays of numbers, and nothing else is read",
        ),
        ({"obs": np.zeros((3, 15))}, r"obs has shape \[3, 15\], .*: it is transposed, \[3,N\] for \[N,3\], as MATLAB"),
        ({"next_obs": np.zeros((3, 15))}, r"next_obs has shape \[3, 15\], .*: it is transposed"),
        ({"done": np.zeros((1, 15))}, r"done has shape \[1, 15\], .*: it is transposed, \[1,N\] for \[N\]"),
        ({"obs": np.zeros((0, 3))}, "action has 15 rows but obs has 0"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(tmp_path, change, reason):
    columns = {name: column for name, column in (recorded() | change).items() if column is not None}
    with pytest.raises(Exception, match=reason) as refusal:
        loaded(tmp_path, **columns)
    assert type(refusal.value).__name__ == "UserError"
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 torn"])
def test_what_is_no_npz_is_one_line(tmp_path, content):
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(Exception, match="not a readable NPZ file") as refusal:
        NPZ(path=str(tmp_path / "data.npz"), directory=tmp_path).load(pendulum())
    assert "\n" not in str(refusal.value)
    assert "pickle" not in str(refusal.value)


def test_a_member_that_is_no_array_is_one_line(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, **{name: column for name, column in recorded().items() if name != "reward"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("reward", "1 2 3")
    with pytest.raises(UserError, match=rf"{path}: reward is no array; write the file with numpy.savez$"):
        NPZ(path=str(path), directory=tmp_path).load(pendulum())


def test_only_what_is_read_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("genpolicy.dataset.user_file.LARGEST_FILE", 5_000)
    assert loaded(tmp_path, pictures=np.zeros(10_000), **recorded()).size == 15
    with pytest.raises(UserError, match=rf"{tmp_path / 'data.npz'}: its columns claim .* more than can be loaded here"):
        loaded(tmp_path, **recorded(episodes=30))


def test_a_gymnasium_environment_is_a_task():
    task = pendulum()
    assert (task.name, task.max_episode_steps) == ("Pendulum-v1", LIMIT)
    assert (task.observation_size, task.action_size) == (O, A)
    np.testing.assert_array_equal([task.action_low, task.action_high], [[-2], [2]])
    reference = gymnasium.make("Pendulum-v1")
    first, _ = reference.reset(seed=5)
    (env,) = task.make(1)
    observation, _ = env.reset(seed=5)
    np.testing.assert_array_equal(observation, first)
    for step in range(LIMIT):
        action = np.full(A, 0.5, np.float32)
        observation, reward, _, truncated, _ = env.step(action)
        expected, earned, *_ = reference.step(action)
        np.testing.assert_array_equal(observation, expected)
        assert (reward, truncated) == (earned, step == LIMIT - 1)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("", "env.id must be given"),
        ("env.id=CartPole-v1", "env.id=CartPole-v1: its actions are Discrete(2); only a Box of vectors will do"),
        ("env.id=FrozenLake-v1", "its observations are Discrete(16)"),
        ("env.id=Pendulumm-v1", "env.id: Pendulumm-v1 cannot be made: "),
        ("env.id=nowhere:Pendulum-v1", "env.id: nowhere:Pendulum-v1 cannot be made: "),
    ],
)
def test_what_is_no_task_is_one_line_before_anything_is_made(tmp_path, words, reason):
    data = [f"dataset.path={__file__}", f"paths.outputs={tmp_path / 'outputs'}"]
    result = genpolicy("env=gym", "dataset=npz", *data, *words.split())
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert reason in result.err
    assert not (tmp_path / "outputs").exists()


class Torque(gymnasium.Env):
    """An environment of actions within a bound; given, start: what it gives for a number, and at a reset."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def __init__(self, bound=1.0, size=1, given=float, start=(0.0, 0.0)):
        high = np.where(np.arange(size) % 2, bound, 1.0)
        self.action_space, self.given, self.start = gymnasium.spaces.Box(-high, high), given, start

    def reset(self, **_):
        return self.start, {}

    def step(self, action):
        return np.zeros(2), self.given(-1), self.given(0), self.given(0), {}


@pytest.mark.parametrize("given", [float, int, np.float32, lambda x: np.array([x]), lambda x: np.array([[x]], "f4")])
def test_rewards_and_flags_may_be_arrays_of_one_element(given):
    env = Plain(Torque(given=given), "mine")
    assert env.reset()[0].shape == (2,)
    _, *given, _ = env.step(np.zeros(1))
    assert (given, [type(each) for each in given]) == ([-1, False, False], [float, bool, bool])


@pytest.mark.parametrize("given", [lambda _: None, lambda x: np.array([x, x]), lambda _: "much"])
def test_a_reward_that_is_no_number_is_one_line(given):
    with pytest.raises(UserError, match=r"^mine: the environment gives \w+=.*; it must be one number$"):
        Plain(Torque(given=given), "mine").step(np.zeros(1))


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (np.zeros((2, 1)), "its observations have shape [2, 1], but its observation_space has [2]"),
        (np.zeros(3), "its observations have shape [3], but its observation_space has [2]"),
    ],
)
def test_observations_of_another_shape_than_the_spaces_are_one_line(tmp_path, monkeypatch, start, reason):
    spec = EnvSpec("Torque-v0", Torque, max_episode_steps=5, kwargs={"start": start})
    monkeypatch.setitem(gymnasium.registry, "Torque-v0", spec)
    result, _ = tried("mode=collect", "env=gym", "env.id=Torque-v0", f"collect.path={tmp_path / 'new.hdf5'}")
    assert (result.code, result.err) == (1, f"genpolicy: env.id=Torque-v0: {reason}\n")


@pytest.mark.parametrize("bound", [np.inf, 3.4e38, 1.1e6, 1e6])
@pytest.mark.parametrize("mode", ["train", "collect", "check"])
def test_actions_that_nobody_reaches_have_no_bounds(tmp_path, monkeypatch, bound, mode):
    spec = EnvSpec("Torque-v0", Torque, max_episode_steps=5, kwargs={"bound": bound, "size": 30})
    monkeypatch.setitem(gymnasium.registry, "Torque-v0", spec)
    (tmp_path / "mine.npz").touch()
    words = {"collect": [f"collect.path={tmp_path / 'new.hdf5'}"]}
    words = words.get(
        mode, ["dataset=npz", f"dataset.path={tmp_path / 'mine.npz'}", "algo=bc"][: 2 + (mode == "train")]
    )
    result, started = tried(
        f"mode={mode}", "env=gym", "env.id=Torque-v0", f"paths.outputs={tmp_path / 'outputs'}", *words
    )
    assert bool(started) == (bound == 1e6), result.err
    if not started:
        assert (result.code, result.err.count("\n")) == (1, 1)
        assert "env.id=Torque-v0: its actions are practically unbounded (Box(" in result.err
        assert "must be within -1e+06 and 1e+06" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.npz"]


def write(path, kind: str):
    """A file of a format, with nothing in it that anybody wants."""
    if kind == "hdf5":
        h5py.File(path, "w", userblock_size=512).close()  # as MATLAB writes it
    elif kind == "npz":
        np.savez(path, x=np.zeros(3))
    else:
        np.save(path, np.zeros(3))


DATA = {"hdf5": "env=hopper-medium-v2", "npz": "env=hopper-medium-v2", "rl_unplugged": "env=dmc-cheetah-run"}
HINTS = {"hdf5": "is an HDF5 file, as dataset=hdf5 takes it"}
HINTS |= {"npz": "is a zip archive, as numpy.savez writes it and dataset=npz takes it"}
HINTS |= {"npy": "is a single NumPy array; dataset=npz takes several by name, as numpy.savez writes them"}


@pytest.mark.parametrize("dataset", DATA)
@pytest.mark.parametrize("kind", HINTS)
def test_a_file_of_another_format_is_told_at_once(tmp_path, dataset, kind):
    path = tmp_path / "data.x"
    with open(path, "wb") as file:
        write(path if kind == "hdf5" else file, kind)
    words = DATA[dataset], f"dataset={dataset}", f"dataset.path={path}", "algo=bc", f"paths.outputs={tmp_path}/outputs"
    if kind == {"rl_unplugged": "npy"}.get(dataset, dataset):
        result, started = tried(*words)
        assert started, result.err
        return
    result = genpolicy(*words)
    assert not tmp_path.joinpath("outputs").exists()
    assert result.err.startswith(f"genpolicy: dataset.path: {path} {HINTS[kind]}")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "get it again" not in result.err


@pytest.mark.slow
def test_from_a_file_and_an_id_to_a_trained_policy(tmp_path):
    np.savez(tmp_path / "mine.npz", **recorded(episodes=20, steps=LIMIT))
    words = ["env=gym", "env.id=Pendulum-v1", "dataset=npz", f"dataset.path={tmp_path / 'mine.npz'}", "network=mlp"]
    words += ["algo=gmpo", "algo.critic_steps=50", "algo.policy_steps=50", "eval.episodes=2", "eval.final_episodes=2"]
    words += ["eval.per_phase=1", "eval.log_prob_actions=20", "tracking.uri=none", f"paths.outputs={tmp_path}"]
    result = genpolicy(*words)
    assert result.code == 0, result.err
    final = {name: value for name, _, value in records(only_run(tmp_path)) if name.startswith("final/")}
    assert -2000 < final["final/return_mean"] < 0
    assert final["final/episode_length"] == LIMIT
    assert "final/score_mean" not in final
    data = json.loads((only_run(tmp_path) / "status.json").read_text())["data"]
    assert data["name"] == "npz Pendulum-v1"
    assert data["source"] == str(tmp_path / "mine.npz")
    assert (data["transitions"], data["episodes"]) == (20 * LIMIT, 20)
    assert data["shapes"] == {
        "observation": [O],
        "action": [A],
        "reward": [],
        "next_observation": [O],
        "terminated": [],
    }
    loaded = NPZ(path=str(tmp_path / "mine.npz"), reward="none", directory=tmp_path).load(pendulum())
    assert data["digest"] == loaded.digest()
    (tmp_path / "mine.npz").rename(tmp_path / "elsewhere.npz")
    assert load_policy(only_run(tmp_path)).act(np.zeros(O, np.float32)).shape == (A,)
    said = genpolicy("mode=eval", f"checkpoint={only_run(tmp_path)}", "eval.final_episodes=1").err
    assert said == f"genpolicy: dataset.path: there is no file {tmp_path / 'mine.npz'}\n"
    assert genpolicy("mode=export", f"checkpoint={only_run(tmp_path)}").code == 0
