"""Files that a user names, and what the columns of any file must be."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genpolicy.dataset.dataset import Dataset
from genpolicy.env.task import Task
from genpolicy.errors import UserError
from genpolicy.settings import setting

ACTION_TOLERANCE = 1e-4  # float32 rounding lets recorded actions overshoot their bounds a little
# Bytes in memory, half of this machine's: a small compressed file can claim any size.
LARGEST_FILE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


@dataclass(kw_only=True, eq=False)
class OwnFile(Dataset):
    """A data set in a file given by its path."""

    path: str = setting(doc="the file; a relative path starts at the working directory")

    @classmethod
    def partners(cls, config) -> None:
        """The file must be there before a run is made of it."""
        existing(config.dataset.path)

    def source(self, task: Task) -> str:
        """The file's absolute path."""
        return str(existing(self.path))


def existing(name: str) -> Path:
    """The absolute path of a file that is there. Raises `UserError` if it is not."""
    path = Path(name).expanduser().absolute()
    if not path.is_file():
        raise UserError(f"dataset.path: there is no file {path}")
    return path


def check_finite(columns: dict[str, np.ndarray], path: Path | str) -> None:
    """Raises `UserError` for the first NaN or infinite value in columns [N,...] of numbers."""
    for name, column in columns.items():
        if column.dtype != bool and not np.isfinite(column).all():
            row = int(np.argmin(np.isfinite(column.reshape(len(column), -1)).all(axis=1)))
            raise UserError(f"{path}: {name} has a NaN or infinite value in row {row}; all values must be finite")


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
