"""Settings that differ between runs otherwise equal, and what tuning them has brought."""

import itertools

import numpy as np
import pytest
from reported import document, picture, result, table

from genpolicy.report import statistics
from genpolicy.report.document import Picture, Table


def grid(betas, steps, seeds=range(3), **more):
    """A run of each combination on each seed; its score is 10 beta + steps + seed."""
    return [
        result(
            seed=seed,
            score=10.0 * beta + step + seed,
            settings={"algo.beta": str(beta), "solver.steps": str(step)},
            **more,
        )
        for beta in betas
        for step in steps
        for seed in seeds
    ]


def names(made):
    return [part.name for part in made.parts if isinstance(part, Picture | Table)]


def test_a_swept_setting_is_a_curve_with_intervals_over_seeds():
    made = document(*grid([1, 2, 4, 8], [4]), result("bc"))
    (panel,) = picture(made, "swept_gmpo-gvp_algo_beta").chart.panels
    line, dots = panel.series
    assert (list(line.x), list(line.y)) == ([1, 2, 4, 8], [15.0, 25.0, 45.0, 85.0])
    assert (list(line.low), list(line.high)) == ([14, 24, 44, 84], [16, 26, 46, 86])
    assert len(dots.x) == len(dots.runs) == 12
    assert dots.runs[0].text == "gmpo-gvp algo.beta=1, hopper-medium-v2, seed 0"
    assert panel.log
    assert panel.xticks == [(1, "1"), (2, "2"), (4, "4"), (8, "8")]
    assert not any(name.startswith(("swept_bc", "grid")) for name in names(made))


def test_with_too_few_seeds_a_curve_has_no_interval():
    (panel,) = picture(document(*grid([1, 2], [4], range(2))), "swept_gmpo-gvp_algo_beta").chart.panels
    assert panel.series[0].low is None


def test_two_swept_settings_are_a_heat_map_and_a_line_for_each_value():
    made = document(*grid([1, 2], [4, 8]))
    assert table(made, "grid_gmpo-gvp_algo_beta_solver_steps") == {
        ("hopper-medium-v2", "algo.beta \\ solver.steps"): "2",  # of the last row
        ("hopper-medium-v2", "4"): "25.0 ± 1.0",
        ("hopper-medium-v2", "8"): "29.0 ± 1.0",
    }
    (part,) = (part for part in made.parts if part.name.startswith("grid"))
    assert part.shades == {(0, 2): 0.0, (0, 3): pytest.approx(4 / 14), (1, 2): pytest.approx(10 / 14), (1, 3): 1.0}
    (panel,) = picture(made, "swept_gmpo-gvp_algo_beta").chart.panels
    assert {series.name for series in panel.series} == {"solver.steps=4", "solver.steps=8"}


def test_settings_that_change_together_are_no_sweep_of_either():
    confounded = [result(score=1.0, settings={"algo.beta": "1", "critic.lr": "0.1"})]
    confounded.append(result(score=2.0, settings={"algo.beta": "2", "critic.lr": "0.2"}))
    assert not any(name.startswith(("swept", "grid")) for name in names(document(*confounded)))


def test_words_are_no_curve_and_unfinished_runs_are_no_point():
    words = [result(settings={"critic.init": word}) for word in ("pytorch", "orthogonal")]
    assert not any(name.startswith("swept") for name in names(document(*words)))
    made = document(*grid([1, 2], [4]), *grid([4], [4], state="failed"))
    (panel,) = picture(made, "swept_gmpo-gvp_algo_beta").chart.panels
    assert list(panel.series[0].x) == [1, 2]


def test_the_expected_best_is_the_mean_over_all_draws():
    """By enumeration: every sequence of n draws with replacement is as likely."""
    values = np.array([3.0, -1.0, 7.0, 7.0])
    every = [np.mean([max(drawn) for drawn in itertools.product(values, repeat=n)]) for n in (1, 2, 3, 4)]
    assert np.allclose(statistics.expected_best(values), every)
    assert np.allclose(statistics.expected_best(np.stack([values, values + 1])), [every, np.add(every, 1)])


def test_the_expected_best_of_many_uniform_values_is_that_of_order_statistics():
    """E[max of n uniform draws] = n / (n + 1)."""
    found = statistics.expected_best(np.linspace(0, 1, 5001))[:10]
    assert np.allclose(found, np.arange(1, 11) / np.arange(2, 12), atol=1e-3)


def test_its_interval_draws_configurations_and_their_seeds():
    """For n = 1 it is that of the mean over configurations of a seed's mean, whose variance is known."""
    rng = np.random.default_rng(0)
    configurations = list(rng.normal(50, 10, (40, 1)) + rng.normal(0, 5, (40, 5)))
    low, high = statistics.expected_best_interval(configurations)
    means = np.array([each.mean() for each in configurations])
    within = np.mean([each.var() / 5 for each in configurations])
    half = 1.96 * np.sqrt((means.var() + within) / 40)
    assert (high[0] - low[0]) / 2 == pytest.approx(half, rel=0.06)
    assert (low[0] + high[0]) / 2 == pytest.approx(means.mean(), abs=0.3)
    assert (np.diff(low) >= 0).all()
    assert statistics.expected_best_interval(configurations[:2]) is None


def test_tuning_counts_configurations_and_not_seeds_or_later_evaluations():
    made = document(
        *grid([1, 2, 4], [4]),
        *grid([8], [4], evaluation="evaluation-0123abcd/"),
        *(result("bc", seed=s) for s in range(2)),
    )
    (panel,) = picture(made, "tuning").chart.panels
    lines = {series.name: list(series.y) for series in panel.series}
    assert lines["bc-gvp"] == [50.0]
    assert np.allclose(lines["gmpo-gvp"], statistics.expected_best(np.array([15.0, 25.0, 45.0])))
    assert not any(each.name == "tuning" for each in document(result("bc"), result("gmpo")).pictures())
