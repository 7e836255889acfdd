"""D4RL's own files, in the cache that d4rl keeps, downloaded when they are missing."""

from pathlib import Path
from typing import ClassVar

import h5py

from genpolicy.config.arguments import has_option
from genpolicy.config.schema import component, locate
from genpolicy.config.validation import Node
from genpolicy.dataset.download import Downloaded
from genpolicy.dataset.hdf5 import FileDataset
from genpolicy.env.ogbench import OGBench
from genpolicy.env.task import Task
from genpolicy.errors import UserError


@component
class D4RL(Downloaded, FileDataset):
    """The data set that D4RL publishes for the task."""

    as_recorded: ClassVar[bool] = True
    as_counted: ClassVar[bool] = True

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """Only D4RL's tasks have a file of D4RL's."""
        known = config.env.url is not None and has_option("env", config.env.name)
        if not known or locate(config.env._target_) is OGBench:
            raise UserError(f"dataset=d4rl does not go with env={config.env.name}: D4RL has no data for it")

    def file(self, task: Task) -> Path:
        """The file in the cache, downloaded first if it is not there."""
        return self.fetched(task, check, "HDF5")


def check(path: Path) -> None:
    """Raises `OSError` for what is no HDF5 file."""
    with h5py.File(path, "r") as file:
        list(file)
