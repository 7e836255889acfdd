"""Tables by task and method."""

import math
from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from genpolicy.report.document import Table
from genpolicy.report.learning import RATE
from genpolicy.report.results import BEST, LAST, LATE, Comparison, Result
from genpolicy.report.sources import History

DATA = "behaviour data"  # beside the methods: what the data's own episodes have earned

SCORES = {
    LAST: (
        "scores_last",
        "Last checkpoint",
        "Final evaluation of the policy as it was when training ended. Normalised scores (returns where a task has no "
        "reference), mean ± standard deviation (n - 1) over training seeds. This is the number to compare.",
    ),
    LATE: (
        "scores_late",
        "Late mean",
        "Mean of the evaluations after 80, 90 and 100 % of the policy's updates, which OGBench's papers report. Mean ± "
        "standard deviation (n - 1) over training seeds.",
    ),
    BEST: (
        "scores_best",
        "Best checkpoint",
        "The best evaluation during training, chosen by that very evaluation (online model selection): optimistic, and "
        "not to be held against last checkpoints. Mean ± standard deviation (n - 1) over training seeds.",
    ),
}


def grid(
    comparison: Comparison, metric: str, name: str, title: str, note: str, digits: int = 1, none: str = "missing"
) -> Table:
    """A table of a metric by task and method, the best mean of each task in bold; the longer side goes down.

    Scores are beside what the data's own episodes have earned, where that is known, and shaded.
    """
    tasks, methods = comparison.tasks, comparison.methods
    cells = {(task, method): comparison.cell(task, method, metric) for task in tasks for method in methods}
    means = {at: cell.values.mean() for at, cell in cells.items() if len(cell.values)}
    best = {task: max((means[task, m] for m in methods if (task, m) in means), default=None) for task in tasks}
    scores = "{kind}" in metric  # which have one scale on all tasks; log-likelihoods have not
    data = {task: value for task in tasks if scores and (value := comparison.behaviour(task)) is not None}
    columns = [*([DATA] if data else []), *methods]
    means |= {(task, DATA): value for task, value in data.items()}
    texts = {at: cell.text(digits, none) for at, cell in cells.items()}
    texts |= {(task, DATA): f"{data[task]:.{digits}f}" if task in data else "-" for task in tasks}
    rows = [[texts[task, each] for each in columns] for task in tasks]
    places = {(task, each): (i, j) for i, task in enumerate(tasks) for j, each in enumerate(columns)}
    names = [task if comparison.kinds[task] == "score" else f"{task} (return)" for task in tasks]
    strong = {
        places[task, method]
        for task in tasks
        for method in methods
        if len(methods) > 1 and best[task] is not None and means.get((task, method)) == best[task]
    }
    shades = {places[at]: share for at, share in _shades(comparison, means).items()} if scores else {}
    common = comparison.common(metric.format(kind="score")) if scores else []
    if len(common) > 1:
        known = [each for each in columns if all((task, each) in means for task in common)]
        over = {each: f"{np.mean([means[task, each] for task in common]):.{digits}f}" for each in known}
        rows.append([over.get(each, "-") for each in columns])
        names.append("mean" if common == tasks else f"mean of {len(common)}")
    if len(methods) > len(tasks):
        rows, names, columns = [list(row) for row in zip(*rows, strict=True)], columns, names
        strong, shades = {(j, i) for i, j in strong}, {(j, i): share for (i, j), share in shades.items()}
    table = [[first, *row] for first, row in zip(names, rows, strict=True)]
    strong, shades = {(i, j + 1) for i, j in strong}, {(i, j + 1): share for (i, j), share in shades.items()}
    return Table(name, title, ["", *columns], table, note, frozenset(strong), shades)


def _shades(comparison: Comparison, means: Mapping[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """Between the lowest and the highest mean: of all scores together, of returns those of one task."""
    groups: dict[str, dict[tuple[str, str], float]] = {}
    for at, value in means.items():
        if math.isfinite(value):
            groups.setdefault("" if comparison.kinds[at[0]] == "score" else at[0], {})[at] = value
    return {at: share for found in groups.values() for at, share in between(found).items()}


def between(values: Mapping) -> dict:
    """Where each value lies between the lowest, 0, and the highest, 1; nothing where all are equal."""
    low, high = min(values.values()), max(values.values())
    return {at: (value - low) / (high - low) for at, value in values.items()} if high > low else {}


def cost(comparison: Comparison, history: History) -> Table:
    """What each method has reached on each task, beside the data and behaviour cloning, and what it has cost."""
    rows = []
    for (task, method), runs in sorted(comparison.runs.items()):
        cell = comparison.cell(task, method, f"{LAST}/{{kind}}_mean")
        spent = [_spent(run, history) for run in runs if run.state == "finished" and not run.evaluation]
        times = [run.metrics[metric] for run in runs if (metric := f"{LAST}/ms_per_action") in run.metrics]
        updates, hours = (_mean([each[i] for each in spent if each is not None], form) for i, form in enumerate(FORMS))
        references = (comparison.behaviour(task, method), _cloning(comparison, task, runs[0]))
        shown = ["-" if value is None else f"{value:.1f}" for value in references]
        rows.append([task, method, cell.text(1, "missing"), *shown, updates, hours, _mean(times, "{:.2f}")])
    note = "Score (or return) of the last checkpoint, beside that of the data's own episodes and of algo=bc, with the "
    note += (
        "same model if there is one; of several the highest. Updates of all phases, and the hours that they took: as "
    )
    note += "if trained alone, without evaluations and stops; of seeds that were trained at once (seeds=) those of all "
    note += "together. Milliseconds of one action at one observation. Means over the seeds."
    head = ["task", "method", "score", "data", "BC", "updates", "hours", "ms an action"]
    return Table("cost", "Score beside cost", head, rows, note)


FORMS = "{:,.0f}", "{:.3g}"  # of updates and hours


def _mean(values: list[float], form: str) -> str:
    return form.format(np.mean(values)) if values else "-"


def _spent(run: Result, history: History) -> tuple[int, float] | None:
    """The updates of all phases, and the hours that they took; None where the journal does not tell."""
    names = [name for name in run.metrics if name.endswith(RATE)]
    entries = sorted((step, rate) for name in names for step, rate, _ in history(run.number, name))
    steps = np.diff([0, *(step for step, _ in entries)])
    seconds = sum(count / rate for count, (_, rate) in zip(steps, entries, strict=True) if rate > 0)
    return (entries[-1][0], seconds / 3600) if entries else None


def _cloning(comparison: Comparison, task: str, run: Result) -> float | None:
    """The most that behaviour cloning has reached on the task, with the model of a run if there is such a one."""
    found = defaultdict(list)
    for (at, method), runs in comparison.runs.items():
        values = comparison.cell(task, method, f"{LAST}/{{kind}}_mean").values
        if at == task and runs[0].choices["algo"] == "bc" and len(values):
            found[runs[0].choices["model"]].append(values.mean())
    return max(found.get(run.choices["model"]) or [value for each in found.values() for value in each], default=None)
