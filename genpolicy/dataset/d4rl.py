"""D4RL's own files, in the cache that d4rl keeps, downloaded when they are missing."""

import functools
from pathlib import Path

import h5py

from genpolicy.config import plugins
from genpolicy.config.schema import component, locate
from genpolicy.config.validation import Node
from genpolicy.dataset.dataset import cached_file
from genpolicy.dataset.download import download
from genpolicy.dataset.hdf5 import FileDataset
from genpolicy.env.ogbench import OGBench
from genpolicy.env.task import Task
from genpolicy.errors import UserError


@component
class D4RL(FileDataset):
    """The data set that D4RL publishes for the task."""

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """Only D4RL's tasks have a file of D4RL's."""
        if config.env.url is None or locate(config.env._target_) is OGBench:
            raise UserError(f"dataset=d4rl does not go with env={config.env.name}: D4RL has no data for it")

    def source(self, task: Task) -> str:
        """D4RL's address of the file."""
        return task.url

    def location(self, task: Task) -> Path:
        """The file in the cache, under the name that d4rl gives it."""
        return task.data_file(self.directory)

    def probe(self, task: Task) -> None:
        """The file must be in the cache, or its address one that may be asked."""
        place = self.location(task)
        if not place.exists():
            plugins.require_address(task.url)
        elif place.is_dir():
            raise UserError(f"env.url: {task.url} is the address of no file")

    def file(self, task: Task) -> Path:
        """The file in the cache, downloaded first if it is not there."""
        self.probe(task)
        return cached_file(self.location(task), functools.partial(download, task.url, check=check))


def check(path: Path) -> None:
    """Raises `OSError` for what is no HDF5 file."""
    with h5py.File(path, "r") as file:
        list(file)
