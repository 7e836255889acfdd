"""Tables of a metric by task and method; what is here imports nothing that draws."""

import numpy as np

from genpolicy.report.document import Table
from genpolicy.report.results import BEST, LAST, LATE, Comparison

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
    """A table of a metric by task and method, the best mean of each task in bold; the longer side goes down."""
    tasks, methods = comparison.tasks, comparison.methods
    cells = {(task, method): comparison.cell(task, method, metric) for task in tasks for method in methods}
    means = {at: cell.values.mean() for at, cell in cells.items() if len(cell.values)}
    best = {task: max((means[task, m] for m in methods if (task, m) in means), default=None) for task in tasks}
    rows = [[cells[task, method].text(digits, none) for method in methods] for task in tasks]
    names = [task if comparison.kinds[task] == "score" else f"{task} (return)" for task in tasks]
    strong = {
        (i, j)
        for i, task in enumerate(tasks)
        for j, method in enumerate(methods)
        if len(methods) > 1 and best[task] is not None and means.get((task, method)) == best[task]
    }
    # Scores have one scale on all tasks; log-likelihoods have not.
    common = comparison.common(metric.format(kind="score")) if "{kind}" in metric else []
    if len(common) > 1:
        rows.append([f"{np.mean([means[task, method] for task in common]):.{digits}f}" for method in methods])
        names.append("mean" if common == tasks else f"mean of {len(common)}")
    if len(methods) > len(tasks):
        rows, names, methods = [list(row) for row in zip(*rows, strict=True)], methods, names
        strong = {(j, i) for i, j in strong}
    table = [[first, *row] for first, row in zip(names, rows, strict=True)]
    return Table(name, title, ["", *methods], table, note, frozenset((i, j + 1) for i, j in strong))
