"""Data sets in D4RL's HDF5 layout, read as d4rl reads them, but for what a file says against that.

A file has the columns observations [N,O], actions [N,A], rewards [N], terminals [N] and, in newer ones,
timeouts [N]; row i + 1 follows row i unless an episode ended at i. Like in d4rl's `qlearning_dataset`, a next
observation is the next row's observation, and a row at which a time limit ended an episode is left out. Different:

- a terminated row is kept though a time limit ended its episode, too, or though it is the file's last: it needs no next
  observation;
- only in D4RL's own files without timeouts are time limits where d4rl counts them (`time_limits`); in others they are
  where the steps of an episode say (`recorded_limits`);
- `next_observations` [N,O], where a file has it, is held against the next rows. At most a few rows may differ, and
  episodes ended there though no flag says so. If more do, the rows are in another order: then next observations are
  taken from that column, and episodes are not known.

Whatever else is in a file is not read, but `infos` by `mode=check`.
"""

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np

from genpolicy.config.schema import component
from genpolicy.dataset.dataset import Dataset
from genpolicy.dataset.follow import ended_at_limit, follows, unfinished, without_end
from genpolicy.dataset.hdf5_file import read, read_infos
from genpolicy.dataset.transitions import Behaviour
from genpolicy.dataset.user_file import OwnFile
from genpolicy.env.task import Task
from genpolicy.errors import UserError
from genpolicy.system.console import remark

SHORT = 10  # steps: more breaks than episodes of this length would make are not the ends of episodes


@component
class FileDataset(Dataset):
    """A data set that is one file in D4RL's layout.

    remedy: what to do about a bad file. as_counted: whether d4rl's counting says where time limits are that the file
    does not tell.
    """

    remedy: ClassVar[str] = "; delete it and get it again"
    as_counted: ClassVar[bool] = False

    @abstractmethod
    def file(self, task: Task) -> Path:
        """The file of `task`, fetched or made if need be."""

    def arrays(self, task: Task) -> tuple[dict[str, np.ndarray], Behaviour]:
        """The file's rows as transitions, and the raw returns of its finished episodes.

        A step that the task's simulator cannot make is the end of an episode that the file does not flag.
        """
        return self._read(self.file(task), task)[:2]

    def recorded(self, task: Task) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None]:
        """As of any data set, with the states of the file's infos, if it has them."""
        path = self.file(task)
        arrays, _, rows, length = self._read(path, task)
        states = read_infos(path, length)
        if not {"qpos", "qvel"} <= set(states):
            return arrays, task.states(arrays["observation"])
        return arrays, {name: column[rows] for name, column in states.items()}

    def _read(self, path: Path, task: Task) -> tuple[dict[str, np.ndarray], Behaviour, np.ndarray, int]:
        """The transitions of a file, its behaviour, the row [n] of each transition, and how many rows there are."""
        try:
            columns = read(path, task)
            unknown = mend(columns, path, task, self.as_counted)
        except UserError as error:
            raise UserError(f"{error}{self.remedy}") from error
        length, limit = len(columns["rewards"]), task.max_episode_steps
        rows = np.flatnonzero(columns["terminals"] | ~columns["timeouts"]) if unknown else transitions(columns, limit)
        if len(rows) == 0:
            raise UserError(
                f"{path}: has {length} rows, which make no transition: none is terminated or has a next one in its "
                f"episode{self.remedy}"
            )
        if unknown:
            return unordered(columns, rows), Behaviour(unknown=unknown), rows, length
        found, few = behaviour(columns, task)
        if few:
            remark(f"{path}: {few}")
        return qlearning(columns, task), found, rows, length


@component
class HDF5(OwnFile, FileDataset):
    """Any file in D4RL's layout, given by its path."""

    format: ClassVar[str] = "hdf5"
    remedy: ClassVar[str] = ""

    def file(self, task: Task) -> Path:
        """The file itself."""
        return self.existing(self.path)


def mend(columns: dict[str, np.ndarray], path: Path, task: Task, as_counted: bool) -> str:
    """Holds the order of the rows against what the file and the task say, and sets `timeouts` at unflagged ends.

    as_counted: as of a `FileDataset`. Returns why episodes are not known, or "" if they are; `next_observations` are
    left only in the first case. Raises `UserError` if the next observations cannot be known, or an episode is longer
    than the task's.
    """
    limit, observations, terminals = task.max_episode_steps, columns["observations"], columns["terminals"]
    claimed = "timeouts" in columns
    free = ~(terminals | columns["timeouts"] if claimed else terminals)[:-1]
    broken = free & task.impossible(observations[:-1], observations[1:])
    following = columns.get("next_observations")
    if following is not None:
        broken |= free & ~follows(observations, following)
    count, size = int(broken.sum()), int(free.sum())
    if count > size / min(SHORT, limit):
        what = f"{count:,} of {size:,} rows inside of episodes are followed by a row that cannot be the next"
        if following is None:
            raise UserError(f"{path}: {what}: the rows are in another order, and there is no column next_observations")
        if (following == observations).all():
            raise UserError(f"{path}: next_observations is the same as observations in every row")
        columns.setdefault("timeouts", np.zeros(len(terminals), dtype=bool))
        return f"{what}, going by next_observations, so that the rows are in another order"
    columns.pop("next_observations", None)
    if doubt := ended_at_limit(np.append(~free | broken, True), terminals, task):
        remark(f"{path}: {doubt} (terminals; timeouts tells time limits)")
    broken = np.append(broken, False)
    if not claimed:
        columns["limits"] = recorded_limits(terminals, broken, task)
    told = claimed or as_counted
    columns["timeouts"] = time_limits(columns, limit, broken) if told else columns["limits"]
    if not told and following is None:
        remark(
            f"{path}: has neither timeouts nor next_observations: an episode that does not terminate is taken to end "
            f"every {limit} steps (env.max_episode_steps)"
        )
    if claimed and count:
        remark(
            f"{path}: {count:,} of {size:,} rows inside of episodes are followed by a row that cannot be the next: "
            "taken as ends of episodes by a time limit"
        )
    ends = np.append((terminals | columns["timeouts"])[:-1], True)
    endless = claimed and (task.data_within_limit or ends.sum() == 1) and without_end(ends, task)
    if endless:
        raise UserError(f"{path}: {endless}; timeouts must be 1 where a time limit ended an episode")
    return ""


def transitions(columns: dict[str, np.ndarray], limit: int) -> np.ndarray:
    """The rows [n] that make a transition: those that are terminated, or that the next row follows."""
    unfollowed = time_limits(columns, limit)
    unfollowed[-1] = True
    return np.flatnonzero(columns["terminals"] | ~unfollowed)


def recorded_ends(columns: dict[str, np.ndarray], limits: np.ndarray, task: Task) -> np.ndarray:
    """Where recorded episodes end [N]: at time limits [N], and where they terminate, unless they go on after that."""
    ended = columns["terminals"].copy()
    ended[:-1] &= ~task.resumed(columns["observations"][:-1], columns["observations"][1:])
    return ended | limits


def qlearning(columns: dict[str, np.ndarray], task: Task) -> dict[str, np.ndarray]:
    """The rows in order as transitions, `terminals` as `terminated`. Adds `episode` [n], numbered by file.

    Equal to d4rl's `qlearning_dataset` but for terminated rows that it leaves out: at a time limit, and the file's
    last, whose next observation is here its own and means nothing. The task's limit is the length at which episodes end
    in files without timeouts.
    """
    limit = task.max_episode_steps
    rows, ends = transitions(columns, limit), recorded_ends(columns, time_limits(columns, limit), task)
    return {
        "observation": columns["observations"][rows],
        "action": columns["actions"][rows],
        "reward": columns["rewards"][rows],
        "next_observation": columns["observations"][np.minimum(rows + 1, len(ends) - 1)],
        "terminated": columns["terminals"][rows],
        "episode": (np.cumsum(ends) - ends)[rows],
    }


def unordered(columns: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    """The given rows [n] in any order as transitions that lead to their `next_observations`."""
    return {
        "observation": columns["observations"][rows],
        "action": columns["actions"][rows],
        "reward": columns["rewards"][rows],
        "next_observation": columns["next_observations"][rows],
        "terminated": columns["terminals"][rows],
        "episode": None,
    }


def behaviour(columns: dict[str, np.ndarray], task: Task) -> tuple[Behaviour, str]:
    """The returns of the episodes played to their end: by a terminal, or by the task's limit; every row counts.

    And what to say if these are few (`unfinished`).

    A timeout after fewer steps is where two recordings were joined, or a change of goal in D4RL's maze2d. Where a file
    has no timeouts, `limits` are what d4rl's counting is not: the limits of the recording.
    """
    limit = task.max_episode_steps
    limits = columns["limits"] if "limits" in columns else time_limits(columns, limit)
    ends = np.flatnonzero(columns["terminals"] | limits)
    steps = np.diff(ends, prepend=-1)
    begun = np.append(True, recorded_ends(columns, limits, task)[ends[:-1]])  # not in the middle of a recorded episode
    finished = begun & (columns["terminals"][ends] | (steps >= limit))
    return Behaviour.of(task.returns(columns["rewards"], ends)[finished]), unfinished(finished, task)


def recorded_limits(terminals: np.ndarray, broken: np.ndarray, task: Task) -> np.ndarray:
    """Where a time limit ended an episode of a recording without timeouts [N], or it was broken off (`broken` [N]).

    Every `max_episode_steps` of an episode, but none where it terminates later and may be longer, as people's are.
    """
    limits, limit, start = broken.copy(), task.max_episode_steps, 0
    for end in [*np.flatnonzero(terminals | broken), len(terminals) - 1]:
        if task.data_within_limit or not terminals[end]:
            limits[start + limit - 1 : end + 1 : limit] = True
        start = end + 1
    return limits


def time_limits(columns: dict[str, np.ndarray], limit: int, broken: np.ndarray | bool = False) -> np.ndarray:
    """Where a time limit ended an episode [N]: the file's timeouts, else every `limit` steps; and at `broken` rows.

    d4rl counts the steps of an episode from 1 if the one before it ended by a terminal, and from 0 otherwise.
    """
    if "timeouts" in columns:
        return columns["timeouts"] | broken
    final = np.zeros(len(columns["terminals"]), dtype=bool) | broken
    start, first = 0, 0
    for end in [*np.flatnonzero(columns["terminals"] | final), len(final) - 1]:
        steps = np.arange(first, first + end + 1 - start)
        final[start : end + 1] |= steps % limit == limit - 1
        start, first = end + 1, 0 if final[end] else 1
    return final
