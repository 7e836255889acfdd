"""Data sets in D4RL's HDF5 layout, read as d4rl reads them and trusted for nothing.

A file has the columns observations [N,O], actions [N,A], rewards [N], terminals [N] and, in newer ones,
timeouts [N]; row i + 1 follows row i unless an episode ended at i. Whatever else is in it (infos, metadata,
next_observations) is not read: like d4rl's `qlearning_dataset`, a next observation is always the next row's
observation.
"""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from genpolicy.dataset.dataset import Dataset
from genpolicy.dataset.own_file import LARGEST_FILE, OwnFile, check_finite, clip, existing
from genpolicy.dataset.transitions import Behaviour
from genpolicy.env.task import Task
from genpolicy.errors import UserError


@dataclass(kw_only=True, eq=False)
class FileDataset(Dataset):
    """A data set that is one file in D4RL's layout."""

    @abstractmethod
    def file(self, task: Task) -> Path:
        """The file of `task`, fetched or made if need be."""

    def arrays(self, task: Task) -> tuple[dict[str, np.ndarray], Behaviour]:
        """The file's rows as transitions, and the raw returns of its finished episodes.

        A step that the task's simulator cannot make is the end of an episode that the file does not flag.
        """
        columns = _read_episodes(self.file(task), task)
        return qlearning(columns, task.max_episode_steps), behaviour(columns, task.max_episode_steps)

    def recorded(self, task: Task) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None]:
        """As of any data set, with the states of the file's infos, if it has them."""
        path = self.file(task)
        columns, limit = _read_episodes(path, task), task.max_episode_steps
        arrays, states = qlearning(columns, limit), _read_infos(path, len(columns["rewards"]))
        if not {"qpos", "qvel"} <= set(states):
            return arrays, task.states(arrays["observation"])
        kept = _with_next(_time_limits(columns, limit))
        return arrays, {name: column[kept] for name, column in states.items()}


@dataclass(kw_only=True, eq=False)
class HDF5(OwnFile, FileDataset):
    """Any file in D4RL's layout, given by its path."""

    def file(self, task: Task) -> Path:
        """The file itself."""
        return existing(self.path)


def read(path: Path, task: Task) -> dict[str, np.ndarray]:
    """The checked columns of a file in D4RL's layout, in float32 and bool; `timeouts` only if it has them.

    Actions are clipped to the task's bounds where they overshoot by no more than `ACTION_TOLERANCE`. Raises
    `UserError` if the file cannot be read, or is not about this task, or has values no simulator gives.
    """
    try:
        with h5py.File(path, "r") as file:
            observations = _column(file, path, "observations", (task.observation_size,))
            columns = {
                "observations": observations,
                "actions": _column(file, path, "actions", (task.action_size,)),
                "rewards": _column(file, path, "rewards", ()),
                "terminals": _flags(file, path, "terminals"),
            }
            if file.id.links.exists(b"timeouts"):
                columns["timeouts"] = _flags(file, path, "timeouts")
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a readable HDF5 file ({_first_line(error)}); {_remedy()}") from error
    rows = len(observations)
    for name, column in columns.items():
        if len(column) != rows:
            raise UserError(f"{path}: {name} has {len(column)} rows but observations has {rows}; {_remedy()}")
    check_finite(columns, path)
    if rows < 2:
        raise UserError(f"{path}: has {rows} rows, which make no transition; at least 2 are needed")
    clip(columns["actions"], path, task)
    return columns


def qlearning(columns: dict[str, np.ndarray], limit: int) -> dict[str, np.ndarray]:
    """The rows as transitions, equal to d4rl's `qlearning_dataset` (its `terminals` are our `terminated`).

    The last row of the file and the row at which a time limit ended an episode have no next observation and
    are left out. `limit` is the length at which episodes end in files without timeouts. Adds `episode` [N],
    numbered by file.
    """
    final = _time_limits(columns, limit)
    kept = _with_next(final)
    if len(kept) == 0:
        raise UserError(f"the file's {len(final)} rows make no transition: every episode has a single step")
    ends = columns["terminals"] | final
    return {
        "observation": columns["observations"][kept],
        "action": columns["actions"][kept],
        "reward": columns["rewards"][kept],
        "next_observation": columns["observations"][kept + 1],
        "terminated": columns["terminals"][kept],
        "episode": (np.cumsum(ends) - ends)[kept],
    }


def behaviour(columns: dict[str, np.ndarray], limit: int) -> Behaviour:
    """The returns of the episodes played to their end: by a terminal, or by `limit` steps; every row counts.

    A timeout after fewer steps is where two recordings were joined, or a change of goal in D4RL's maze2d.
    """
    ends = np.flatnonzero(columns["terminals"] | _time_limits(columns, limit))
    total = np.cumsum(columns["rewards"], dtype=np.float64)[ends]
    steps = np.diff(ends, prepend=-1)
    return Behaviour.of(np.diff(total, prepend=0.0)[columns["terminals"][ends] | (steps >= limit)])


def _read_episodes(path: Path, task: Task) -> dict[str, np.ndarray]:
    """The checked columns, with a timeout at each step that the task's simulator cannot make."""
    columns = read(path, task)
    impossible = task.impossible(columns["observations"][:-1], columns["observations"][1:])
    if impossible.any():
        columns["timeouts"] = _time_limits(columns, task.max_episode_steps) | np.append(impossible, False)
    return columns


def _read_infos(path: Path, rows: int) -> dict[str, np.ndarray]:
    """The tables of numbers [N,...] in the group infos of a readable file."""
    with h5py.File(path, "r") as file:
        group = file.get("infos", getlink=True)
        if not isinstance(group, h5py.HardLink) or not isinstance(file["infos"], h5py.Group):
            return {}
        found = {}
        for name in file["infos"]:
            link = file["infos"].get(name, getlink=True)
            column = file["infos"][name] if isinstance(link, h5py.HardLink) else None
            numbers = isinstance(column, h5py.Dataset) and not column.is_virtual and not column.external
            if numbers and column.dtype.kind == "f" and column.ndim == 2 and len(column) == rows:
                if column.size * 8 > LARGEST_FILE:
                    raise UserError(f"{path}: infos/{name} claims more than can be loaded")
                found[name] = column[:]
        return found


def _with_next(final: np.ndarray) -> np.ndarray:
    """The rows that make a transition: all but the file's last and those at a time limit, `final` [N]."""
    return np.flatnonzero(~final[:-1])


def _time_limits(columns: dict[str, np.ndarray], limit: int) -> np.ndarray:
    """Where a time limit ended an episode [N]: the file's timeouts, else every `limit` steps.

    d4rl counts the steps of an episode from 1 if the one before it ended by a terminal, and from 0 otherwise.
    """
    if "timeouts" in columns:
        return columns["timeouts"]
    final = np.zeros(len(columns["terminals"]), dtype=bool)
    start, first = 0, 0
    for end in [*np.flatnonzero(columns["terminals"]), len(final) - 1]:
        steps = np.arange(first, first + end + 1 - start)
        final[start : end + 1] = steps % limit == limit - 1
        start, first = end + 1, 0 if final[end] else 1
    return final


def _column(file: h5py.File, path: Path, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A column of numbers with rows of `shape`, as float32; [N,1] is read as [N] where d4rl does so."""
    column = _stored(file, path, name)
    if column.dtype.kind not in "fiu":
        raise UserError(f"{path}: {name} holds {_kind(column)}, not numbers; {_remedy()}")
    _check_shape(column, path, name, shape)
    return column.astype(np.float32)[:].reshape(-1, *shape)


def _flags(file: h5py.File, path: Path, name: str) -> np.ndarray:
    """A column of flags [N] as bool, stored as booleans or as numbers 0 and 1."""
    column = _stored(file, path, name)
    if column.dtype.kind not in "bfiu":
        raise UserError(f"{path}: {name} holds {_kind(column)}, not flags; {_remedy()}")
    _check_shape(column, path, name, ())
    values = column[:].reshape(-1)
    if values.dtype != bool and not np.isin(values, (0, 1)).all():
        raise UserError(f"{path}: {name} must be 0 or 1 everywhere; {_remedy()}")
    return values.astype(bool)


def _stored(file: h5py.File, path: Path, name: str) -> h5py.Dataset:
    """The column, if its values lie in this very file: a file cannot make us read another one."""
    if not file.id.links.exists(name.encode()):
        raise UserError(f"{path}: has no column {name}, only: {', '.join(sorted(file)) or 'nothing'}; {_remedy()}")
    if file.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise UserError(f"{path}: {name} is a link to elsewhere, which is not followed; {_remedy()}")
    column = file[name]
    if not isinstance(column, h5py.Dataset):
        raise UserError(f"{path}: {name} is a group, not a column; {_remedy()}")
    if column.is_virtual or column.external:
        raise UserError(f"{path}: {name} keeps its values in other files, which are not read; {_remedy()}")
    return column


def _check_shape(column: h5py.Dataset, path: Path, name: str, shape: tuple[int, ...]) -> None:
    found = column.shape
    if found is None or len(found) == 0 or found[1:] not in ([shape, (1,)] if shape == () else [shape]):
        wanted = "[N]" if shape == () else f"[N,{shape[0]}]"
        shown = "no values" if found is None else f"shape {list(found)}"
        hint = "; is it a file of another task?" if shape else ""
        raise UserError(f"{path}: {name} has {shown}, but must have {wanted} here{hint}")
    if column.size * 4 > LARGEST_FILE:
        raise UserError(f"{path}: {name} claims {column.size * 4 / 2**30:.0f} GiB, more than can be loaded")


def _kind(column: h5py.Dataset) -> str:
    return "objects or text" if column.dtype.kind in "OSU" else f"values of type {column.dtype}"


def _first_line(error: Exception) -> str:
    return " ".join(str(error.args[0] if error.args else error).split())[:200]


def _remedy() -> str:
    return "delete it and get it again, or give a file in D4RL's HDF5 layout"
