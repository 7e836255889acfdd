"""The columns of a file in D4RL's HDF5 layout, trusted for nothing."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from genpolicy.dataset.user_file import check_finite, check_shape, check_size, clip, limited_memory, reason
from genpolicy.env.task import Task
from genpolicy.errors import UserError

FLAGS = ("terminals", "timeouts")
OPTIONAL = ("timeouts", "next_observations")


def read(path: Path, task: Task) -> dict[str, np.ndarray]:
    """The checked columns of a file, in float32 and bool; `timeouts` and `next_observations` only if it has them.

    Actions are clipped to the task's bounds where they overshoot by no more than `ACTION_TOLERANCE`. Raises
    `UserError` if the file cannot be read, or is not about this task, or has values no simulator gives.
    """
    shapes = {"observations": (task.observation_size,), "actions": (task.action_size,), "rewards": (), "terminals": ()}
    shapes |= {"timeouts": (), "next_observations": shapes["observations"]}
    with _opened(path) as file:
        stored = {
            name: _stored(file, path, name, shape)
            for name, shape in shapes.items()
            if name not in OPTIONAL or file.id.links.exists(name.encode())
        }
        rows = len(stored["observations"])
        for name, column in stored.items():
            if len(column) != rows:
                raise UserError(f"{path}: {name} has {len(column)} rows but observations has {rows}")
        if rows == 0:
            raise UserError(f"{path}: has 0 rows")
        size = {name: column.dtype.itemsize if name in FLAGS else 4 for name, column in stored.items()}
        check_size(sum(column.size * size[name] for name, column in stored.items()), path)
        columns = {
            name: _flags(column, path, name) if name in FLAGS else _numbers(column, shapes[name])
            for name, column in stored.items()
        }
    check_finite(columns, path)
    clip(columns["actions"], path, task)
    return columns


def read_infos(path: Path, rows: int) -> dict[str, np.ndarray]:
    """The tables of numbers [N,...] in the group infos of a file. Raises `UserError` if it cannot be read."""
    with _opened(path) as file:
        group = file.get("infos", getlink=True)
        if not isinstance(group, h5py.HardLink) or not isinstance(file["infos"], h5py.Group):
            return {}
        found = {}
        for name in file["infos"]:
            link = file["infos"].get(name, getlink=True)
            column = file["infos"][name] if isinstance(link, h5py.HardLink) else None
            numbers = isinstance(column, h5py.Dataset) and not column.is_virtual and not column.external
            if numbers and column.dtype.kind in "fiu" and column.ndim == 2 and len(column) == rows:
                found[name] = column
        check_size(sum(column.size * column.dtype.itemsize for column in found.values()), path)
        return {name: column[:] for name, column in found.items()}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        with limited_memory(), h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, MemoryError) as error:
        raise UserError(f"{path}: not a readable HDF5 file ({reason(error)})") from error


def _stored(file: h5py.File, path: Path, name: str, shape: tuple[int, ...]) -> h5py.Dataset:
    """The column, if it is a table of rows of `shape` that lies in this very file: it cannot make us read another one.

    [N,1] may stand for [N], as in d4rl.
    """
    if not file.id.links.exists(name.encode()):
        raise UserError(f"{path}: has no column {name}, only: {', '.join(sorted(file)) or 'nothing'}")
    if file.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise UserError(f"{path}: {name} is a link to elsewhere, which is not followed")
    column = file[name]
    if not isinstance(column, h5py.Dataset):
        raise UserError(f"{path}: {name} is a group, not a column")
    if column.is_virtual or column.external:
        raise UserError(f"{path}: {name} keeps its values in other files, which are not read")
    if column.dtype.kind not in ("bfiu" if name in FLAGS else "fiu"):
        kind = "objects or text" if column.dtype.kind in "OSU" else f"values of type {column.dtype}"
        raise UserError(f"{path}: {name} holds {kind}, not {'flags' if name in FLAGS else 'numbers'}")
    if column.shape is None:
        raise UserError(f"{path}: {name} has no values")
    check_shape(column.shape, name, shape, path)
    return column


def _numbers(column: h5py.Dataset, shape: tuple[int, ...]) -> np.ndarray:
    """A column of numbers [N,...] as float32."""
    return column.astype(np.float32)[:].reshape(-1, *shape)


def _flags(column: h5py.Dataset, path: Path, name: str) -> np.ndarray:
    """A column of flags [N] as bool, stored as booleans or as numbers 0 and 1."""
    values = column[:].reshape(-1)
    if values.dtype != bool and not np.isin(values, (0, 1)).all():
        raise UserError(f"{path}: {name} must be 0 or 1 everywhere")
    return values.astype(bool)
