"""A chart as data: what is drawn, not how. `svg` draws it on the page, `figures` as a file for papers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Mark(NamedTuple):
    """A run in a chart: its row in the table of runs, and what is said of it."""

    row: int
    text: str


Tick = tuple[float, str]


@dataclass(frozen=True, eq=False)
class Series:
    """Points (x, y) under a name, which has one colour in the whole chart.

    low, high: of an interval at each point, in y, or in x of bars. style: "line", "steps", "points", "stars", or
    "bars", from 0 to x at the heights y. thin: drawn pale, below the others. runs: of points the run of each, or the
    one of all; of a thin line the run that it is.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    style: str = "line"
    runs: Sequence[Mark] = ()
    thin: bool = False


@dataclass(frozen=True, eq=False)
class Panel:
    """One pair of axes. ticks: where the axis has these and no others. borders: vertical lines at these x."""

    title: str
    xlabel: str
    ylabel: str
    series: Sequence[Series]
    log: bool = False  # of x
    xlim: tuple[float | None, float | None] = (None, None)
    ylim: tuple[float | None, float | None] = (None, None)
    xticks: Sequence[Tick] | None = None
    yticks: Sequence[Tick] | None = None
    borders: Sequence[float] = ()
    percent: bool = False  # shares of 1 on x

    @property
    def bars(self) -> bool:
        """Whether it consists of bars."""
        return any(series.style == "bars" for series in self.series)

    def xrange(self) -> tuple[float, float]:
        """From the smallest to the largest x, with intervals; bars begin at 0."""
        ends = [series for series in self.series if series.style == "bars"]
        values = [x for series in self.series for x in series.x] + [0.0] * bool(ends)
        values += [end for series in ends for each in (series.low, series.high) for end in each or ()]
        return _limits(values, self.xlim)

    def yrange(self) -> tuple[float, float]:
        """From the smallest to the largest y, with intervals."""
        values = [y for series in self.series for y in series.y]
        values += [
            end
            for series in self.series
            if series.style != "bars"
            for each in (series.low, series.high)
            if each is not None
            for end in each
        ]
        return _limits(values, self.ylim)


@dataclass(frozen=True, eq=False)
class Chart:
    """Panels side by side. colours: the names of series in the order of their colours. shared: y is the same in all."""

    panels: Sequence[Panel]
    colours: Sequence[str]
    shared: bool = False

    @property
    def legend(self) -> Mapping[str, int]:
        """The names that are drawn, with the numbers of their colours; empty if the axes say them."""
        if all(panel.bars for panel in self.panels):
            return {}
        drawn = {series.name for panel in self.panels for series in panel.series if series.name}
        return {name: number for number, name in enumerate(self.colours) if name in drawn}


def _limits(values: Sequence[float], given: tuple[float | None, float | None]) -> tuple[float, float]:
    values = [value for value in values if value == value and abs(value) != float("inf")]
    low, high = (min(values, default=0.0), max(values, default=1.0))
    low, high = (found if limit is None else limit for found, limit in zip((low, high), given, strict=True))
    return (low, high) if high > low else (low - 0.5, low + 0.5)
