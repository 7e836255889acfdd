"""Which rows of a table follow one another: a row's next observation is the observation of the next row."""

import numpy as np

from genpolicy.env.task import Task

TOLERANCE = 1e-3  # of a part's spread: far below what a step changes, far above what float32 and five decimals do
DECIMALS = 1e-5  # of the parts' typical spread: five decimals of a part that hardly changes beside the others
DIGITS = 1e-4, 1e-2  # of a part's size, but no more than of its spread: five digits of a part far from zero
SAMPLE = 10_000  # rows that tell the spread
LIMITED = 0.05  # share of the episodes that may happen to terminate at the limit, or to be broken off


def follows(observation: np.ndarray, next_observation: np.ndarray) -> np.ndarray:
    """Whether each row but the last is followed by the next one, [N-1], given both columns [N,O].

    They need not be equal: a file may have rounded one of them, or stored it with fewer digits.
    """
    there, here = next_observation[:-1], observation[1:]
    equal = (there == here).all(axis=1)
    others = np.flatnonzero(~equal)
    with np.errstate(over="ignore"):
        equal[others] = (np.abs(there[others] - here[others]) <= tolerance(observation)).all(axis=1)
    return equal


def tolerance(observation: np.ndarray) -> np.ndarray:
    """How far two observations that are the same may be apart, [O], on the scale of the data [N,O].

    A part's spread is half the range of the middle 80 % of its values, about a standard deviation, which a few
    outliers do not change; that of a part that is the same in most rows is its size.
    """
    some = observation[:: len(observation) // SAMPLE + 1].astype(np.float64)
    low, middle, high = np.quantile(some, [0.1, 0.5, 0.9], axis=0)
    spread = np.where(high > low, (high - low) / 2, np.abs(middle))
    typical = np.median(spread[spread > 0]) if spread.any() else 0.0
    digits = np.minimum(DIGITS[0] * np.abs(middle), DIGITS[1] * spread)
    return TOLERANCE * spread + DECIMALS * typical + digits


def without_end(ends: np.ndarray, task: Task) -> str:
    """What to say of rows that follow one another for longer than an episode lasts, given where they end [N]; or ""."""
    longest = int(np.diff(np.flatnonzero(ends), prepend=-1).max())
    if longest <= task.max_episode_steps + 1:  # some files have a row for the last observation, too, such as AntMaze's
        return ""
    return (
        f"{longest:,} rows follow one another without an end, but an episode of {task.name} has at most "
        f"{task.max_episode_steps} steps (env.max_episode_steps)"
    )


def unfinished(finished: np.ndarray, task: Task) -> str:
    """What to say if many episodes [M] are not finished, and do not count in the data's return; or "" of few."""
    left_out, count = int((~finished[:-1]).sum()), len(finished)
    if not task.data_within_limit or left_out <= LIMITED * count:
        return ""
    return (
        f"{left_out:,} of {count:,} episodes neither terminate nor have env.max_episode_steps={task.max_episode_steps} "
        "steps: the data's return is that of the others"
    )


def ended_at_limit(ends: np.ndarray, terminated: np.ndarray, task: Task) -> str:
    """What to say if the episodes as long as the task's all terminate, and are several; or "".

    ends, terminated [N]: which rows end an episode, and which by a termination. It is likely to have been the limit.
    """
    last, limit = np.flatnonzero(ends), task.max_episode_steps
    whole = terminated[last[np.diff(last, prepend=-1) == limit]]
    if limit == 1 or not whole.all() or len(whole) < 2 or len(whole) <= LIMITED * len(last):
        return ""
    return (
        f"all {len(whole):,} episodes of env.max_episode_steps={limit} steps terminate, as if the time limit were a "
        "termination; where it ended them, they must not be flagged as terminated"
    )
