"""D4RL's layout: equal to d4rl's own reader on good files, one clear line on bad ones."""

import resource

import h5py
import numpy as np
import pytest
from d4rl_package import d4rl, offline_env
from hypothesis import given, settings
from hypothesis import strategies as st

from genpolicy.dataset.d4rl import D4RL
from genpolicy.dataset.hdf5 import HDF5, behaviour, qlearning
from genpolicy.dataset.hdf5_file import read, read_infos
from genpolicy.env.task import Task
from genpolicy.errors import UserError

OBSERVATION, ACTION, LIMIT = 3, 2, 5


class Simulator(offline_env.OfflineEnv):
    """A simulator of the sizes of these tests, for d4rl and for genpolicy."""

    def __init__(self):
        super().__init__()
        self.observation_space = offline_env.gym.spaces.Box(-np.inf, np.inf, (OBSERVATION,), np.float32)
        self.action_space = offline_env.gym.spaces.Box(-1.0, 1.0, (ACTION,), np.float32)
        self._max_episode_steps = LIMIT


class FakeTask(Task):
    """A task of these sizes."""

    def simulate(self):
        return Simulator()


def make_task() -> Task:
    return FakeTask(name="fake", max_episode_steps=LIMIT, reference_min=None, reference_max=None, url=None)


def columns(rows: int, seed: int = 0, dtype=np.float32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    content = {
        "observations": rng.normal(size=(rows, OBSERVATION)).astype(dtype),
        "actions": rng.uniform(-1, 1, size=(rows, ACTION)).astype(dtype),
        "rewards": rng.normal(size=rows).astype(dtype),
        "terminals": rng.random(rows) < 0.2,
        "timeouts": rng.random(rows) < 0.2,
        "next_observations": np.zeros((rows, OBSERVATION), dtype),
        "infos/qpos": rng.normal(size=(rows, 2)).astype(dtype),
    }
    content["next_observations"][:-1] = content["observations"][1:]
    return content


def write(path, content, **settings):
    with h5py.File(path, "w") as file:
        for name, column in content.items():
            file.create_dataset(name, data=column, **settings)
    return path


@pytest.mark.slow
@given(
    flags=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40),
    timeouts=st.booleans(),
    next_observations=st.booleans(),
    narrow=st.booleans(),
    double=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_transitions_equal_d4rls_value_by_value(tmp_path_factory, flags, timeouts, next_observations, narrow, double):
    """And where the two differ: d4rl leaves out terminated rows at a time limit, and the last row of the file."""
    content = columns(len(flags), seed=len(flags), dtype=np.float64 if double else np.float32)
    content["terminals"], content["timeouts"] = terminals, _ = [np.array(flag) for flag in zip(*flags, strict=True)]
    if not timeouts:
        del content["timeouts"]
    if not next_observations:
        del content["next_observations"]
    if narrow:
        content["rewards"] = content["rewards"][:, None]
        content["terminals"] = content["terminals"][:, None]
    path = write(tmp_path_factory.mktemp("data") / "file.hdf5", content, compression="gzip")

    theirs = d4rl.qlearning_dataset(Simulator(), dataset=Simulator().get_dataset(h5path=str(path)))
    ours = qlearning(read(path, make_task()), make_task())

    rows = {reward: row for row, reward in enumerate(content["rewards"].reshape(-1).astype(np.float32).tolist())}
    their_rows, our_rows = ([rows[float(reward)] for reward in each] for each in (theirs["rewards"], ours["reward"]))
    assert our_rows == sorted({*their_rows, *np.flatnonzero(terminals)})
    common = np.isin(our_rows, their_rows)
    assert ours["terminated"][~common].all()
    for name, d4rls_name in {
        "observation": "observations",
        "action": "actions",
        "reward": "rewards",
        "next_observation": "next_observations",
        "terminated": "terminals",
    }.items():
        if common.any():
            assert ours[name].dtype == theirs[d4rls_name].dtype
            np.testing.assert_array_equal(ours[name][common], theirs[d4rls_name])
    for name in ("observation", "action"):
        np.testing.assert_array_equal(ours[name], content[f"{name}s"].astype(np.float32)[our_rows])
    # transitions of one episode follow each other, and a terminated one is the last of its episode
    same = np.diff(ours["episode"]) == 0
    np.testing.assert_array_equal(ours["observation"][1:][same], ours["next_observation"][:-1][same])
    assert not ours["terminated"][:-1][same].any()


def test_behaviour_is_that_of_finished_episodes():
    content = {
        "observations": np.zeros((10, OBSERVATION), np.float32),
        "rewards": np.array([1, 2, 1, 2, 3, 2, 4, 50, 60, 100], np.float32),
        "terminals": np.array([0, 1, 0, 0, 0, 0, 0, 0, 0, 0], bool),
        "timeouts": np.array([0, 0, 0, 0, 0, 0, 1, 0, 1, 0], bool),
    }
    found, _ = behaviour(content, make_task())
    # 3 and 12; the next is cut short, and the last is unfinished
    assert (found.return_mean, found.return_std, found.episodes) == (7.5, 4.5, 2)


def test_no_more_steps_are_earned_than_an_episode_has():
    """People took about twice as many in Adroit's data."""
    content = {
        "observations": np.zeros((18, OBSERVATION), np.float32),
        "rewards": np.arange(18, dtype=np.float32),
        "terminals": np.arange(18) == 6,
        "timeouts": np.isin(np.arange(18), (9, 17)),
    }
    found, _ = behaviour(content, make_task())
    assert LIMIT == 5
    assert (found.return_mean, found.episodes) == ((0 + 1 + 2 + 3 + 4 + 10 + 11 + 12 + 13 + 14) / 2, 2)


@pytest.mark.parametrize("known", [("timeouts", "next_observations"), ("next_observations",), ()])
@pytest.mark.parametrize("lengths", [(2, LIMIT) * 6, (LIMIT, 2, 3) * 4, (4, LIMIT, LIMIT, 2) * 3])
def test_episodes_do_not_need_timeouts(tmp_path, lengths, known):
    """Episodes that terminate before the limit, and others that it ends: d4rl counts these short after a terminal."""
    content, ends = columns(sum(lengths)), np.cumsum(lengths) - 1
    content |= {"terminals": np.zeros(sum(lengths), bool), "timeouts": np.zeros(sum(lengths), bool)}
    content["terminals"][ends[np.array(lengths) < LIMIT]] = True
    content["timeouts"][ends[np.array(lengths) == LIMIT]] = True
    content["next_observations"][ends] += 10.0
    kept = content["terminals"] | ~content["timeouts"]
    for name in {"timeouts", "next_observations"} - {*known}:
        del content[name]
    data = HDF5(path=str(write(tmp_path / "file.hdf5", content)), directory=tmp_path).load(make_task())
    np.testing.assert_array_equal(data.reward, content["rewards"][kept])
    np.testing.assert_array_equal(np.flatnonzero(data.ends), np.cumsum(np.add.reduceat(kept, ends + 1 - lengths)) - 1)
    found, returns = data.behaviour, np.add.reduceat(content["rewards"], ends + 1 - lengths)
    assert found.episodes == len(lengths)
    assert (found.return_mean, found.return_std) == pytest.approx((returns.mean(), returns.std()), rel=1e-4)


def test_d4rls_own_files_without_timeouts_are_counted_as_d4rl_counts(tmp_path):
    content = columns(20) | {"terminals": np.isin(np.arange(20), (1, 8, 19))}
    del content["timeouts"], content["next_observations"]
    path, found = write(tmp_path / "file.hdf5", content), make_task()
    found.url = "http://d4rl/file.hdf5"
    theirs = d4rl.qlearning_dataset(Simulator(), dataset=Simulator().get_dataset(h5path=str(path)))
    ours = D4RL(directory=tmp_path).load(found)
    np.testing.assert_array_equal(ours.reward[:-1], theirs["rewards"])  # the file's last row is a termination
    own = HDF5(path=str(path), directory=tmp_path).load(make_task())
    assert own.reward.tolist() != ours.reward.tolist()


def test_what_is_earned_by_people_does_not_need_timeouts(tmp_path):
    """As in Kitchen's data: a demonstration may take longer than an episode may, and is one nevertheless."""
    content, task = columns(30), make_task()
    task.data_within_limit = False
    content["terminals"] = np.isin(np.arange(30), (2, 9, 16, 29))
    del content["timeouts"], content["next_observations"]
    found = HDF5(path=str(write(tmp_path / "file.hdf5", content)), directory=tmp_path).load(task).behaviour
    earned = [content["rewards"][start : min(start + LIMIT, end)].sum() for start, end in ((0, 3), (3, 10), (10, 17))]
    earned.append(content["rewards"][17:22].sum())
    assert found.episodes == 4
    assert (found.return_mean, found.return_std) == pytest.approx((np.mean(earned), np.std(earned)), rel=1e-4)


def test_dataset_of_a_path(tmp_path):
    content = columns(30)
    path = write(tmp_path / "file.hdf5", content)
    transitions = HDF5(path=str(path), directory=tmp_path).load(make_task())
    kept = content["terminals"] | ~(content["timeouts"] | (np.arange(30) == 29))
    np.testing.assert_array_equal(transitions.reward, content["rewards"][kept])


def test_small_overshoot_of_actions_is_clipped_and_a_large_one_refused(tmp_path):
    content = columns(4)
    content["actions"][2, 1] = 1 + 1e-6
    assert read(write(tmp_path / "a.hdf5", content), make_task())["actions"][2, 1] == 1.0
    content["actions"][2, 1] = -1.01
    with pytest.raises(UserError, match=r"action in row 2 leaves the action space of fake by 0.01; legal: -1 to 1"):
        read(write(tmp_path / "b.hdf5", content), make_task())


def _with(name, value):
    return lambda content: content.__setitem__(name, value)


def _cell(name, index, value):
    return lambda content: content[name].__setitem__(index, value)


MALFORMED = {
    "missing": (
        lambda content: content.pop("rewards"),
        "has no column rewards, only: actions, infos, next_obs",
    ),
    "nan": (_cell("rewards", 3, np.nan), "rewards has a NaN or infinite value in row 3"),
    "inf": (_cell("observations", (4, 1), -np.inf), "observations has a NaN or infinite value in row 4"),
    "nan action": (_cell("actions", (4, 1), np.nan), "actions has a NaN or infinite value in row 4"),
    "observation size": (
        _with("observations", np.zeros((9, 7))),
        r"observations has shape \[9, 7\], .* \[N,3\]",
    ),
    "action size": (_with("actions", np.zeros((9, 1))), r"actions has shape \[9, 1\], but must have \[N,2\]"),
    "flat": (_with("observations", np.zeros(27)), r"observations has shape \[27\]"),
    "three axes": (_with("observations", np.zeros((9, 3, 1))), r"observations has shape \[9, 3, 1\]"),
    "scalar": (_with("rewards", 3.0), r"rewards has shape \[\]"),
    "null": (_with("rewards", h5py.Empty("f")), "rewards has no values"),
    "transposed": (
        lambda content: content.update(observations=content["observations"].T),
        r"observations has shape \[3, 9\], but must have \[N,3\] here: it is transposed, \[3,N\] for \[N,3\]",
    ),
    "transposed actions": (
        lambda content: content.update(actions=content["actions"].T),
        r"actions has shape \[2, 9\], .*: it is transposed, \[2,N\] for \[N,2\]",
    ),
    "transposed rewards": (_with("rewards", np.zeros((1, 9))), r"rewards .* it is transposed, \[1,N\] for \[N\]"),
    "next observations": (_with("next_observations", np.zeros((9, 4))), r"next_observations has shape \[9, 4\]"),
    "rows of next observations": (_with("next_observations", np.zeros((8, 3))), "next_observations has 8 rows"),
    "nan next observations": (_cell("next_observations", (5, 0), np.nan), "next_observations has a NaN .* in row 5"),
    "wide rewards": (_with("rewards", np.zeros((9, 2))), r"rewards has shape \[9, 2\]"),
    "rows": (_with("rewards", np.zeros(8)), "rewards has 8 rows but observations has 9"),
    "rows of timeouts": (
        _with("timeouts", np.zeros(10, bool)),
        "timeouts has 10 rows but observations has 9",
    ),
    "text": (_with("rewards", [b"1"] * 9), "rewards holds objects or text"),
    "objects": (
        _with("observations", np.array([b"x" * i for i in range(9)], dtype=h5py.string_dtype())),
        "observations holds objects or text",
    ),
    "complex": (_with("rewards", np.zeros(9, complex)), "rewards holds values of type complex128"),
    "compound": (_with("actions", np.zeros(9, "f4,f4")), "actions holds values of type"),
    "flags": (_with("terminals", np.arange(9)), "terminals must be 0 or 1"),
    "nan flags": (_with("timeouts", np.full(9, np.nan)), "timeouts must be 0 or 1"),
    "text flags": (_with("terminals", [b"no"] * 9), "terminals holds objects or text"),
    "group": (
        lambda content: (content.pop("rewards"), content.update({"rewards/deep": 1})),
        "rewards is a group, not a column",
    ),
    "empty": (
        lambda content: content.update({name: column[:0] for name, column in content.items()}),
        "has 0 rows",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_files_are_refused_in_one_line(tmp_path, spoil, message):
    content = columns(9)
    spoil(content)
    path = write(tmp_path / "file.hdf5", content)
    with pytest.raises(UserError, match=message) as error:
        read(path, make_task())
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert "get it again" not in str(error.value)


def test_a_row_that_leads_nowhere_is_no_transition(tmp_path):
    content = {name: column[:1] for name, column in columns(9).items()} | {"terminals": np.array([False])}
    path = write(tmp_path / "file.hdf5", content)
    with pytest.raises(UserError, match=rf"{path}: has 1 rows, which make no transition") as error:
        HDF5(path=str(path), directory=tmp_path).load(make_task())
    assert "\n" not in str(error.value)
    ended = write(tmp_path / "ended.hdf5", content | {"terminals": np.array([True])})
    assert HDF5(path=str(ended), directory=tmp_path).load(make_task()).terminated.tolist() == [True]


def test_flags_may_be_numbers(tmp_path):
    content = columns(9)
    numbers = content | {name: content[name].astype(np.uint8) for name in ("terminals", "timeouts")}
    read_numbers = read(write(tmp_path / "file.hdf5", numbers), make_task())
    np.testing.assert_array_equal(read_numbers["terminals"], content["terminals"])
    assert read_numbers["timeouts"].dtype == bool


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"dataset.path: there is no file .*nowhere.hdf5"):
        HDF5(path=str(tmp_path / "nowhere.hdf5"), directory=tmp_path).load(make_task())


@given(cut=st.floats(0, 1, exclude_max=True))
@settings(max_examples=60, deadline=None)
def test_truncated_files_are_refused(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("data")
    whole = write(folder / "whole.hdf5", columns(200), compression="gzip").read_bytes()
    (folder / "cut.hdf5").write_bytes(whole[: int(len(whole) * cut)])
    with pytest.raises(UserError, match="not a readable HDF5 file") as error:
        read(folder / "cut.hdf5", make_task())
    assert "\n" not in str(error.value)


def test_nothing_outside_the_file_is_read(tmp_path):
    content = columns(9)
    secret = write(tmp_path / "secret.hdf5", {"rewards": content["rewards"]})
    raw = tmp_path / "secret.raw"
    raw.write_bytes(content["rewards"].tobytes())
    layout = h5py.VirtualLayout(shape=(9,), dtype=np.float32)
    layout[:] = h5py.VirtualSource(secret, "rewards", shape=(9,))
    makers = {
        "link to elsewhere": lambda file: file.__setitem__("rewards", h5py.ExternalLink("secret.hdf5", "/rewards")),
        "link to elsewhere ": lambda file: file.__setitem__("rewards", h5py.SoftLink("/actions")),
        "values in other files": lambda file: file.create_virtual_dataset("rewards", layout),
        "values in other files ": lambda file: file.create_dataset("rewards", (9,), "f4", external=str(raw)),
    }
    del content["rewards"]
    for message, make in makers.items():
        path = write(tmp_path / "file.hdf5", content)
        with h5py.File(path, "a") as file:
            make(file)
        with pytest.raises(UserError, match=message.strip()):
            read(path, make_task())


def test_a_file_that_claims_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("genpolicy.dataset.user_file.LARGEST_FILE", 2**30)
    path = write(tmp_path / "file.hdf5", {})
    with h5py.File(path, "a") as file:  # no column by itself claims more than 0.5 GiB, all together 1.1
        for name, size in {"observations": OBSERVATION, "actions": ACTION, "next_observations": OBSERVATION}.items():
            file.create_dataset(name, (3 * 10**7, size), "f4", chunks=(1000, size))
        for name in ("rewards", "terminals"):
            file.create_dataset(name, (3 * 10**7,), "f4", chunks=(1000,))
    assert path.stat().st_size < 10_000
    with pytest.raises(UserError, match=rf"{path}: its columns claim 1.1 GiB, more than can be loaded here \(1.0 GiB"):
        read(path, make_task())


def test_infos_that_claim_too_much_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("genpolicy.dataset.user_file.LARGEST_FILE", 2**20)
    path = write(tmp_path / "file.hdf5", columns(9))
    with h5py.File(path, "a") as file:
        for number in range(3):
            file.create_dataset(f"infos/{number}", (9, 7000), "f8", chunks=(1, 7000))
    with pytest.raises(UserError, match=rf"{path}: its columns claim 0.0 GiB, more than can be loaded"):
        read_infos(path, 9)


def test_memory_that_is_not_there_is_one_line(tmp_path, monkeypatch):
    path = write(tmp_path / "file.hdf5", columns(9))
    with h5py.File(path, "a") as file:
        for name, size in {"observations": OBSERVATION, "next_observations": OBSERVATION, "actions": ACTION}.items():
            del file[name]
            file.create_dataset(name, (10**8, size), "f4", chunks=(1000, size))
        for name in ("rewards", "terminals", "timeouts"):
            del file[name]
            file.create_dataset(name, (10**8,), "f4", chunks=(1000,))
    monkeypatch.setattr("genpolicy.dataset.user_file.LARGEST_FILE", 2**50)
    monkeypatch.setattr("genpolicy.dataset.user_file.MEMORY", 2**28)
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(UserError, match=rf"{path}: not a readable HDF5 file \(it claims more memory than there is\)"):
        read(path, make_task())
    assert resource.getrlimit(resource.RLIMIT_AS) == before
