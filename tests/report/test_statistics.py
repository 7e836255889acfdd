"""Statistics over tasks and seeds, against rliable, scipy, and cases worked out by hand."""

import numpy as np
import pytest
from rliable import metrics
from scipy import stats

from genpolicy.report import statistics

# Five seeds on three tasks of two methods, and what rliable 1.2.0 makes of them: its `get_interval_estimates` with
# 20,000 resamples (5,000 for the improvement and the profile). Its bootstrap does not import beside pandas 3.
X = [[100.8, 48.6, 19.6, 126.5, 54.4], [64.4, 85.5, 87.7, 92.3, 83.3], [46.3, 36.8, 27.0, 34.7, 24.2]]
Y = [[42.2, 69.2, 80.9, 46.3, 44.6], [99.8, 93.0, 100.5, 100.4, 92.6], [41.4, 45.4, 37.4, 74.0, 60.0]]
INTERVALS = {"iqm": (47.722, 73.922), "mean": (50.747, 74.227), "optimality_gap": (29.900, 49.473)}


def scores(lists) -> list[np.ndarray]:
    return [np.array(task) for task in lists]


def drawn(tasks: int, seeds: int, seed: int) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).normal(50, 30, (tasks, seeds)).round(0))  # rounded: with ties


@pytest.mark.parametrize("seed", range(5))
def test_they_are_those_of_rliable(seed):
    x, y = drawn(4, 6, seed), drawn(4, 6, seed + 100)
    theirs = np.array(x).T, np.array(y).T
    assert np.isclose(statistics.iqm(x), metrics.aggregate_iqm(theirs[0]))
    assert np.isclose(statistics.mean(x), metrics.aggregate_mean(theirs[0]))
    assert np.isclose(statistics.optimality_gap(x), metrics.aggregate_optimality_gap(theirs[0], 100.0))
    assert np.isclose(statistics.improvement(x, y), metrics.probability_of_improvement(*theirs))


def test_by_hand():
    x, y = scores([[1, 2, 3, 4], [100, 110, 120, 130]]), scores([[0, 2, 5], [100, 100, 200]])
    assert statistics.iqm(x) == np.mean([3, 4, 100, 110])  # the middle half of eight
    assert statistics.mean(x) == (2.5 + 115) / 2
    assert statistics.optimality_gap(x) == (99 + 98 + 97 + 96 + 4 * 0) / 8
    # Task 1: 1 > 0; 2 > 0 and ties with 2; 3 > 0, 2; 4 > 0, 2 -> (1 + 1.5 + 2 + 2) / 12. Task 2: (1 + 2 + 2 + 2) / 12.
    assert np.isclose(statistics.improvement(x, y), (6.5 / 12 + 7 / 12) / 2)
    assert statistics.profile(x, np.array([0.0, 2.0, 100.0, 130.0])).tolist() == [1.0, 0.75, 0.375, 0.0]


def test_a_method_improves_on_itself_half_of_the_time_and_the_two_ways_sum_to_one():
    x, y = drawn(3, 5, 0), drawn(3, 7, 1)
    assert statistics.improvement(x, x) == 0.5
    assert np.isclose(statistics.improvement(x, y) + statistics.improvement(y, x), 1.0)


@pytest.mark.parametrize("name", INTERVALS)
def test_intervals_are_those_of_rliable(name):
    low, high = statistics.interval(getattr(statistics, name), scores(X))
    assert np.allclose((low, high), INTERVALS[name], atol=0.04 * (high - low))


def test_the_intervals_of_improvement_and_profile_are_those_of_rliable():
    band = statistics.interval(statistics.improvement, scores(X), scores(Y))
    assert np.allclose(band, (0.1067, 0.4), atol=0.015)
    low, high = statistics.interval(lambda s: statistics.profile(s, np.array([20.0, 50.0, 80.0])), scores(X))
    assert np.allclose(low, (0.8, 0.4, 0.2))
    assert np.allclose(high, (1.0, 0.6667, 0.6), atol=1e-3)


def test_the_interval_of_one_tasks_mean_is_scipys():
    (x,) = drawn(1, 9, 3)
    theirs = stats.bootstrap((x,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    ours = statistics.interval(statistics.mean, [x])
    assert np.allclose(ours, theirs, atol=0.05 * (theirs.high - theirs.low))


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """Of 20 seeds the percentile interval of a mean covers about 93 %; of episodes taken for seeds it would not."""
    rng = np.random.default_rng(0)
    bands = (statistics.interval(statistics.mean, list(rng.normal(50, 10, (2, 20)))) for _ in range(200))
    covered = np.mean([low <= 50 <= high for low, high in bands])
    assert 0.87 < covered < 0.98


def test_fewer_than_three_seeds_have_no_interval():
    assert statistics.interval(statistics.iqm, drawn(3, 2, 0)) is None
    assert statistics.interval(statistics.iqm, [*drawn(1, 5, 0), *drawn(1, 2, 0)]) is None
    assert statistics.interval(statistics.improvement, drawn(2, 5, 0), drawn(2, 1, 0)) is None
    assert statistics.interval(statistics.iqm, drawn(2, 3, 0)) is not None


def test_seeds_are_resampled_within_their_task_only():
    """Tasks of different levels without spread between seeds: nothing that a resample could change."""
    low, high = statistics.interval(statistics.iqm, scores([[0.0] * 4, [100.0] * 4]))
    assert low == high == 50
