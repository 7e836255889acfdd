"""The figures of a report."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from genpolicy.evaluation.drawing import plain
from genpolicy.report import statistics
from genpolicy.report.statistics import Estimate, Scores

PANEL = 3.2  # inches
WIDEST = 4  # panels in a row
LETTER = 0.075  # inches, of a legend
SAID = {"score": "normalised score", "return": "return"}
UNITS = {"hours": 3600, "minutes": 60, "seconds": 1}
PRETRAINING, FINETUNING = "pretraining (behaviour)", "finetuning (policy)"


@dataclass(frozen=True)
class Curve:
    """The evaluations of one run in training, in order: share of its phase, score or return, log-likelihood, [n] each.

    `log_prob` is NaN where there is no density, `pretraining` true where the behaviour model was evaluated, before the
    policy that is made from it; `best` is the index of the evaluation whose checkpoint was kept as the best, or None.
    `seconds` [n] are those since training began; None: curves are drawn over the share.
    """

    share: np.ndarray
    score: np.ndarray
    log_prob: np.ndarray
    pretraining: np.ndarray
    best: int | None
    seconds: np.ndarray | None = None


@plain
def learning_curves(curves: Mapping[tuple[str, str], Sequence[Curve]], kinds: Mapping[str, str]) -> Figure:
    """Score over training: the mean of the seeds, and from the lowest to the highest of them; a panel for each task.

    The phases stand side by side, each from its beginning to its end: what the phases of two methods cost is not the
    same, nor is it within one. With times, each evaluation stands at the mean of the seeds' times instead.

    curves: by task and method, one a seed; kinds: task -> 'score' or 'return'.
    """
    figure, panels = _panels(list(kinds))
    colours = _colours(method for _, method in curves)
    times = [curve.seconds[-1] for found in curves.values() for curve in found if curve.seconds is not None]
    unit = next(unit for unit, size in UNITS.items() if max(times, default=0) >= 2 * size or size == 1)
    pretrained = {task for (task, _), found in curves.items() if any(curve.pretraining.any() for curve in found)}
    for (task, method), found in sorted(curves.items()):
        by_share = defaultdict(list)
        for curve in found:
            shares = curve.share + (~curve.pretraining if task in pretrained else 0)
            places = curve.seconds / UNITS[unit] if times else shares
            for share, place, score in zip(shares, places, curve.score, strict=True):
                by_share[share].append((place, score))
        places, scores = zip(*(zip(*by_share[share], strict=True) for share in sorted(by_share)), strict=True)
        places = list(map(np.mean, places))
        mean, low, high = (list(map(each, scores)) for each in (np.mean, min, max))
        style, axis = colours[method], panels[task]
        axis.plot(places, mean, **style, marker="o", markersize=3, linewidth=1.4, label=method)
        axis.fill_between(places, low, high, color=style["color"], alpha=0.15, linewidth=0)
    for task, axis in panels.items():
        axis.set(ylabel=SAID[kinds[task]])
        if times:
            axis.set(xlabel=f"wall-clock time ({unit})")
            axis.set_xlim(left=0)
        elif task in pretrained:
            axis.axvline(1.0, color="grey", linewidth=0.8, linestyle=":")
            axis.set(xlim=(0, 2.05), xticks=[0.5, 1.5], xticklabels=[PRETRAINING, FINETUNING])
        else:
            axis.set(xlim=(0, 1.05), xlabel="share of the phase that trains the policy")
            axis.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
    _legend(figure, panels.values())
    return figure


@plain
def likelihood(curves: Mapping[str, Sequence[Curve]], task: str, kind: str) -> Figure:
    """Score against log-likelihood during training, as Figure 1 of the GMPO and GMPG paper; a panel for each method.

    Pretraining and finetuning are coloured apart, the best checkpoint of each run is marked.
    """
    figure, panels = _panels(sorted(curves), shared=True)
    for method, axis in panels.items():
        found = curves[method]  # drawn together: hundreds of runs would be thousands of artists
        lines = [np.column_stack([curve.log_prob, curve.score]) for curve in found]
        broken = np.concatenate([np.append(line, [[np.nan, np.nan]], axis=0) for line in lines])
        axis.plot(*broken.T, color="grey", linewidth=0.5, alpha=0.6, zorder=1)
        points = np.concatenate(lines)
        before = np.concatenate([curve.pretraining for curve in found])
        best = [line[curve.best] for line, curve in zip(lines, found, strict=True) if curve.best is not None]
        for name, part, colour in (PRETRAINING, before, "tab:blue"), (FINETUNING, ~before, "tab:orange"):
            if part.any():
                axis.scatter(*points[part].T, s=22, color=colour, label=name, zorder=2)
        if best:
            axis.scatter(
                *np.transpose(best), s=110, marker="*", facecolor="none", edgecolor="black", label="best", zorder=3
            )
        axis.set(xlabel="log-likelihood of the data (nats)", ylabel=SAID[kind])
        axis.label_outer()
    figure.suptitle(task)
    _legend(figure, panels.values())
    return figure


@plain
def trade_off(points: Mapping[str, Mapping[int, tuple[float, float]]], task: str, kind: str) -> Figure:
    """Score against the number of solver steps, and against the time of one action.

    points: method -> steps -> (mean score over the seeds, milliseconds an action).
    """
    figure, panels = _panels(["steps", "time"])
    colours = _colours(points)
    counts = sorted({count for found in points.values() for count in found})
    for method, found in points.items():
        scores, times = zip(*found.values(), strict=True)
        style = colours[method] | {"marker": "o", "markersize": 4, "label": method}
        panels["steps"].plot(list(found), scores, **style)
        panels["time"].plot(times, scores, **style)
    panels["steps"].set(title="", xlabel="solver steps", ylabel=SAID[kind], xscale="log")
    panels["steps"].set_xticks(counts, list(map(str, counts)))
    panels["steps"].minorticks_off()
    panels["time"].set(title="", xlabel="ms an action (one observation)", ylabel=SAID[kind])
    panels["time"].set_xlim(left=0)
    figure.suptitle(task)
    _legend(figure, panels.values())
    return figure


@plain
def profiles(methods: Mapping[str, Scores]) -> Figure:
    """Performance profiles: the fraction of runs that score more than each threshold, with their intervals."""
    scores = np.concatenate([task for found in methods.values() for task in found])
    thresholds = np.linspace(min(0.0, scores.min()), max(100.0, scores.max()), 201)
    figure, panels = _panels(["profiles"], width=1.6 * PANEL)
    axis = panels["profiles"]
    colours = _colours(methods)
    for method, found in methods.items():
        axis.step(thresholds, statistics.profile(found, thresholds), **colours[method], where="post", label=method)
        band = statistics.interval(lambda drawn: statistics.profile(drawn, thresholds), found)
        if band is not None:
            axis.fill_between(thresholds, *band, step="post", color=colours[method]["color"], alpha=0.15, linewidth=0)
    axis.set(title="", xlabel="normalised score s", ylabel="fraction of runs with more than s", ylim=(-0.02, 1.02))
    _legend(figure, panels.values())
    return figure


@plain
def aggregates(found: Mapping[str, Mapping[str, Estimate]]) -> Figure:
    """Each statistic (by title) of each method as a point with its interval; a panel for each statistic."""
    names = list(found)[::-1]
    titles = list(found[names[0]])
    figure = Figure(figsize=(PANEL * len(titles) + 1.5, 0.32 * len(names) + 1.1), layout="constrained")
    for title, axis in zip(titles, figure.subplots(1, len(titles), sharey=True, squeeze=False)[0], strict=True):
        for row, name in enumerate(names):
            estimate = found[name][title]
            if estimate.interval is not None:
                axis.plot(
                    estimate.interval, (row, row), color="tab:blue", linewidth=7, alpha=0.3, solid_capstyle="butt"
                )
            axis.plot(estimate.value, row, "|", color="black", markersize=11, markeredgewidth=1.6)
        axis.set(xlabel=title, ylim=(-0.6, len(names) - 0.4))
        axis.set_yticks(range(len(names)), names)
        axis.grid(axis="x", linewidth=0.4, alpha=0.6)
    return figure


def _panels(names: Sequence[str], width: float = PANEL, shared: bool = False) -> tuple[Figure, dict[str, Axes]]:
    """A panel for each name, in rows; with `shared` the axes of all are the same."""
    columns = min(WIDEST, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(width * columns + 0.8, PANEL * rows * 0.85 + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared).flat
    for spare in list(axes)[len(names) :]:
        spare.remove()
    shown = dict(zip(names, figure.axes, strict=True))
    for name, axis in shown.items():
        axis.set_title(name, fontsize="small")
        axis.grid(linewidth=0.4, alpha=0.6)
        axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
    return figure, shown


def _colours(methods: Iterable[str]) -> dict[str, dict]:
    """A colour for each method, in order of their names, and another kind of line where there are more than colours."""
    palette = matplotlib.colormaps["tab10"].colors
    lines = ("-", "--", ":", "-.")
    return {
        method: {"color": palette[i % len(palette)], "linestyle": lines[i // len(palette) % len(lines)]}
        for i, method in enumerate(sorted(set(methods)))
    }


def _legend(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend for all panels, below them; each name once."""
    shown = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    width, height = figure.get_size_inches()
    columns = max(1, min(len(shown), int(width / (0.5 + LETTER * max(map(len, shown), default=0)))))
    figure.set_size_inches(width, height + 0.2 * math.ceil(len(shown) / columns))
    figure.legend(shown.values(), shown, loc="outside lower center", ncols=columns, frameon=False, fontsize="small")
