"""What every data set does: load the transitions of a task, their rewards transformed for training."""

import contextlib
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import InitVar
from pathlib import Path
from typing import ClassVar

import gymnasium
import numpy as np
import torch
from filelock import FileLock

from genpolicy.config.legal import legal_options
from genpolicy.config.schema import component, digest, locate, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.sequences import too_short
from genpolicy.dataset.transitions import Behaviour, Transitions
from genpolicy.env.replay import check_robot
from genpolicy.env.task import Task
from genpolicy.errors import UserError
from genpolicy.system.console import remark
from genpolicy.system.files import open_regular, read_regular


def iql_locomotion(reward: np.ndarray, episode: np.ndarray) -> tuple[float, float, dict[str, float]]:
    """Scale and shift of r * 1000 / (max - min return), IQL's for locomotion (Kostrikov et al. 2021).

    The returns are those of all episodes as Q-learning sees them: without the step at which a time limit cut
    them off, and with the last one even if it is unfinished. GMPO and GMPG use the same formula, but cut
    every 1000 transitions instead of at the limits, after which time-limited episodes are 999 long; so their
    cuts wander.
    """
    returns = np.bincount(np.unique(episode, return_inverse=True)[1], weights=reward)
    low, high = float(returns.min()), float(returns.max())
    if not high > low:
        raise UserError(
            f"dataset.reward=iql_locomotion needs episodes of different returns, but all have {low:g}; "
            "give dataset.reward=none"
        )
    return 1000.0 / (high - low), 0.0, {"return_min": low, "return_max": high}


def antmaze(reward: np.ndarray, episode: np.ndarray) -> tuple[float, float, dict[str, float]]:
    """Scale and shift of r - 1: rewards 0/1 become -1/0, as in IQL for antmaze."""
    return 1.0, -1.0, {}


def cql_antmaze(reward: np.ndarray, episode: np.ndarray) -> tuple[float, float, dict[str, float]]:
    """Scale and shift of 4 (r - 0.5): rewards 0/1 become -2/2, as in CQL and Diffusion-QL for antmaze."""
    return 4.0, -2.0, {}


def rebrac_antmaze(reward: np.ndarray, episode: np.ndarray) -> tuple[float, float, dict[str, float]]:
    """Scale and shift of 100 r: rewards 0/1 become 0/100, as in ReBRAC for antmaze."""
    return 100.0, 0.0, {}


def standardize(reward: np.ndarray, episode: np.ndarray) -> tuple[float, float, dict[str, float]]:
    """Scale and shift of (r - mean) / std over all transitions, as in Diffusion-QL for Adroit."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(reward.mean()), float(reward.std())
    if not np.isfinite([mean, std]).all():
        largest = np.abs(reward).max()
        raise UserError(
            f"dataset.reward=standardize: rewards up to {largest:g} are too large; give dataset.reward=none"
        )
    if not std > 0:
        raise UserError(
            f"dataset.reward=standardize needs different rewards, but all are {mean:g}; give dataset.reward=none"
        )
    return 1.0 / std, -mean / std, {"mean": mean, "std": std}


def none(reward: np.ndarray, episode: np.ndarray) -> tuple[float, float, dict[str, float]]:
    """Scale and shift of the rewards as they are."""
    return 1.0, 0.0, {}


TRANSFORMS = (none, iql_locomotion, antmaze, cql_antmaze, rebrac_antmaze, standardize)
REWARDS = {transform.__name__: transform for transform in TRANSFORMS}
WITHOUT_EPISODES = {"held_out": "0", "reward": "none"}


@component
class Dataset(ABC):
    """A source of transitions. `directory` is where data files are kept between runs.

    shuffled: whether it is known of these data that their rows are in no order, so that it need not be said.
    as_recorded: whether their rewards are those of the task's published data, where these follow a rule of their own.
    """

    shuffled: ClassVar[bool] = False
    as_recorded: ClassVar[bool] = False

    reward: str = setting(
        "none",
        choices=REWARDS,
        doc="how rewards are transformed, in training only; iql_locomotion: 1000 r / range of returns; antmaze: r - 1; "
        "cql_antmaze: 4 r - 2; rebrac_antmaze: 100 r",
    )
    held_out: float = setting(
        0.0, ge=0, lt=1, doc="share of the episodes held out of training, on which log-likelihoods are measured too"
    )
    action_margin: float = setting(
        0.0, ge=0, lt=1, doc="actions are clipped to keep this distance from the bounds of the action space"
    )
    directory: InitVar[str | Path]

    def __post_init__(self, directory: str | Path) -> None:
        self.directory = Path(directory).expanduser().absolute()

    @abstractmethod
    def arrays(self, task: Task) -> tuple[dict[str, np.ndarray], Behaviour]:
        """The fields of `Transitions` with raw rewards, and `episode` [N], the number of each one's episode.

        The rows of an episode are in the order in which they were made; those of several may alternate. Where the data
        do not tell episodes, `episode` is None, and the behaviour says why. Raises `UserError` if the data cannot be
        had or do not fit the task.
        """

    def location(self, task: Task) -> Path | None:
        """The file or folder that the data of `task` are read from, whether it is there or not; None if none is."""
        return None

    def stamp(self, task: Task) -> list | None:
        """That file or folder as it is now: its path, size in bytes, and time of last change in ns; None without one.

        A folder's are those of all files in it.
        """
        if (place := self.location(task)) is None:
            return None
        try:
            known = [file.stat() for file in (place.rglob("*") if place.is_dir() else [place]) if not file.is_dir()]
        except OSError:
            return None
        return [str(place), sum(each.st_size for each in known), max((each.st_mtime_ns for each in known), default=0)]

    def source(self, task: Task) -> str:
        """Where the data of `task` come from: an address, a file, or the class that makes them, with its settings."""
        return f"{type(self).__module__}.{self!r}"

    def made(self, task: Task) -> tuple[int, int] | None:
        """How many episodes of how many transitions are made for a task; None if only the data tell."""
        return None

    def probe(self, task: Task, length: int = 1) -> None:
        """Raises `UserError` if a run is begun in vain: for a file that a user names, or data that cannot be had.

        Or, as far as it is known before they are had, for episodes of fewer than `length` transitions, of which a batch
        takes so many at a time, or too few of them to hold some out.
        """
        if (made := self.made(task)) is None:
            return
        episodes, steps = made
        if self.held_out:
            held_out_count(episodes, self.held_out)
        if steps < length:
            raise too_short(self.source(task), length)

    def recorded(self, task: Task) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None]:
        """`arrays`, and the simulator's state before each transition, as `Task.place` takes it; None if unknown."""
        arrays, _ = self.arrays(task)
        return arrays, task.states(arrays["observation"])

    def simulate(self, task: Task) -> gymnasium.Env:
        """A simulator of the task with the rewards that the data have."""
        return task.simulate_as_recorded() if self.as_recorded else task.simulate()

    def given(self, reward: float) -> float:
        """The raw reward of these data where `simulate` gives one."""
        return reward

    def statistics(self, task: Task, arrays: dict[str, np.ndarray], states: dict[str, np.ndarray]) -> list[str]:
        """What `recorded` gives, in numbers, as lines of text."""
        lines, episode = [], arrays["episode"]
        if episode is not None:
            lengths = np.unique(episode, return_counts=True)[1]
            longest = f" to {lengths.max():,}" if lengths.max() > lengths.min() else ""
            lines.append(f"episodes: {len(lengths):,} of {lengths.min():,}{longest} transitions")
        action = arrays["action"].astype(np.float64)
        moments = (f"{mean:.3g} ± {std:.3g}" for mean, std in zip(action.mean(0), action.std(0), strict=True))
        return [*lines, f"actions, mean ± standard deviation of each part: {', '.join(moments)}"]

    def load(self, task: Task) -> Transitions:
        """The transitions of `task`, on the CPU; those of `held_out` episodes apart.

        The reward transform and the data's returns are of all episodes. Raises `UserError` if the data cannot be had
        or do not fit the task, the settings or the memory.
        """
        try:
            return self._load(task)
        except MemoryError as error:
            raise UserError(f"{self.source(task)}: takes more memory than there is") from error

    def _load(self, task: Task) -> Transitions:
        arrays, behaviour = self.arrays(task)
        self._check_robot(task, arrays)
        episode = arrays.pop("episode")
        self._check_episodes(task, behaviour)
        scale, shift, constants = REWARDS[self.reward](arrays["reward"], episode)
        with np.errstate(over="ignore", invalid="ignore"):
            arrays["reward"] = arrays["reward"] * np.float32(scale) + np.float32(shift)
        if not np.isfinite(arrays["reward"]).all():
            raise UserError(
                f"dataset.reward={self.reward}: {scale:g} r + {shift:g} is too large a number; give dataset.reward=none"
            )
        if self.action_margin:
            low, high = task.action_low + self.action_margin, task.action_high - self.action_margin
            if not (low < high).all():
                width = (task.action_high - task.action_low).min()
                raise UserError(
                    f"dataset.action_margin={self.action_margin:g}: leaves nothing of the action space of {task.name}; "
                    f"legal: less than {width / 2:g}"
                )
            arrays["action"] = np.clip(arrays["action"], low, high).astype(np.float32)
        transform = {"name": self.reward, "scale": scale, "shift": shift} | constants
        known = {"behaviour": behaviour, "reward_transform": transform, "source": self.source(task)}
        if episode is not None:
            if (episode[1:] < episode[:-1]).any():  # those of episodes side by side, one after the other
                order = np.argsort(episode, kind="stable")
                episode, arrays = episode[order], {name: column[order] for name, column in arrays.items()}
            known["ends"] = torch.from_numpy(np.append(episode[1:] != episode[:-1], True)[: len(episode)])
        transitions = Transitions.of(arrays, **known)
        if not self.held_out:
            return transitions
        return transitions.split_held_out(torch.from_numpy(chosen_episodes(episode, self.held_out)))

    def _check_robot(self, task: Task, arrays: dict[str, np.ndarray]) -> None:
        """Raises `UserError` for data of another robot than the task's. What has passed is not asked again."""
        if (known := self.stamp(task)) is None or not task.mistakable:
            return
        passed, asked = self.directory / "genpolicy-replayed.txt", digest([*known, repr(task)])
        with contextlib.suppress(OSError, UserError, ValueError):
            if asked in read_regular(passed).decode().split():
                return
        states = task.states(arrays["observation"])
        if states is None and type(self).recorded is not Dataset.recorded:
            arrays, states = self.recorded(task)
        if states is not None:
            check_robot(task, arrays, states, self.source(task))
        with contextlib.suppress(OSError, UserError):
            self.directory.mkdir(parents=True, exist_ok=True)
            with open_regular(passed, "ab") as file:
                file.write(f"{asked}\n".encode())

    def _check_episodes(self, task: Task, behaviour: Behaviour) -> None:
        """Says that the data tell no episodes, if so. Raises `UserError` if the settings need them."""
        if not behaviour.unknown:
            return
        needs = {"held_out": self.held_out > 0, "reward": self.reward == iql_locomotion.__name__}
        for name, needed in needs.items():
            if needed:
                raise UserError(
                    f"dataset.{name}={getattr(self, name)}: needs the episodes of the data, which are not known: "
                    f"{behaviour.unknown}; give dataset.{name}={WITHOUT_EPISODES[name]}"
                )
        if not self.shuffled:
            remark(f"{self.source(task)}: {behaviour.unknown}: episodes and the data's return are not known")


def require_task(config: Node, cls: type[Task], option: str) -> None:
    """Raises `UserError` if the task is not of the one class that the data of an option are of."""
    if locate(config.env._target_) is not cls:
        tasks = legal_options("env", lambda task: task is cls)
        raise UserError(f"dataset={option} does not go with env={config.env.name}; it goes with {tasks}")


def chosen_episodes(episode: np.ndarray, share: float) -> np.ndarray:
    """The rows [M] of a share of the episodes, given the number [N] of each row's: always the same ones.

    Those of a smaller share are among those of a larger one. Raises `UserError` if that are none or all.
    """
    numbers = np.unique(episode)
    count = held_out_count(len(numbers), share)
    return np.flatnonzero(np.isin(episode, np.random.RandomState(0).permutation(numbers)[:count]))


def held_out_count(episodes: int, share: float) -> int:
    """How many of so many episodes are a share of them. Raises `UserError` if that are none or all."""
    count = round(share * episodes)
    if not 0 < count < episodes:
        raise UserError(
            f"dataset.held_out={share:g}: holds {count} of the data's {episodes} episodes out; "
            "at least one must be held out and one trained on"
        )
    return count


def cached_file(path: Path, make: Callable[[Path], None]) -> Path:
    """`path`, after `make` has made the file if there is none; only one process makes it, the others wait.

    Raises `UserError` if the file cannot be written.
    """
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if not path.exists():
                    make(path)
        except OSError as error:
            raise UserError(f"paths.data: {path} cannot be written ({error.strerror or error})") from error
    return path


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raises `UserError` if the disk of a folder has fewer than `needed` bytes free for `what`."""
    if (free := shutil.disk_usage(folder).free) < needed:
        sizes = f"{needed / 2**20:,.0f} MiB are needed, {free / 2**20:,.0f} MiB are free"
        raise UserError(f"{folder}: the disk is too small for {what}: {sizes}")
