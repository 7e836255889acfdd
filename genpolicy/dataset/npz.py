"""Data sets in the NumPy files of GenerativeRL's customised data: obs, action, next_obs, reward, done."""

from typing import ClassVar

import numpy as np

from genpolicy.config.schema import component
from genpolicy.dataset.transition_table import COLUMNS, checked, transitions
from genpolicy.dataset.transitions import Behaviour
from genpolicy.dataset.user_file import OwnFile, read_npz
from genpolicy.env.task import Task


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
        columns = read_npz(path, COLUMNS, hint="; see genpolicy --help dataset=npz")
        return transitions(checked(columns, path, task), path, task)
