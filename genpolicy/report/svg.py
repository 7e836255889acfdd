"""Charts as SVG on the page: in the colours of its style sheet, legible on a phone; each run says which it is."""

import html
import math
from collections.abc import Iterator, Sequence

from genpolicy.report.chart import Chart, Mark, Panel, Series, Tick

WIDTH, HEIGHT = 340, 240  # pixels of a panel, which a phone shows whole
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 24, 40  # around the axes
ROW = 24  # pixels of a bar
LETTER = 6.2  # pixels, at the size of the labels
COLOURS, DASHES = 10, 4  # of the style sheet


def draw(chart: Chart) -> str:
    """The panels of a chart, and its legend, as HTML."""
    numbers = {name: number for number, name in enumerate(chart.colours)}
    panels = "".join(_Axes(panel).draw(numbers) for panel in chart.panels)
    legend = "".join(
        f'<li><svg width="24" height="10" class="{_colour(number)}"><path d="M0 5H24"/></svg>{html.escape(name)}</li>'
        for name, number in chart.legend.items()
    )
    return f'<div class="panels">{panels}</div>' + (f'<ul class="legend">{legend}</ul>' if legend else "")


def ticks(low: float, high: float, count: int = 5) -> list[Tick]:
    """About `count` round numbers between two."""
    step = 10 ** math.floor(math.log10((high - low) / count))
    step = next(step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= count)
    first = math.ceil(low / step - 1e-9)
    return [(i * step, f"{i * step:.6g}") for i in range(first, math.floor(high / step + 1e-9) + 1)]


def geometric(low: float, high: float, count: int = 6) -> list[Tick]:
    """At most about `count` round numbers between two on a logarithmic axis."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [10.0**n * factor for n in decades for factor in (1, 2, 5) if low <= 10.0**n * factor <= high]
    if len(found) > count:
        found = [10.0**n for n in decades if low <= 10.0**n <= high]
    found = found[:: math.ceil(len(found) / count)] if found else []
    return [(value, f"{value:g}") for value in found]


class _Axes:
    """The axes of a panel: from its numbers to pixels."""

    def __init__(self, panel: Panel):
        self.panel = panel
        self.left, self.height = LEFT, HEIGHT
        if panel.bars:
            longest = max(len(label) for _, label in panel.yticks)
            self.left = min(0.45 * WIDTH, LETTER * longest + 10)
            self.height = TOP + BOTTOM + ROW * len(panel.yticks)
        self.x0, self.x1 = panel.xrange()
        if panel.log:
            self.x0, self.x1 = math.log(self.x0), math.log(self.x1)
        self.y0, self.y1 = panel.yrange()
        gap = 0.04 * (self.y1 - self.y0)
        low, high = panel.ylim
        self.y0, self.y1 = self.y0 - gap * (low is None), self.y1 + gap * (high is None)
        gap = 0.03 * (self.x1 - self.x0)
        low, high = panel.xlim
        self.x0 -= gap * (low is None and not (panel.bars and self.x0 == 0))
        self.x1 += gap * (high is None)

    def x(self, value: float) -> float:
        value = math.log(value) if self.panel.log else value
        return self.left + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - RIGHT - self.left)

    def y(self, value: float) -> float:
        return TOP + (self.y1 - value) / (self.y1 - self.y0) * (self.height - TOP - BOTTOM)

    def draw(self, numbers: dict[str, int]) -> str:
        panel = self.panel
        parts = [*self._grid(), *(f'<path class="border" d="{self._upright(x)}"/>' for x in panel.borders)]
        ordered = sorted(panel.series, key=lambda series: not series.thin)  # thin lines lie below
        parts += [f'<g class="{_colour(numbers[each.name])}">{self._series(each)}</g>' for each in ordered]
        middle = (self.left + WIDTH - RIGHT) / 2
        parts.append(_text(middle, self.height - 6, panel.xlabel, "label"))
        if panel.title:
            parts.append(_text(WIDTH / 2, 14, _short(panel.title, 52), "title"))
        if panel.ylabel:
            place = f'transform="translate(12 {(TOP + self.height - BOTTOM) / 2:.0f}) rotate(-90)"'
            parts.append(f'<text class="label" {place}>{html.escape(panel.ylabel)}</text>')
        said = html.escape(" ".join(filter(None, (panel.title, f"{panel.ylabel} over {panel.xlabel}"))))
        box = f'viewBox="0 0 {WIDTH} {self.height:.0f}" width="{WIDTH}" height="{self.height:.0f}"'
        return f'<svg class="panel" role="img" aria-label="{said}" {box}>{"".join(parts)}</svg>'

    def _upright(self, x: float) -> str:
        return f"M{self.x(x):.1f} {TOP}V{self.height - BOTTOM:.1f}"

    def _grid(self) -> Iterator[str]:
        panel = self.panel
        across = panel.xticks
        if across is None:
            across = geometric(math.exp(self.x0), math.exp(self.x1)) if panel.log else ticks(self.x0, self.x1)
            across = [(x, f"{100 * x:g} %") for x, _ in across] if panel.percent else across
        for x, label in across:
            yield f'<path class="grid" d="{self._upright(x)}"/>'
            yield _text(self.x(x), self.height - BOTTOM + 14, label, "tick")
        for y, label in panel.yticks or ticks(self.y0, self.y1):
            if not panel.bars:
                yield f'<path class="grid" d="M{self.left:.1f} {self.y(y):.1f}H{WIDTH - RIGHT}"/>'
            shown = _short(label, int((self.left - 8) / LETTER))
            yield _text(self.left - 5, self.y(y) + 4, shown, "side", label if shown != label else "")

    def _series(self, series: Series) -> str:
        finite = [i for i, pair in enumerate(zip(series.x, series.y, strict=True)) if all(map(math.isfinite, pair))]
        at = [(self.x(series.x[i]), self.y(series.y[i])) for i in finite]
        match series.style:
            case "bars":
                return "".join(self._bar(series, i) for i in finite)
            case "points" | "stars":
                shape = _circle if series.style == "points" else _star
                marks = [series.runs[i] for i in finite] if len(series.runs) > 1 else [*series.runs] * len(finite)
                told = marks or [Mark(-1, self._told(series, i)) for i in finite]
                drawn = "".join(map(_said, told, (shape(*each) for each in at)))
                return f'<g class="pale">{drawn}</g>' if series.thin else self._whiskers(series, finite) + drawn
        way = _stairs(at) if series.style == "steps" else "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
        if series.thin:
            return _said(series.runs[0], f'<path class="hit" d="{way}"/><path class="thin" d="{way}"/>')
        band = self._band(series, finite) if series.low is not None else ""
        dots = (
            ""
            if series.style == "steps"
            else "".join(
                _said(Mark(-1, self._told(series, i)), _circle(*each)) for i, each in zip(finite, at, strict=True)
            )
        )
        return f'{band}<path class="line" d="{way}"/>{dots}'

    def _told(self, series: Series, i: int) -> str:
        where = next((label for x, label in self.panel.xticks or () if x == series.x[i]), f"{series.x[i]:.4g}")
        if series.style == "bars":
            where = ""
        value = series.x[i] if series.style == "bars" else series.y[i]
        told = f"{where}: {value:.4g}" if where else f"{value:.4g}"
        if series.low is not None:
            told += f" [{series.low[i]:.4g}, {series.high[i]:.4g}]"
        return f"{series.name}, {told}" if where else f"{series.name}: {told}"

    def _band(self, series: Series, finite: Sequence[int]) -> str:
        low, high = ([(self.x(series.x[i]), self.y(ends[i])) for i in finite] for ends in (series.low, series.high))
        if series.style == "steps":
            low, high = _corners(low), _corners(high)
        around = "L".join(f"{x:.1f} {y:.1f}" for x, y in [*low, *reversed(high)])
        return f'<path class="band" d="M{around}Z"/>'

    def _whiskers(self, series: Series, finite: Sequence[int]) -> str:
        if series.low is None:
            return ""
        ways = (f"M{self.x(series.x[i]):.1f} {self.y(series.low[i]):.1f}V{self.y(series.high[i]):.1f}" for i in finite)
        return f'<path class="whisker" d="{"".join(ways)}"/>'

    def _bar(self, series: Series, i: int) -> str:
        begin, end = sorted((self.x(0), self.x(series.x[i])))
        y = self.y(series.y[i])
        box = f'<rect x="{begin:.1f}" y="{y - 7:.1f}" width="{max(end - begin, 0.5):.1f}" height="14"/>'
        if series.low is not None:
            low, high = self.x(series.low[i]), self.x(series.high[i])
            box += f'<path class="whisker" d="M{low:.1f} {y - 4:.1f}v8m0 -4H{high:.1f}m0 -4v8"/>'
        return _said(Mark(-1, self._told(series, i)), box)


def _said(mark: Mark, content: str) -> str:
    """What is shown while the pointer is on it; of a run, that it can be clicked."""
    run = f' class="run" data-run="{mark.row}"' if mark.row >= 0 else ""
    return f"<g{run}><title>{html.escape(mark.text)}</title>{content}</g>"


def _circle(x: float, y: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>'


def _star(x: float, y: float) -> str:
    corners = ((8 if i % 2 == 0 else 3.4, math.pi * (i / 5 - 0.5)) for i in range(10))
    way = "L".join(f"{x + r * math.cos(angle):.1f} {y + r * math.sin(angle):.1f}" for r, angle in corners)
    return f'<path class="star" d="M{way}Z"/>'


def _corners(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The corners of stairs, of which each value holds up to the next point."""
    return [
        corner
        for (x, y), (after, _) in zip(points, [*points[1:], points[-1]], strict=True)
        for corner in ((x, y), (after, y))
    ]


def _stairs(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in _corners(points))


def _text(x: float, y: float, text: str, kind: str, whole: str = "") -> str:
    title = f"<title>{html.escape(whole)}</title>" if whole else ""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{html.escape(text)}{title}</text>'


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: max(1, longest - 1)] + "…"


def _colour(number: int) -> str:
    return f"c{number % COLOURS} d{number // COLOURS % DASHES}"
