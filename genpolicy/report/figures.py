"""Charts as files for papers: PNG and PDF, drawn by matplotlib."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from genpolicy.evaluation.drawing import plain
from genpolicy.report.chart import Chart, Mark, Panel, Series

# Inches: of the axes of a panel, of a bar, of what is left, below and above of these, of a letter, of a legend's line.
WIDTH, HEIGHT, ROW = 2.5, 1.9, 0.3
LEFT, BELOW, ABOVE, RIGHT = 0.65, 0.5, 0.3, 0.15
LETTER, LINE = 0.075, 0.18
WIDEST = 4  # panels in a row
LINES = ("-", "--", ":", "-.")  # where there are more names than colours


@plain
def draw(chart: Chart) -> Figure:
    """The panels in rows, and below them one legend; each at its place, as looking for room takes long."""
    panels = chart.panels
    columns = min(WIDEST, len(panels))
    rows = math.ceil(len(panels) / columns)
    names = [label for panel in panels if panel.bars for _, label in panel.yticks]
    left = max(LEFT, LETTER * max(map(len, names), default=0) + 0.1)
    height = ROW * max(len(panel.yticks or ()) for panel in panels) if names else HEIGHT
    legend, lines = list(chart.legend), 0
    total = columns * WIDTH + (columns - 1) * (RIGHT if names else LEFT) + left + RIGHT
    across = max(1, int(total / (0.5 + LETTER * max(map(len, legend), default=1))))
    lines = math.ceil(len(legend) / across)
    whole = rows * (height + BELOW + ABOVE) + LINE * lines + 0.05
    figure = Figure(figsize=(total, whole))
    styles = {name: _style(number) for number, name in enumerate(chart.colours)}
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        x = left + column * (WIDTH + (RIGHT if names else LEFT))
        y = whole - (row + 1) * (height + ABOVE) - row * BELOW
        axis = figure.add_axes((x / total, y / whole, WIDTH / total, height / whole))
        _panel(axis, panel, styles)
        if chart.shared and column:
            axis.tick_params(labelleft=False)
            axis.set_ylabel("")
    _legend(figure, legend, across)
    return figure


def _panel(axis: Axes, panel: Panel, styles: dict[str, dict]) -> None:
    axis.set_title(panel.title, fontsize="small", y=1.0)  # titles and labels at their places: see `draw`
    axis.grid(axis="x" if panel.bars else "both", linewidth=0.4, alpha=0.6)
    axis.set_xlabel(panel.xlabel, fontsize="small")
    axis.set_ylabel(panel.ylabel, fontsize="small")
    axis.xaxis.set_label_coords(0.5, -0.3 / _inches(axis)[1])
    axis.yaxis.set_label_coords(-0.5 / _inches(axis)[0], 0.5)
    axis.tick_params(labelsize="small", length=0)  # marks beside the grid would take a quarter of the time
    if panel.log:
        axis.set_xscale("log")
    else:
        axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
    axis.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
    for series in _together(panel.series):
        _series(axis, series, styles[series.name])
    if panel.xticks is not None:
        axis.set_xticks(*zip(*panel.xticks, strict=True))
        axis.minorticks_off()
    if panel.yticks is not None:
        axis.set_yticks(*zip(*panel.yticks, strict=True))
    for border in panel.borders:
        axis.axvline(border, color="grey", linewidth=0.8, linestyle=":")
    if panel.percent:
        axis.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
    axis.set_xlim(*panel.xlim)
    axis.set_ylim(*panel.ylim)


def _inches(axis: Axes) -> np.ndarray:
    """The width and the height of the axes."""
    return axis.get_position().size * axis.figure.get_size_inches()


def _together(series: Sequence[Series]) -> list[Series]:
    """The series with those of single runs joined by their names: hundreds of runs would be as many artists."""
    found: dict[tuple, list[Series]] = {}
    for each in series:
        single = bool(each.runs) and each.low is None
        found.setdefault((each.name, each.style, each.thin) if single else (each,), []).append(each)
    return [_joined(each) if len(each) > 1 else each[0] for each in found.values()]


def _joined(series: Sequence[Series]) -> Series:
    gap = [] if series[0].style != "line" else [np.nan]  # which a line breaks at
    x, y = (np.concatenate([[*getattr(each, axis), *gap] for each in series]) for axis in ("x", "y"))
    return replace(series[0], x=x, y=y, runs=[Mark(-1, "")])


def _series(axis: Axes, series: Series, style: dict) -> None:
    colour, below = style["color"], {"zorder": 1 if series.thin else 2}
    label = {} if series.thin else {"label": series.name}
    value = np.asarray(series.x if series.style == "bars" else series.y)
    with np.errstate(invalid="ignore"):  # of infinite ones
        whiskers = None if series.low is None else np.abs(np.array([series.low, series.high]) - value)
    match series.style:
        case "bars":
            axis.barh(series.y, series.x, height=0.6, color=colour, xerr=whiskers, capsize=2)
        case "points":
            pale = {"alpha": 0.4, "s": 9} if series.thin else {"s": 18}
            axis.scatter(series.x, series.y, color=colour, **pale, **label, **below)
        case "stars":
            axis.scatter(series.x, series.y, s=110, marker="*", facecolor="none", edgecolor=colour, zorder=3, **label)
        case _ if series.thin:
            axis.plot(series.x, series.y, **style, linewidth=0.5, alpha=0.4, **below)
        case _:
            stairs = {"step": "post"} if series.style == "steps" else {}
            marker = {"drawstyle": "steps-post"} if stairs else {"marker": "o", "markersize": 3}
            axis.plot(series.x, series.y, **style, **marker, linewidth=1.4, **label, **below)
            if whiskers is not None:
                axis.fill_between(series.x, series.low, series.high, **stairs, color=colour, alpha=0.15, linewidth=0)


def _style(number: int) -> dict:
    palette = matplotlib.colormaps["tab10"].colors
    return {"color": palette[number % len(palette)], "linestyle": LINES[number // len(palette) % len(LINES)]}


def _legend(figure: Figure, names: Iterable[str], across: int) -> None:
    """One legend for all panels, below them; each name once, in the order of the colours."""
    found = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    shown = [name for name in names if name in found]
    if shown:
        handles = [found[name] for name in shown]
        figure.legend(handles, shown, loc="lower center", ncols=across, frameon=False, fontsize="small")
