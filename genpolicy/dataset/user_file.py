"""Files that a user names, and what the columns of any file must be."""

import contextlib
import os
import resource
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from genpolicy.config.run_settings import absolute
from genpolicy.config.schema import component, setting
from genpolicy.dataset.dataset import Dataset
from genpolicy.dataset.sequences import Sequences
from genpolicy.env.task import Task
from genpolicy.errors import UserError, message

ACTION_TOLERANCE = 1e-4  # float32 rounding lets recorded actions overshoot their bounds a little
PAGE = os.sysconf("SC_PAGE_SIZE")
MEMORY = PAGE * os.sysconf("SC_PHYS_PAGES")  # bytes of this machine
# Bytes of all columns of a file: a small compressed file can claim any size, and what is made of a table takes up to
# five times as much.
LARGEST_FILE = MEMORY // 8
FORMATS = {
    "hdf5": "an HDF5 file, as dataset=hdf5 takes it",
    "npz": "a zip archive, as numpy.savez writes it and dataset=npz takes it",
    "npy": "a single NumPy array; dataset=npz takes several by name, as numpy.savez writes them",
}


@component
class OwnFile(Dataset):
    """A data set in a file given by its path. format: what the file is, one of `FORMATS`."""

    format: ClassVar[str]

    path: str = setting(doc="the file; a relative path starts at the working directory")

    def location(self, task: Task) -> Path:
        """The file's absolute path."""
        return Path(absolute(self.path))

    def source(self, task: Task) -> str:
        """The file's absolute path."""
        return str(self.existing(self.path))

    def probe(self, task: Task, length: int = 1) -> None:
        """The file must hold transitions of the task, in episodes as long as a batch needs them."""
        data = self.load(task)
        if length > 1:
            Sequences.of_transitions(data, length, chunk=1, discount=1.0, masked=False)

    @classmethod
    def existing(cls, name: str) -> Path:
        """The absolute path of a file that is there, as it need not be any more when a policy is trained.

        Raises `UserError` if it is not, or is of another format.
        """
        path = Path(absolute(name))
        if not path.is_file():
            raise UserError(f"dataset.path: there is no file {path}")
        if (found := format_of(path)) not in (None, cls.format):
            raise UserError(f"dataset.path: {path} is {FORMATS[found]}")
        return path


def format_of(path: Path) -> str | None:
    """The one of `FORMATS` that a file begins like, whatever its name; None if like none, or if it cannot be read."""
    try:
        with open(path, "rb") as file:
            start = file.read(4096)
    except OSError:
        return None
    if any(start.startswith(b"\x89HDF\r\n\x1a\n", place) for place in (0, 512, 1024, 2048)):  # after a user block
        return "hdf5"
    return {b"PK\x03\x04": "npz", b"\x93NUM": "npy"}.get(start[:4])


def check_size(size: int, path: Path | str) -> None:
    """Raises `UserError` if columns of `size` bytes in all are more than can be loaded."""
    if size > LARGEST_FILE:
        raise UserError(
            f"{path}: its columns claim {size / 2**30:.1f} GiB, more than can be loaded here "
            f"({LARGEST_FILE / 2**30:.1f} GiB, an eighth of the memory)"
        )


@contextlib.contextmanager
def limited_memory(size: int | None = None) -> Iterator[None]:
    """Lets this process take at most `size` bytes more, half of the machine's memory, or a parser raises `MemoryError`.

    Without it the system would end the process. It is for parsers that take a file at its word, and for Linux alone.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
    except OSError:
        yield
        return
    limits = [limit for limit in (soft, hard, taken + (size or MEMORY // 2)) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def reason(error: Exception) -> str:
    """What a parser says of a bad file, in a line."""
    if isinstance(error, MemoryError):
        return "it claims more memory than there is"
    said = message(error)[:200]
    return "no arrays of numbers, and nothing else is read" if "allow_pickle" in said else said


def read_npz(
    path: Path, required: Iterable[str], optional: Iterable[str] = (), hint: str = ""
) -> dict[str, np.ndarray]:
    """Arrays of an NPZ file by name, the optional ones as far as they are there.

    hint: ends what is said of a missing one. Raises `UserError` if the file cannot be read, lacks one, or holds
    something else by that name.
    """
    try:
        with limited_memory(), np.load(path, allow_pickle=False) as file:
            if missing := [name for name in required if name not in file]:
                raise UserError(f"{path}: has no {missing[0]}, only: {', '.join(file) or 'nothing'}{hint}")
            names = dict.fromkeys((*required, *(name for name in optional if name in file)))
            members = {file.zip.getinfo(name if name in file.zip.namelist() else f"{name}.npy") for name in names}
            check_size(sum(member.file_size for member in members), path)
            columns = {name: file[name] for name in names}
    except UserError:
        raise
    except Exception as error:  # of zipfile, zlib, NumPy and their parsers, whatever a mutilated file makes them raise
        raise UserError(f"{path}: not a readable NPZ file ({reason(error)})") from error
    for name, column in columns.items():
        if not isinstance(column, np.ndarray):
            raise UserError(f"{path}: {name} is no array; write the file with numpy.savez")
    return columns


def check_shape(found: tuple[int, ...], name: str, shape: tuple[int, ...], path: Path | str) -> None:
    """Raises `UserError` if a column of shape `found` is no table of rows of `shape`; [N,1] may stand for [N]."""
    if len(found) > 0 and found[1:] in ([(), (1,)] if shape == () else [shape]):
        return
    wanted = f"[N,{shape[0]}]" if shape else "[N]"
    shown = f"[{shape[0] if shape else 1},N]"
    message = f"{path}: {name} has shape {list(found)}, but must have {wanted} here"
    if len(found) == 2 and found[:1] == (shape or (1,)):
        raise UserError(f"{message}: it is transposed, {shown} for {wanted}, as MATLAB stores tables")
    raise UserError(message + ("; is it a file of another task?" if shape else ""))


def check_finite(columns: dict[str, np.ndarray], path: Path | str) -> None:
    """Raises `UserError` for the first NaN or infinite value in columns [N,...] of numbers."""
    for name, column in columns.items():
        if column.dtype != bool and not np.isfinite(column).all():
            row = int(np.argmin(np.isfinite(column.reshape(len(column), -1)).all(axis=1)))
            raise UserError(
                f"{path}: {name} has a NaN or infinite value in row {row}; all values must be finite, as float32, too"
            )


def clip(actions: np.ndarray, path: Path | str, task: Task) -> None:
    """Clips actions [N,A] to the task's bounds, in place, where they overshoot by no more than `ACTION_TOLERANCE`.

    Raises `UserError` where they overshoot by more.
    """
    low, high = task.action_low, task.action_high
    outside = np.maximum(low - actions, actions - high).max(axis=1)
    row = int(np.argmax(outside))
    if outside[row] > ACTION_TOLERANCE:
        raise UserError(
            f"{path}: the action in row {row} leaves the action space of {task.name} by {outside[row]:.3g}; "
            f"legal: {low.min():g} to {high.max():g}; clip them if they were clipped when played"
        )
    np.clip(actions, low, high, out=actions)
