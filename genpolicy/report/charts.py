"""The charts of a report that compare methods; those of training and of settings are in `learning` and `swept`."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from genpolicy.report import statistics
from genpolicy.report.chart import Chart, Panel, Series
from genpolicy.report.statistics import Estimate, Scores

SAID = {"score": "normalised score", "return": "return"}


def aggregates(found: Mapping[str, Mapping[str, Estimate]], methods: Sequence[str]) -> Chart:
    """Each statistic (by title) of each method as a bar with its interval; a panel for each statistic."""
    names = list(found)
    places = {name: float(len(names) - 1 - row) for row, name in enumerate(names)}
    rows = [(places[name], name) for name in names]
    panels = []
    for title in found[names[0]]:
        bars = []
        for name in names:
            estimate = found[name][title]
            ends = estimate.interval
            low, high = ([ends[0]], [ends[1]]) if ends else (None, None)
            bars.append(Series(name, [estimate.value], [places[name]], low, high, "bars"))
        panels.append(Panel("", title, "", bars, ylim=(-0.6, len(names) - 0.4), yticks=rows))
    return Chart(panels, methods, shared=True)


def profiles(scores: Mapping[str, Scores], methods: Sequence[str]) -> Chart:
    """Performance profiles: the fraction of runs that score more than each threshold, with their intervals."""
    every = np.concatenate([task for found in scores.values() for task in found])
    thresholds = np.linspace(min(0.0, every.min()), max(100.0, every.max()), 101)
    series = []
    for method, found in scores.items():
        band = statistics.interval(lambda drawn: statistics.profile(drawn, thresholds), found)
        low, high = (None, None) if band is None else band
        series.append(Series(method, thresholds, statistics.profile(found, thresholds), low, high, "steps"))
    panel = Panel("", "normalised score s", "fraction of runs above s", series, ylim=(-0.02, 1.02))
    return Chart([panel], methods)


def trade_off(
    points: Mapping[str, Mapping[int, tuple[float, float]]], task: str, kind: str, methods: Sequence[str]
) -> Chart:
    """Score against the number of solver steps, and against the time of one action.

    points: method -> steps -> (mean score over the seeds, milliseconds an action).
    """
    counts = sorted({count for found in points.values() for count in found})
    by_steps, by_time = [], []
    for method, found in points.items():
        scores, times = zip(*found.values(), strict=True)
        by_steps.append(Series(method, list(found), scores))
        by_time.append(Series(method, times, scores))
    steps = [(count, str(count)) for count in counts]
    panels = [
        Panel(task, "solver steps", SAID[kind], by_steps, log=True, xticks=steps),
        Panel(task, "ms an action (one observation)", SAID[kind], by_time, xlim=(0, None)),
    ]
    return Chart(panels, methods)


def is_geometric(values: Sequence[float]) -> bool:
    """Whether numbers are better drawn on a logarithmic axis."""
    return min(values) > 0 and math.log(max(values) / min(values)) > math.log(7)
