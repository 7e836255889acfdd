"""Data sets of Minari, from Minari's own cache (MINARI_DATASETS_PATH), downloaded when they are missing."""

import contextlib
import io
import logging
import os
import re
import socket
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.dataset import Dataset
from genpolicy.dataset.transition_table import COLUMNS, checked, transitions
from genpolicy.dataset.transitions import Behaviour
from genpolicy.dataset.user_file import check_size, limited_memory, reason
from genpolicy.env.adroit import Adroit
from genpolicy.env.gym import Gym
from genpolicy.env.task import Task
from genpolicy.errors import UserError
from genpolicy.system.console import remark

CONNECTION_SECONDS = 5.0


@contextlib.contextmanager
def quiet_logs() -> Iterator[None]:
    """Nothing is logged meanwhile: what a library says of its retries, where the error says it as well."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def require_connection(name: str) -> None:
    """Raises `UserError` if Minari's server on the Hugging Face hub cannot be reached, which it would try for long.

    With a proxy, or another server of one's own (MINARI_REMOTE), nothing is known before.
    """
    if os.environ.get("MINARI_REMOTE") or urllib.request.getproxies():
        return
    host = urllib.parse.urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname
    try:
        socket.create_connection((host, 443), CONNECTION_SECONDS).close()
    except OSError as error:
        raise UserError(f"dataset.id={name}: not in Minari's cache, and {host} cannot be reached ({error})") from error


@component
class Minari(Dataset):
    """The data set that Minari knows by `id`: episodes of vectors; a truncation is not a termination."""

    id: str = setting(doc="the data set's name in Minari, such as mujoco/hopper/medium-v0 or D4RL/door/human-v2")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """Refuses a D4RL task for data that are not D4RL's: its reference scores are of other data and simulators."""
        if {"", "..", "."} & {*config.dataset.id.split("/")}:  # which would lie outside of the cache
            raise UserError(f"dataset.id={config.dataset.id}: no name of a data set, such as mujoco/hopper/medium-v0")
        if config.env.url is not None and not config.dataset.id.startswith("D4RL/"):
            raise UserError(
                f"dataset.id={config.dataset.id}: new data, not D4RL's, do not go with env={config.env.name} and its "
                "scores; give env=gym env.id=<the environment they were recorded in>"
            )

    def probe(self, task: Task, length: int = 1) -> None:
        """The data set must be in the cache, or Minari's server there to be asked."""
        import minari

        with quiet_logs():
            known = self.id in minari.list_local_datasets()
        if not known:
            require_connection(self.id)

    def arrays(self, task: Task) -> tuple[dict[str, np.ndarray], Behaviour]:
        """All steps of all episodes, and the returns of those that terminated or are as long as the task's."""
        parts, lengths = {name: [] for name in COLUMNS}, []
        for episode in self._episodes(task):
            if not isinstance(episode.observations, np.ndarray) or not isinstance(episode.actions, np.ndarray):
                kinds = f"{type(episode.observations).__name__} and {type(episode.actions).__name__}"
                raise UserError(f"dataset.id={self.id}: observations and actions must be vectors, not {kinds}")
            parts["obs"].append(episode.observations[:-1])
            parts["next_obs"].append(episode.observations[1:])
            parts["action"].append(episode.actions)
            parts["reward"].append(episode.rewards)
            parts["done"].append(episode.terminations)
            lengths.append(len(episode.rewards))
        if not parts["obs"]:
            raise UserError(f"dataset.id={self.id}: has no episodes")
        columns = {name: np.concatenate(values) for name, values in parts.items()}
        ends = np.isin(np.arange(sum(lengths)), np.cumsum(lengths) - 1)
        name = f"Minari's {self.id}"
        return transitions(checked(columns, name, task), name, task, ends)

    def location(self, task: Task) -> Path:
        """The data set's file in Minari's cache, or its folder there if it is in Arrow's format."""
        cache = os.environ.get("MINARI_DATASETS_PATH", "~/.minari/datasets")
        folder = Path(cache).expanduser().absolute() / self.id / "data"
        file = folder / "main_data.hdf5"
        return file if file.exists() else folder

    def _episodes(self, task: Task) -> list:
        import minari  # slow to import, and needed only here

        said, episodes, size = io.StringIO(), [], 0
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(said), limited_memory(), quiet_logs():
                warnings.simplefilter("ignore")
                found = minari.load_dataset(self.id, download=True)
                recorded_in = found.env_spec and found.env_spec.id
                self._check_environment(task, recorded_in and recorded_in.rpartition(":")[2])
                for episode in found.iterate_episodes():
                    columns = episode.observations, episode.actions, episode.rewards
                    size += sum(column.nbytes for column in columns if isinstance(column, np.ndarray))
                    check_size(size, f"dataset.id={self.id}")
                    episodes.append(episode)
        except UserError:
            raise
        except Exception as error:  # whatever Minari, its storage and the network may raise
            raise UserError(f"dataset.id={self.id}: Minari cannot load it ({reason(error)})") from error
        return episodes

    def _check_environment(self, task: Task, recorded_in: str | None) -> None:
        """Raises `UserError` for data of another environment than the task's, as far as both are known."""
        if isinstance(task, Adroit):
            remark(
                f"dataset.id={self.id}: D4RL's actions, which Minari has taken again in gymnasium-robotics' hand: "
                f"rewards and ends are that one's, not D4RL's, by which env={task.name} is scored"
            )
        if recorded_in is None or task.recorded_in in (None, recorded_in):
            return
        if isinstance(task, Gym):
            advice = f"not in {task.recorded_in}; give env.id={recorded_in}"
        elif re.fullmatch(rf"{task.recorded_in}(_\w+)?(-v\d+)?", recorded_in):  # a maze may name where its goals are
            return
        else:
            advice = f"not in {task.recorded_in} as those of env={task.name}; or give env=gym env.id={recorded_in}"
        raise UserError(f"dataset.id={self.id}: recorded in {recorded_in}, {advice}")
