"""The first sentence of a report: what it claims, and when it claims nothing."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from reported import document, lines, result

from genpolicy.report import statistics


def runs(algo, scores, task="hopper-medium-v2", **more):
    return [result(algo, task, seed, score, **more) for seed, score in enumerate(scores)]


def test_the_best_method_is_named_with_its_lead_and_whether_that_excludes_nothing():
    told = lines(document(*runs("bc", [40.0, 41.0, 42.0]), *runs("gmpo", [60.0, 61.0, 62.0])), "headline")
    assert told.splitlines()[0] == (
        "gmpo-gvp has the highest IQM of normalised scores over 1 task: 61.0 [60.0, 62.0], 20.0 [18.7, 21.3] above "
        "bc-gvp (41.0 [40.0, 42.0]). The 95 % interval of the difference excludes 0."
    )


def test_the_interval_of_the_lead_is_that_of_the_difference_of_independent_means():
    """Of four seeds the interquartile mean is that of the middle two; all 256 x 256 resamples are as likely."""
    x, y = [40.0, 47.0, 52.0, 58.0], [44.0, 45.0, 49.0, 51.0]
    means = [[np.mean(sorted(drawn)[1:3]) for drawn in itertools.product(each, repeat=4)] for each in (x, y)]
    exact = np.quantile(np.subtract.outer(*means), [0.025, 0.975])
    found = statistics.interval(statistics.difference, [np.array(x)], [np.array(y)])
    assert np.allclose(found, exact, atol=1.01)  # of values that are half points apart
    assert statistics.difference([np.array(x)], [np.array(y)]) == 49.5 - 47.0


def test_methods_that_the_runs_do_not_tell_apart_are_said_to_be_so():
    told = lines(document(*runs("bc", [40.0, 61.0, 42.0]), *runs("gmpo", [41.0, 60.0, 50.0])), "headline")
    assert "The 95 % interval of the difference includes 0: these runs do not tell the two apart." in told


@pytest.mark.parametrize(("scores", "seeds"), [([40.0], "1 seed"), ([40.0, 50.0], "2 seeds")])
def test_too_few_seeds_are_said_and_no_interval_is_claimed(scores, seeds):
    told = lines(document(*runs("bc", scores), *runs("gmpo", [60.0, 61.0, 62.0])), "headline")
    assert f"With {seeds} on a task there is no interval (3 are needed): this may be chance." in told
    assert "excludes" not in told


def test_tasks_that_a_method_lacks_do_not_count_and_missing_runs_are_said():
    both = [*runs("bc", [40.0, 41.0, 42.0]), *runs("gmpo", [60.0, 61.0, 62.0])]
    told = lines(document(*both, *runs("bc", [99.0, 99.0, 99.0], "walker2d-medium-v2")), "headline")
    assert "Of 2 tasks 1 count: those on which every method has a score." in told
    assert "Some runs are missing" in told
    alone = document(*runs("bc", [1.0]), *runs("gmpo", [1.0], "walker2d-medium-v2"))
    assert lines(alone, "headline").startswith("No method can be called the best over all tasks: there is no task")


def test_a_method_with_several_configurations_was_chosen_by_these_scores():
    tuned = [each for beta in "14" for each in runs("gmpo", [60.0, 61.0, 62.0], settings={"algo.beta": beta})]
    assert "more than one configuration counts of gmpo-gvp (2)" in lines(
        document(*runs("bc", [1, 2, 3]), *tuned), "headline"
    )


def test_returns_of_one_task_are_compared_and_of_several_are_not():
    def toy(algo, task, value):
        made = result(algo, task, score=None)
        made.metrics["final/return_mean"] = value
        return made

    told = lines(document(toy("bc", "swiss-roll", 1.0), toy("gmpo", "swiss-roll", 2.0)), "headline")
    assert told.startswith("gmpo-gvp has the highest IQM of returns on swiss-roll: 2.0, 1.0 above bc-gvp (1.0).")
    unfinished = [toy("bc", "swiss-roll", 1.0), replace(toy("gmpo", "swiss-roll", 2.0), state="failed")]
    assert "there is no task on which" in lines(document(*unfinished), "headline")
    running = [result(task=task, score=None, state="running") for task in ("hopper-medium-v2", "walker2d-medium-v2")]
    for run, name in zip(running, ("eval", "data"), strict=True):
        run.metrics[f"{name}/score_mean"] = 1.0
    assert "there is no task on which" in lines(document(*running), "headline")
    several = document(*(toy("bc", task, 1.0) for task in ("swiss-roll", "multi-goal")))
    assert "returns of different tasks have no common scale" in lines(several, "headline")


def test_one_method_alone_is_not_called_the_best():
    told = lines(document(*runs("bc", [40.0, 41.0, 42.0])), "headline")
    assert told.startswith("bc-gvp is the only method: IQM of normalised scores 41.0 [40.0, 42.0] (over 1 task).")
