"""Settings that differ between runs otherwise equal: curves, heat maps, and what tuning them has brought."""

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from genpolicy.report import statistics
from genpolicy.report.chart import Chart, Panel, Series
from genpolicy.report.charts import SAID, is_geometric
from genpolicy.report.document import Picture, Table, file_name
from genpolicy.report.results import LAST, Comparison, Result
from genpolicy.report.tables import between
from genpolicy.runs.identity import INCIDENTAL

FEW = 8  # lines of a panel, and values that the axis shows each

Settings = frozenset[tuple[str, str]]
Scored = Mapping[Settings, Sequence[tuple[Result, float]]]  # the runs of each configuration


def parts(comparison: Comparison) -> Iterator[Picture | Table]:
    """What a report says of swept settings, each method (algorithm and model) for itself, and of tuning."""
    by_base: dict[str, dict[str, Scored]] = defaultdict(dict)
    for base, task in sorted({(run.base, task) for task, _, run in comparison.listed}):
        by_base[base][task] = _scored(comparison, base, task)
    for base, tasks in by_base.items():
        names = sorted({name for scored in tasks.values() for name in _varied(scored)})
        for name in names:
            yield from _curve(comparison, base, name, tasks)
        for i, name in enumerate(names):
            for other in names[i + 1 :]:
                yield from _heat_map(base, name, other, tasks)
    yield from _budget(comparison, by_base)


def _scored(comparison: Comparison, base: str, task: str) -> Scored:
    """The finished runs of an algorithm and model on a task that have a finite score (or return)."""
    metric, found = f"{LAST}/{comparison.kinds[task]}_mean", defaultdict(list)
    for at, _, run in comparison.listed:
        value = run.metrics.get(metric, math.nan)
        if at == task and run.base == base and run.state == "finished" and math.isfinite(value):
            found[run.configuration].append((run, value))
    return dict(found)


def _varied(scored: Scored) -> set[str]:
    """The settings that have more than one value."""
    values = defaultdict(set)
    for configuration in scored:
        for name, value in configuration:
            values[name].add(value)
    return {name for name, found in values.items() if len(found) > 1}


def _number(text: str | None) -> float:
    with contextlib.suppress(TypeError, ValueError):
        return float(text)
    return math.nan


def _alike(scored: Scored, *names: str) -> dict[Settings, dict[tuple[str, ...], Sequence[tuple[Result, float]]]]:
    """The runs that are equal but for some settings, by all their others, and then by the values of these."""
    found: dict[Settings, dict] = defaultdict(dict)
    for configuration, runs in scored.items():
        values = dict(configuration)
        if all(name in values for name in names):
            rest = frozenset(item for item in configuration if item[0] not in names)
            found[rest][tuple(values[name] for name in names)] = runs
    return found


def _called(rest: Settings, others: Sequence[Settings]) -> str:
    """What tells the runs with these settings from others, such as 'solver.steps=4'."""
    common = frozenset.intersection(*others)
    return " ".join(f"{name}={value}" for name, value in sorted(rest - common) if name not in INCIDENTAL)


def _curve(comparison: Comparison, base: str, name: str, tasks: Mapping[str, Scored]) -> Iterator[Picture]:
    """Score against a setting that is a number; a line for each combination of what else was swept."""
    lines: dict[str, dict[str, dict[float, Sequence[tuple[Result, float]]]]] = defaultdict(dict)
    for task, scored in tasks.items():
        alike = _alike(scored, name)
        for rest, found in alike.items():
            numbers = {_number(value): runs for (value,), runs in found.items()}
            if len(numbers) > 1 and all(map(math.isfinite, numbers)):
                lines[task][_called(rest, [*alike]) or base] = dict(sorted(numbers.items()))
    if not lines:
        return
    left_out = any(len(found) > FEW for found in lines.values())
    panels, names = [], []
    for task, found in lines.items():
        series = []
        for title, numbers in sorted(found.items(), key=lambda each: -len(each[1]))[:FEW]:
            names += [title] if title not in names else []
            values = [np.array([value for _, value in runs]) for runs in numbers.values()]
            estimates = [statistics.estimate(statistics.mean, [each]) for each in values]
            ends = [each.interval for each in estimates]
            low, high = zip(*ends, strict=True) if None not in ends else (None, None)
            series.append(Series(title, [*numbers], [each.value for each in estimates], low, high))
            dots = [(x, value, comparison.mark(run)) for x, runs in numbers.items() for run, value in runs]
            x, y, marks = zip(*dots, strict=True)
            series.append(Series(title, x, y, style="points", runs=marks, thin=True))
        places = sorted({x for each in found.values() for x in each})
        ticks = [(x, f"{x:g}") for x in places] if len(places) <= FEW else None
        log = is_geometric(places)
        panels.append(Panel(task, name, SAID[comparison.kinds[task]], series, log=log, xticks=ticks))
    note = (
        "All other settings are equal along a line. Last checkpoint: mean over seeds, 95 % interval of the bootstrap "
    )
    note += f"from {statistics.FEWEST_SEEDS} seeds on; a dot is a run."
    note += f" Of more lines than {FEW} the longest are shown." if left_out else ""
    title = f"Score against {name}: {base}"
    yield Picture(f"swept_{file_name(f'{base} {name}')}", title, Chart(panels, sorted(names)), note)


def _heat_map(base: str, name: str, other: str, tasks: Mapping[str, Scored]) -> Iterator[Table]:
    """Score by two settings, those of each task shaded for themselves."""
    rows, shades, columns = [], {}, {}
    grids = {task: _grids(_alike(scored, name, other)) for task, scored in tasks.items()}
    for each in grids.values():
        columns |= {value: None for found in each.values() for _, value in found}
    columns = sorted(columns, key=_order)
    for task, each in grids.items():
        for rest, found in each.items():
            called = " ".join(filter(None, (task, _called(rest, [*each]))))
            means = {at: np.mean([value for _, value in runs]) for at, runs in found.items()}
            shares = between(means)
            for value in sorted({value for value, _ in found}, key=_order):
                cells = [_cell(found.get((value, column), ())) for column in columns]
                at = {j + 2: shares[value, column] for j, column in enumerate(columns) if (value, column) in shares}
                shades |= {(len(rows), j): share for j, share in at.items()}
                rows.append([called, value, *cells])
    if rows:
        note = f"Down: {name}. Across: {other}. Last checkpoint, mean ± standard deviation (n - 1) over seeds; shaded "
        note += "from the lowest to the highest of each task."
        title = f"Score by {name} and {other}: {base}"
        head = ["", f"{name} \\ {other}", *columns]
        yield Table(f"grid_{file_name(f'{base} {name} {other}')}", title, head, rows, note, shades=shades)


def _grids(alike: Mapping[Settings, Mapping]) -> dict[Settings, Mapping]:
    """Those in which both settings have more than one value, and are no mere pairs."""

    def is_grid(found: Mapping[tuple[str, ...], Sequence]) -> bool:
        first, second = ({at[i] for at in found} for i in (0, 1))
        return len(first) > 1 and len(second) > 1 and len(found) > max(len(first), len(second))

    return {rest: found for rest, found in alike.items() if is_grid(found)}


def _order(text: str) -> tuple[bool, float, str]:
    number = _number(text)
    return math.isnan(number), 0.0 if math.isnan(number) else number, text


def _cell(runs: Sequence[tuple[Result, float]]) -> str:
    values = [value for _, value in runs]
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}" if values else ""


def _budget(comparison: Comparison, by_base: Mapping[str, Mapping[str, Scored]]) -> Iterator[Picture]:
    """The expected best score after n configurations were tried."""
    found: dict[str, dict[str, list[np.ndarray]]] = defaultdict(dict)
    for base, tasks in by_base.items():
        for task, scored in tasks.items():
            trained = [[each for each in runs if not each[0].evaluation] for runs in scored.values()]
            if any(trained):
                found[task][base] = [np.array([value for _, value in runs]) for runs in trained if runs]
    panels = []
    for task, each in sorted(found.items()):
        series = []
        for base, configurations in each.items():
            count = len(configurations)
            best = statistics.expected_best(np.array([scores.mean() for scores in configurations]))
            low, high = statistics.expected_best_interval(configurations) or (None, None)
            series.append(Series(base, range(1, count + 1), best, low, high))
        if (longest := max(len(line.x) for line in series)) > 1:
            ticks = [(n, str(n)) for n in range(1, longest + 1)] if longest <= FEW else None
            label = f"expected best {SAID[comparison.kinds[task]]}"
            panels.append(Panel(task, "configurations tried", label, series, xticks=ticks))
    if panels:
        note = "The best mean score that is to be expected of n configurations, drawn at random with replacement from "
        note += "those that were run, and chosen by that very score. Bands: 95 % intervals of the bootstrap over "
        note += f"configurations and their seeds, from {statistics.FEWEST_SEEDS} configurations on."
        yield Picture("tuning", "Expected best after n configurations", Chart(panels, [*by_base]), note)
