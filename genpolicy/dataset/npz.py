"""Data sets in the NumPy files of GenerativeRL's customised data: obs, action, next_obs, reward, done."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from genpolicy.config.schema import component
from genpolicy.dataset.transition_table import COLUMNS, checked, transitions
from genpolicy.dataset.transitions import Behaviour
from genpolicy.dataset.user_file import OwnFile, check_size, limited_memory, reason
from genpolicy.env.task import Task
from genpolicy.errors import UserError


@component
class NPZ(OwnFile):
    """A file of transitions, `numpy.savez(path, obs=, action=, next_obs=, reward=, done=)`.

    obs and next_obs [N,O], action [N,A], reward and done [N] or [N,1]. `done` is a termination: a row at which
    only a time limit ended the episode has done = 0. Where next_obs is not the next row's obs, an episode ended, too.
    """

    format: ClassVar[str] = "npz"

    def arrays(self, task: Task) -> tuple[dict[str, np.ndarray], Behaviour]:
        """The rows, as they are, and the returns of the episodes that terminated or are as long as the task's."""
        path = self.existing(self.path)
        return transitions(checked(read(path), path, task), task)


def read(path: Path) -> dict[str, np.ndarray]:
    """The columns of a file. Raises `UserError` if it cannot be read, or lacks one."""
    try:
        with limited_memory(), np.load(path, allow_pickle=False) as file:
            if missing := [name for name in COLUMNS if name not in file]:
                raise UserError(f"{path}: has no {missing[0]}, only: {', '.join(file) or 'nothing'}; see dataset=npz")
            members = {file.zip.getinfo(name if name in file.zip.namelist() else f"{name}.npy") for name in COLUMNS}
            check_size(sum(member.file_size for member in members), path)
            columns = {name: file[name] for name in COLUMNS}
    except UserError:
        raise
    except Exception as error:  # of zipfile, zlib, NumPy and their parsers, whatever a mutilated file makes them raise
        raise UserError(f"{path}: not a readable NPZ file ({reason(error)})") from error
    for name, column in columns.items():
        if not isinstance(column, np.ndarray):
            raise UserError(f"{path}: {name} is no array; write the file with numpy.savez")
    return columns
