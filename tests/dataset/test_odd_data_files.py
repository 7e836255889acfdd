"""300 odd data files: each is read with the meaning it was given here, or refused in a line; nothing else happens.

The same short episodes are written in each format, after something was done to them that people do to data. What must
come of it is worked out from the episodes.
"""

import os
import pickle
import re
import resource
import zipfile
from dataclasses import dataclass

import gymnasium
import h5py
import numpy as np
import pytest

from genpolicy.dataset.hdf5 import HDF5
from genpolicy.dataset.npz import NPZ
from genpolicy.dataset.rl_unplugged import RLUnplugged
from genpolicy.dataset.transitions import Transitions
from genpolicy.env.task import Task
from genpolicy.errors import UserError

LIMIT, O, A, EPISODES = 20, 4, 2, 12  # noqa: E741
FILES = 100  # of each format
NAMES = {"obs": "observations", "action": "actions", "reward": "rewards", "done": "terminals", "timeout": "timeouts"}
NAMES |= {"next_obs": "next_observations"}


class Plain(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (O,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (A,), np.float32)


class PlainTask(Task):
    layout = {"position": 3, "velocity": 1}  # noqa: RUF012

    def simulate(self):
        return Plain()


TASK = PlainTask(name="plain", max_episode_steps=LIMIT, reference_min=None, reference_max=None, url=None)


@dataclass
class Case:
    """Columns as they are written, and what must come of them: a refusal, or these rows and returns.

    rows: of the columns, in the order they are read in; returns: of the finished episodes, None if not known.
    """

    columns: dict[str, np.ndarray]
    rows: np.ndarray
    returns: np.ndarray | None
    refused: str = ""
    said: bool = False


def recorded(random, terminate: bool) -> Case:
    """Random walks that a time limit ended, or some of them sooner."""
    columns = {name: [] for name in NAMES}
    returns = []
    for _ in range(EPISODES):
        ended = terminate and random.random() < 0.5
        length = random.integers(5, LIMIT) if ended else LIMIT
        place = (random.normal(size=O) + 0.1 * random.normal(size=(length + 1, O)).cumsum(0)).astype(np.float32)
        reward = random.normal(size=length).astype(np.float32)
        last = np.arange(length) == length - 1
        episode = {"obs": place[:-1], "next_obs": place[1:], "reward": reward, "done": last & ended}
        episode |= {"timeout": last & (not ended), "action": random.uniform(-1, 1, (length, A)).astype(np.float32)}
        for name, column in episode.items():
            columns[name].append(column)
        returns.append(reward.astype(np.float64).sum())
    columns = {name: np.concatenate(parts) for name, parts in columns.items()}
    return Case(columns, np.arange(len(columns["done"])), np.array(returns))


def taken(case: Case, index: np.ndarray) -> Case:
    """The rows `index`, in no order that tells episodes."""
    columns = {name: column[index] for name, column in case.columns.items()}
    return Case(columns, np.arange(len(index)), None, said=True)


def shuffled(case, random):
    return taken(case, random.permutation(len(case.rows)))


def side_by_side(case, random):
    lanes = random.integers(2, 11)
    return taken(case, np.concatenate([np.arange(start, len(case.rows), lanes) for start in range(lanes)]))


def backwards(case, random):
    return taken(case, case.rows[::-1])


def each_twice(case, random):
    return taken(case, np.repeat(case.rows, 2))


def thinned(case, random):
    return taken(case, np.flatnonzero(random.random(len(case.rows)) < 0.5))


def whole_twice(case, random):
    columns = {name: np.concatenate([column, column]) for name, column in case.columns.items()}
    return Case(columns, np.arange(2 * len(case.rows)), np.tile(case.returns, 2))


def narrowed(case, random):
    """One column of the two with fewer digits than the other."""
    name, kind = random.choice(["obs", "next_obs"]), random.integers(2)
    column = case.columns[name].astype(np.float64)
    case.columns[name] = np.round(column, 5) if kind else np.vectorize(lambda x: float(f"{x:.5g}"))(column)
    return case


def retyped(case, random):
    kinds = {"obs": ["f2", "f8", ">f4", ">f8"], "action": ["f2", "f8", ">f4"], "reward": ["f2", "f8", ">f8"]}
    kinds |= {"done": ["u1", "i8", "f4", ">i2", "?"], "timeout": ["u1", "f8", "?"]}
    chosen = {name: random.choice(of) for name, of in kinds.items()}
    for name, kind in (chosen | {"next_obs": chosen["obs"]}).items():
        case.columns[name] = case.columns[name].astype(kind)
    case.returns = None if case.columns["reward"].dtype.itemsize < 4 else case.returns
    return case


def whole_numbers(case, random):
    for name in ("obs", "next_obs", "reward"):
        case.columns[name] = np.round(100 * case.columns[name]).astype(random.choice(["i4", "i8", ">i4"]))
    return Case(case.columns, case.rows, None)


def narrow(case, random):
    for name in ("reward", "done", "timeout"):
        case.columns[name] = case.columns[name][:, None]
    return case


def more(case, random):
    case.columns |= {"pictures": np.zeros((3, 8, 8), np.uint8), "notes": np.array([b"x"]), "score": np.float64(3)}
    return case


def far_away(case, random):
    """A few values beyond all others."""
    columns = {name: column.copy() for name, column in case.columns.items()}
    ended = columns["done"] | columns["timeout"]
    row = random.choice(np.flatnonzero(~ended[:-1])) + 1
    columns["obs"][row] = columns["next_obs"][row - 1] = 10.0 ** random.integers(3, 38)
    return Case(columns, case.rows, case.returns)


def overshooting(case, random):
    case.columns["action"][random.integers(len(case.rows)), random.integers(A)] = 1 + 5e-5
    return case


READ = [shuffled, side_by_side, backwards, each_twice, thinned, whole_twice, narrowed, retyped, whole_numbers, narrow]
READ += [more, far_away, overshooting]


def not_finite(case, random):
    name = random.choice(["obs", "next_obs", "action", "reward"])
    row = random.integers(len(case.rows))
    case.columns[name][row] = random.choice([np.nan, np.inf, -np.inf])
    case.refused = f"has a NaN or infinite value in row {row}"
    return case


def too_large(case, random):
    name = random.choice(["obs", "reward"])
    case.columns[name] = case.columns[name].astype(np.float64)
    case.columns[name][random.integers(len(case.rows))] = random.choice([-1, 1]) * 1e300
    case.refused = "has a NaN or infinite value"
    return case


def empty(case, random):
    case.columns = {name: column[:0] for name, column in case.columns.items()}
    case.refused = "has 0 rows|it is empty"
    return case


def transposed(case, random):
    for name in ("obs", "next_obs", "action"):
        case.columns[name] = case.columns[name].T
    case.refused = "it is transposed"
    return case


def shorter(case, random):
    name = random.choice(["obs", "next_obs", "action", "reward", "done"])
    case.columns[name] = case.columns[name][: -random.integers(1, 9)]
    case.refused = r"has \d+ rows but obs(ervations)? has \d+"
    return case


def wider(case, random):
    name = random.choice(["obs", "next_obs", "action"])
    case.columns[name] = np.pad(case.columns[name], ((0, 0), (0, random.integers(1, 4))))
    case.refused = "has shape .*is it a file of another task"
    return case


def deeper(case, random):
    name = random.choice(["obs", "next_obs", "action", "reward"])
    case.columns[name] = case.columns[name].reshape(len(case.rows), -1, 1, 1)
    case.refused = "has shape .* but must have"
    return case


def flat(case, random):
    name = random.choice(["obs", "next_obs", "action"])
    case.columns[name] = case.columns[name].reshape(-1)
    case.refused = "has shape .* but must have"
    return case


def odd_flags(case, random):
    done = case.columns["done"].astype(np.float64)
    done[random.integers(len(done))] = random.choice([2, -1, 0.5, np.nan])
    case.columns["done"] = done
    case.refused = "must be 0 or 1|done has a NaN"
    return case


def no_numbers(case, random):
    name = random.choice(["obs", "next_obs", "action", "reward"])
    kind = random.choice(["S5", "c8", "f4,f4"])
    column = np.abs(case.columns[name])
    case.columns[name] = column.astype(kind) if kind != "f4,f4" else np.zeros(column.shape, kind)
    case.refused = "holds (values of type|objects or text)"
    return case


def missing(case, random):
    name = random.choice(["obs", "action", "reward", "done"])
    del case.columns[name]
    case.refused = "has no "
    return case


def unlike(case, random):
    case.columns["action"][random.integers(len(case.rows)), random.integers(A)] = random.choice([-3, 1.01, 1e6])
    case.refused = "leaves the action space of plain"
    return case


def standing(case, random):
    case.columns["next_obs"] = case.columns["obs"]
    case.refused = "is the same as obs"
    return case


REFUSED = [not_finite, too_large, empty, transposed, shorter, wider, deeper, flat, odd_flags, no_numbers, missing]
REFUSED += [unlike, standing]


# What only a file in D4RL's layout can be: rows in order whose flags are odd, or whose next observations are not there.


def in_order_alone(case, random):
    del case.columns["next_obs"]
    return case


def unflagged(case, random):
    """No time limit is flagged; the next observations tell where episodes ended."""
    last = case.columns["timeout"][-1]
    case.returns = case.returns[:-1] if last else case.returns
    case.rows = np.flatnonzero(~case.columns["timeout"])
    case.columns["timeout"] = np.zeros(len(case.columns["done"]), bool)
    case.said = True
    return case


def flagged_twice(case, random):
    case.columns["timeout"] = case.columns["timeout"] | case.columns["done"]
    case.rows = np.flatnonzero(case.columns["done"] | ~case.columns["timeout"])
    return case


def all_ended(case, random):
    """Every row terminates its episode; the next observations need not be true."""
    case.columns["done"] = np.ones(len(case.rows), bool)
    case.returns = case.columns["reward"].astype(np.float64)
    return case


def one_row(case, random):
    case.columns = {name: column[:1] for name, column in case.columns.items()}
    if random.random() < 0.5:
        case.columns["done"] = np.ones(1, bool)
        return Case(case.columns, np.arange(1), case.columns["reward"].astype(np.float64))
    case.refused = "has 1 rows, which make no transition"
    return case


def endless(case, random):
    del case.columns["next_obs"]
    case.columns["timeout"] = np.zeros(len(case.rows), bool)
    case.columns["done"] = np.zeros(len(case.rows), bool)
    case.refused = r"rows follow one another without an end, but an episode of plain has at most 20 steps"
    return case


IN_HDF5 = [in_order_alone, unflagged, flagged_twice, all_ended, one_row, endless]


# What a file is, whatever is in it. These are given the path of a good file, and say how it is refused, or "".


def same_file(path, random):
    return ""


def truncated(path, random):
    os.truncate(path, random.integers(path.stat().st_size))
    return "not a readable|is (an HDF5|a zip|a single)"


def no_file_of_the_kind(path, random):
    path.write_bytes(random.choice([b"", b"obs,action\n1,2\n", b"<html>404</html>", b"{}", bytes(3000)]))
    return "not a readable"


def of_another_format(path, random):
    kind = random.choice([kind for kind in ("hdf5", "npz", "npy") if kind != path.name.partition(".")[0]])
    with open(path, "wb") as file:
        if kind == "hdf5":
            h5py.File(file, "w").close()
        else:
            np.savez(file, x=np.zeros(3)) if kind == "npz" else np.save(file, np.zeros(3))
    return "dataset.path: .* is (an HDF5 file|a zip archive|a single NumPy array)"


def linked(path, random):
    name = NAMES[random.choice(list(NAMES))]
    target = random.choice(["soft", "external", "virtual", "stored outside", "group"])
    with h5py.File(path, "a") as file:
        shape, kind = file[name].shape, file[name].dtype
        del file[name]
        if target == "soft":
            file[name] = h5py.SoftLink("/infos")
        elif target == "external":
            file[name] = h5py.ExternalLink("other.hdf5", "/x")
        elif target == "virtual":
            layout = h5py.VirtualLayout(shape, kind)
            layout[:] = h5py.VirtualSource("other.hdf5", "x", shape)
            file.create_virtual_dataset(name, layout)
        elif target == "group":
            file.create_group(name)
        else:
            file.create_dataset(name, shape, kind, external="/etc/passwd")
    return f"{name} (is a link to elsewhere|is a group|keeps its values in other files)"


def claiming(path, random):
    rows = 10 ** random.integers(10, 13)
    with h5py.File(path, "a") as file:
        for name in NAMES.values():
            shape, kind = file[name].shape, file[name].dtype
            del file[name]
            file.create_dataset(name, (rows, *shape[1:]), kind, chunks=(1000, *shape[1:]))
    return "its columns claim .* GiB, more than can be loaded here"


def trailing(path, random):
    with open(path, "ab") as file:
        file.write(random.bytes(random.integers(1, 5000)))
    return ""


def rewritten(path, name, content):
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for member, old in members.items():
            archive.writestr(
                member if member != f"{name}.npy" else content[0], old if member != f"{name}.npy" else content[1]
            )


def no_array(path, random):
    name = random.choice(["obs", "reward", "done"])
    rewritten(path, name, random.choice([(name, "1 2 3"), (f"{name}.npy", ""), (f"{name}.npy", "no array")]))
    return f"{name} is no array|not a readable NPZ file"


def claiming_array(path, random):
    rows = 10 ** random.integers(9, 15)
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({rows}, 4), }}".ljust(117) + "\n"
    rewritten(path, "obs", ("obs.npy", b"\x93NUMPY\x01\x00\x76\x00" + header.encode()))
    return "not a readable NPZ file"


def pickled(path, random):
    with open(path, "rb") as file:
        columns = dict(np.load(file))
    columns["reward"] = np.array([{}] * len(columns["reward"]), dtype=object)
    with open(path, "wb") as file:
        np.savez(file, **columns)
    return "not a readable NPZ file .no arrays of numbers"


def header_of(path) -> bytes:
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        return path.read_bytes()[: file.tell()]


def naming(path, random):
    class Evil:
        def __reduce__(self):
            return random.choice([os.mkdir, eval, exec, os.system]), ("made",)

    path.write_bytes(header_of(path) + pickle.dumps([Evil()]))
    return "which no data need"


def claiming_pickle(path, random):
    """A place in the memo, or a string, of which there would have to be terabytes."""
    odd = [b"Nr\xff\xff\xff\x7f.", b"\x8e\xff\xff\xff\xff\xff\x0f\x00\x00x.", b"\x8d\xff\xff\xff\xff\xff\x0f\x00\x00x."]
    path.write_bytes(header_of(path) + b"\x80\x04" + odd[random.integers(len(odd))])
    return "not a readable file of RL Unplugged"


def miscounted(path, random):
    start = header_of(path)
    shape = start[start.index(b"(") + 1 : start.index(b",)")]
    path.write_bytes(
        path.read_bytes().replace(
            b"(" + shape, b"(" + shape[:-1] + b"1" * (shape[-1:] != b"1") + b"2" * (shape[-1:] == b"1"), 1
        )
    )
    return "not a list of transitions"


def write_hdf5(path, columns, random):
    how = [{}, {"compression": "gzip"}, {"compression": "lzf", "shuffle": True}, {"fletcher32": True}]
    with h5py.File(path, "w", userblock_size=random.choice([0, 512, 1024])) as file:
        for name, column in columns.items():
            settings = how[random.integers(len(how))] if column.ndim and column.size else {}
            file.create_dataset(NAMES.get(name, name), data=column, **settings)
    return True


def write_npz(path, columns, random):
    columns = {name: column for name, column in columns.items() if name != "timeout"}
    with open(path, "wb") as file:
        random.choice([np.savez, np.savez_compressed])(file, **columns)


def write_npy(path, columns, random):
    def parts(row):
        return dict(zip(TASK.layout, np.split(row, [3]), strict=True))

    records = [{} for _ in columns["obs"]]
    for name, key in {"obs": "s", "action": "a", "next_obs": "s_", "reward": "r"}.items():
        for record, value in zip(records, columns.get(name, ()), strict=name in columns):
            record[key] = parts(value) if key.startswith("s") else value
    content = np.empty(len(records), object)
    content[:] = records
    with open(path, "wb") as file:
        np.save(file, content, allow_pickle=True)


SPOILED = [not_finite, empty, wider, unlike, standing]
# Reader, writer, what is done to columns, what is done to files. RL Unplugged's files have no flags and no axes.
KINDS = {
    "hdf5": (HDF5, write_hdf5, READ + REFUSED + IN_HDF5, [linked, claiming, trailing]),
    "npz": (NPZ, write_npz, READ + REFUSED, [no_array, claiming_array, pickled]),
    "npy": (
        RLUnplugged,
        write_npy,
        [
            shuffled,
            side_by_side,
            backwards,
            each_twice,
            thinned,
            whole_twice,
            narrowed,
            far_away,
            overshooting,
            *SPOILED,
        ],
        [naming, claiming_pickle, miscounted],
    ),
}
ANY = [truncated, no_file_of_the_kind, of_another_format]


def loaded(dataset) -> tuple[Transitions | None, str]:
    """The transitions, or how they are refused."""
    try:
        return dataset.load(TASK), ""
    except UserError as error:
        return None, str(error)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_files(tmp_path, capfd, monkeypatch, kind):
    reader, write, changes, damages = KINDS[kind]
    monkeypatch.chdir(tmp_path)
    plans = [(change, same_file) for change in changes] + [(None, damage) for damage in damages + ANY]
    before, refused = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    for number in range(FILES):
        change, damage = plans[number % len(plans)]
        random = np.random.default_rng(number)
        folder = tmp_path / f"{number} {(change or damage).__name__}"
        folder.mkdir()
        # The format is told by what is in a file; its name may say anything.
        path = folder / f"{kind}.{random.choice([kind, 'npz', 'hdf5', 'mat', 'csv', ''])}"
        case = recorded(random, terminate=kind != "npy" and change is not endless)
        case = change(case, random) if change else case
        write(path, case.columns, random)
        case.refused = damage(path, random) or case.refused
        content = path.read_bytes()
        capfd.readouterr()
        data, error = loaded(reader(path=str(path), directory=folder))
        assert bool(error) == bool(case.refused), f"{folder.name}: {error}"
        if error:
            refused += 1
            assert re.search(case.refused, error), f"{folder.name}: {error}"
            assert str(path) in error
            assert "\n" not in error
        else:
            assert_read(data, case, kind, capfd.readouterr().err, folder.name)
        assert [left.name for left in folder.iterdir()] == [path.name]
        assert path.read_bytes() == content
    assert refused > FILES // 4
    assert len(list(tmp_path.iterdir())) == FILES
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300_000  # KiB


def assert_read(data, case, kind, said, name):
    """The rows are those that the case has, and what is said of the episodes is true."""
    columns = {name: np.asarray(column).astype(np.float32) for name, column in case.columns.items() if name in NAMES}
    rows = case.rows
    if kind == "hdf5":  # a row at a time limit is left out
        ended = columns["done"].reshape(-1)[rows] != 0
        rows = rows[ended | (columns["timeout"].reshape(-1)[rows] == 0)]
    if kind == "npy":
        columns["done"] = np.zeros(len(columns["done"]))
    going = columns["done"].reshape(-1)[rows] == 0
    close = {"rtol": 1e-4, "atol": 2e-4, "err_msg": name}
    np.testing.assert_allclose(data.observation, columns["obs"][rows], **close)
    np.testing.assert_allclose(data.action, columns["action"][rows], **close)
    np.testing.assert_allclose(data.reward, columns["reward"].reshape(-1)[rows], **close)
    np.testing.assert_array_equal(data.terminated, ~going, err_msg=name)
    if "next_obs" in columns:
        np.testing.assert_allclose(data.next_observation[going], columns["next_obs"][rows][going], **close)
    assert data.table.isfinite().all(), name
    assert (said.count("\n") == 1) == (case.said and kind != "npy"), f"{name}: {said}"
    if case.returns is None:
        assert data.behaviour.episodes == 0 or not case.said, name
    else:
        assert data.behaviour.episodes == len(case.returns), name
        assert data.behaviour.return_mean == pytest.approx(case.returns.mean(), rel=1e-3, abs=1e-3), name
