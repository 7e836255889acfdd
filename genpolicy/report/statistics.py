"""Statistics over tasks and training seeds, as rliable defines them (Agarwal et al. 2021, arXiv 2108.13264).

What a method has reached is one array a task, [..., seeds]: a score for each training seed, its episodes averaged
before. The training seed is the unit of replication. Leading dimensions are resamples, which the bootstrap draws.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata, trim_mean

RESAMPLES = 2000
CONFIDENCE = 0.95
FEWEST_SEEDS = 3  # from which an interval is given: of one seed it would have no width
Scores = Sequence[np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """A statistic and its 95 % interval, or None where there are too few seeds for one."""

    value: float
    interval: tuple[float, float] | None

    def text(self, digits: int) -> str:
        """'65.0 [55.9, 73.2]'."""
        shown = f"{self.value:.{digits}f}"
        return shown + (f" [{', '.join(f'{end:.{digits}f}' for end in self.interval)}]" if self.interval else "")

    def complement(self) -> "Estimate":
        """That of 1 less the statistic: of a probability, that of the opposite."""
        return Estimate(1 - self.value, self.interval and (1 - self.interval[1], 1 - self.interval[0]))


def mean(scores: Scores) -> np.ndarray:
    """The mean over tasks of the mean over seeds."""
    return np.mean([task.mean(-1) for task in scores], axis=0)


def iqm(scores: Scores) -> np.ndarray:
    """The interquartile mean: of the middle half of all runs of all tasks."""
    return trim_mean(np.concatenate(scores, axis=-1), 0.25, axis=-1)


def median(scores: Scores) -> np.ndarray:
    """The median over tasks of the mean over seeds."""
    return np.median([task.mean(-1) for task in scores], axis=0)


def optimality_gap(scores: Scores, target: float = 100.0) -> np.ndarray:
    """How far the runs fall short of `target` on average, what is beyond it not counted; less is better."""
    return target - np.minimum(np.concatenate(scores, axis=-1), target).mean(-1)


def improvement(scores: Scores, others: Scores) -> np.ndarray:
    """The probability that a run scores more than one of the others on the same task, ties half; mean over tasks.

    It is the Mann-Whitney statistic over the number of pairs.
    """
    wins = []
    for x, y in zip(scores, others, strict=True):
        count = x.shape[-1]
        ranks = rankdata(np.concatenate([x, y], axis=-1), axis=-1)[..., :count]
        wins.append((ranks.sum(-1) - count * (count + 1) / 2) / (count * y.shape[-1]))
    return np.mean(wins, axis=0)


def profile(scores: Scores, thresholds: np.ndarray) -> np.ndarray:
    """The performance profile: the fraction of all runs that score more than each threshold, [..., thresholds]."""
    return (np.concatenate(scores, axis=-1)[..., None] > thresholds).mean(-2)


def estimate(statistic: Callable[..., np.ndarray], *methods: Scores) -> Estimate:
    """A statistic [] of one or more methods, with its interval."""
    band = interval(statistic, *methods)
    return Estimate(float(statistic(*methods)), band and (float(band[0]), float(band[1])))


def interval(statistic: Callable[..., np.ndarray], *methods: Scores) -> tuple[np.ndarray, np.ndarray] | None:
    """The 95 % interval of a statistic of one or more methods: percentiles of the stratified bootstrap.

    A resample draws as many seeds as there are, with replacement, from each task of each method apart. None if any
    task has fewer than three seeds. The draws are the same at every call.
    """
    if min(len(task) for scores in methods for task in scores) < FEWEST_SEEDS:
        return None
    rng = np.random.default_rng(0)

    def resampled(task: np.ndarray) -> np.ndarray:
        return task[rng.integers(len(task), size=(RESAMPLES, len(task)))]

    values = statistic(*([resampled(task) for task in scores] for scores in methods))
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    return low, high


def difference(scores: Scores, others: Scores) -> np.ndarray:
    """By how much the interquartile mean of one method is above that of another."""
    return iqm(scores) - iqm(others)


def expected_best(values: np.ndarray) -> np.ndarray:
    """The expected best of n configurations, for n from 1 to N, [..., N], of N values [..., N].

    n are drawn from these with replacement: the k-th smallest is the best of them with probability (k/N)^n -
    ((k-1)/N)^n (Dodge et al. 2019, arXiv 1909.03004; Kurenkov and Kolesnikov 2022, arXiv 2110.04156).
    """
    count = values.shape[-1]
    share = (np.arange(count + 1) / count)[:, None] ** np.arange(1, count + 1)
    return np.sort(values, axis=-1) @ np.diff(share, axis=0)


def expected_best_interval(configurations: Scores) -> tuple[np.ndarray, np.ndarray] | None:
    """The 95 % interval of the expected best of n configurations, [N] each, of the scores [seeds] of each of N.

    A resample draws configurations, and for each of them its seeds, with replacement, and takes the means. None for
    fewer than three configurations. The draws are the same at every call.
    """
    count = len(configurations)
    if count < FEWEST_SEEDS:
        return None
    rng = np.random.default_rng(0)
    drawn = rng.integers(count, size=(RESAMPLES, count))
    means = np.empty(drawn.shape)
    for number, scores in enumerate(configurations):
        at = drawn == number
        means[at] = scores[rng.integers(len(scores), size=(at.sum(), len(scores)))].mean(-1)
    low, high = np.quantile(expected_best(means), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    return low, high
