"""`mode=report`: the runs of a study, or of a sweep, as tables, statistics and figures."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from rich import box
from rich.table import Table as Shown

from genpolicy import tracking
from genpolicy.console import console
from genpolicy.errors import UserError
from genpolicy.report import charts, statistics
from genpolicy.report.charts import Curve
from genpolicy.report.document import Document, Picture, Table, Text
from genpolicy.report.results import BEST, LAST, Comparison, Result, result_of
from genpolicy.sweep import Sweep

PRINTED = ("scores_last", "scores_best", "aggregates")
WIDTH = 200  # of tables that go to a file or a pipe
MEASURED = {"IQM": statistics.iqm, "mean": statistics.mean, "optimality gap": statistics.optimality_gap}
LIKELIHOODS = {
    "log_prob": ("log_likelihood", "Log-likelihood", "the data that were trained on"),
    "held_out_log_prob": ("log_likelihood_held_out", "Log-likelihood, held out", "episodes that were not trained on"),
}
SCORES = {
    LAST: (
        "scores_last",
        "Last checkpoint",
        "Final evaluation of the policy as it was when training ended. Normalised scores (returns where a task has no "
        "reference), mean ± standard deviation (n - 1) over training seeds. This is the number to compare.",
    ),
    BEST: (
        "scores_best",
        "Best checkpoint",
        "The best evaluation during training, chosen by that very evaluation (online model selection): optimistic, and "
        "not to be held against last checkpoints. Mean ± standard deviation (n - 1) over training seeds.",
    ),
}


def show(config: DictConfig) -> None:
    """Writes the report into the folder of the study or the sweep, and prints its main tables.

    Raises `UserError` if there are no runs, or the store cannot be read.
    """
    store = tracking.existing_store(config)
    folder, found = _read(store, config, Path(config.paths.outputs))
    document = compose(found, store.history, _title(config), store.uri)
    document.write(folder)
    shown_on = console(WIDTH)
    for part in document.parts:
        if isinstance(part, Text):
            shown_on.print(f"\n{part.title}:", *(f"  {line}" for line in part.lines), sep="\n", soft_wrap=True)
        elif isinstance(part, Table) and part.name in PRINTED:
            shown_on.print(_shown(part))
    print(f"\n{folder / 'report.html'}\n{folder / 'report.md'}, tables/*.tex and *.csv, figures/*.png and *.pdf")


def compose(
    found: list[Result], history: Callable[[str, str], list[tuple[int, float]]], title: str, source: str
) -> Document:
    """The report on runs; `history` tells all (step, value) of a metric of an MLflow run id."""
    comparison = Comparison(found)
    curves = _curves(comparison, history)
    methods = _scores(comparison)
    seeds = ", ".join(map(str, comparison.seeds))
    lines = [f"{len(found)} runs, seeds {seeds}; {time.strftime('%Y-%m-%d %H:%M')}; from {source}"]
    parts = [
        Text("What is missing, and what to mind", remarks(comparison, methods)),
        *(_grid(comparison, f"{which}/{{kind}}_mean", *said) for which, said in SCORES.items()),
        *_statistics(methods),
        *_log_likelihoods(comparison),
        *_figures(comparison, curves, methods),
        *_trade_offs(comparison, history),
        *_differences(comparison),
        _runs(comparison),
    ]
    return Document(title, lines, [part for part in parts if not isinstance(part, Text) or part.lines])


def remarks(comparison: Comparison, methods: Mapping[str, statistics.Scores]) -> list[str]:
    """Everything that a reader of the tables must know and could not see."""
    lines = [*comparison.lacks(f"{LAST}/{{kind}}_mean"), *comparison.duplicates]
    left_out = [task for task in comparison.tasks if task not in comparison.common(f"{LAST}/score_mean")]
    if left_out and len(comparison.methods) > 1:
        lines.append(
            f"not in any mean or statistic over tasks, as not every method has a score there: {', '.join(left_out)}"
        )
    fewest = min((len(task) for scores in methods.values() for task in scores), default=statistics.FEWEST_SEEDS)
    if fewest < statistics.FEWEST_SEEDS:
        seeds = f"{fewest} seed{'s' * (fewest > 1)}"
        lines.append(f"no intervals: a method has {seeds} on a task, and they need {statistics.FEWEST_SEEDS}")
    commits = {run.commit for runs in comparison.runs.values() for run in runs}
    if len(commits) > 1:
        lines.append(
            "the runs come from different revisions: "
            + ", ".join(sorted(each[:8] if each else "unknown" for each in commits))
        )
    return lines


def _read(store, config: DictConfig, outputs: Path) -> tuple[Path, list[Result]]:
    """The folder of the report, and the runs it is about."""
    study = outputs / config.study
    if config.tracking.uri is None:  # beside the runs: nothing is to be missing of what they have done
        tracking.catch_up(outputs, None, {store.uri: store}, thorough=False)
    try:
        runs = store.runs(config.study, config.report.filter)
    except Exception as error:  # whatever MLflow or its database or the network may raise
        raise UserError(f"{store.uri}: {tracking.one_line(error)}") from error
    if runs is None:
        known = ", ".join(store.studies()) or "none"
        raise UserError(f"study={config.study}: not in {store.uri}; known: {known}")
    sweep = ""
    if config.sweep is not None:
        study, sweep = study / "sweeps" / config.sweep, f" of sweep {config.sweep}"
        members = {str(directory) for directory in Sweep(outputs, config.study, config.sweep).runs}
        runs = [
            run
            for run in runs
            if run.data.tags.get("genpolicy.sweep", "").endswith(f"({config.sweep})")
            or run.data.tags["genpolicy.run_dir"] in members
        ]
    if not runs:
        where = f" with report.filter={config.report.filter}" if config.report.filter else ""
        raise UserError(f"study={config.study}: {store.uri} has no runs{sweep}{where}")
    found = [
        result_of(run.info.run_id, run.info.start_time, run.data.tags, run.data.params, run.data.metrics)
        for run in runs
    ]
    return study / "report", found


def _title(config: DictConfig) -> str:
    return f"{config.study}, sweep {config.sweep}" if config.sweep else config.study


def _grid(
    comparison: Comparison, metric: str, name: str, title: str, note: str, digits: int = 1, none: str = "missing"
) -> Table:
    """A table of a metric by task and method, the best mean of each task in bold; the longer side goes down."""
    tasks, methods = comparison.tasks, comparison.methods
    cells = {(task, method): comparison.cell(task, method, metric) for task in tasks for method in methods}
    means = {at: cell.values.mean() for at, cell in cells.items() if len(cell.values)}
    best = {task: max((means[task, m] for m in methods if (task, m) in means), default=None) for task in tasks}
    rows = [[cells[task, method].text(digits, none) for method in methods] for task in tasks]
    names = [task if comparison.kind(task) == "score" else f"{task} (return)" for task in tasks]
    strong = {
        (i, j)
        for i, task in enumerate(tasks)
        for j, method in enumerate(methods)
        if len(methods) > 1 and best[task] is not None and means.get((task, method)) == best[task]
    }
    common = comparison.common(metric.format(kind="score"))
    if len(common) > 1:
        rows.append([f"{np.mean([means[task, method] for task in common]):.{digits}f}" for method in methods])
        names.append("mean" if common == tasks else f"mean of {len(common)}")
    if len(methods) > len(tasks):
        rows, names, methods = [list(row) for row in zip(*rows, strict=True)], methods, names
        strong = {(j, i) for i, j in strong}
    table = [[first, *row] for first, row in zip(names, rows, strict=True)]
    return Table(name, title, ["", *methods], table, note, frozenset((i, j + 1) for i, j in strong))


def _scores(comparison: Comparison) -> dict[str, statistics.Scores]:
    """Each method's scores on the tasks that all methods have; empty if there is no such task."""
    metric = f"{LAST}/score_mean"
    tasks = comparison.common(metric)
    return {
        method: [comparison.cell(task, method, metric).values for task in tasks]
        for method in comparison.methods
        if tasks
    }


def _statistics(methods: Mapping[str, statistics.Scores]) -> Iterator[Table | Picture]:
    """Statistics over tasks and seeds, with intervals."""
    if not methods:
        return
    count = len(next(iter(methods.values())))
    over = f"Last checkpoint, over {count} task{'s' * (count > 1)} and the training seeds; in brackets and as bands"
    over += " 95 % intervals of the stratified bootstrap."
    rows = [[name, *(_measured(measure, scores) for measure in MEASURED.values())] for name, scores in methods.items()]
    note = f"{over} IQM: the mean of the middle half of all runs. Optimality gap: how far runs fall short of 100 on "
    note += "average; less is better."
    yield Table("aggregates", "Statistics over tasks", ["", *MEASURED], rows, note)
    if len(methods) == 1:
        return
    rows = [[name, *("" if name == other else _wins(methods, name, other) for other in methods)] for name in methods]
    note = (
        f"{over} The probability that a run of the row's method scores more than one of the column's on the same task."
    )
    yield Table("improvement", "Probability of improvement", ["", *methods], rows, note)
    yield Picture("aggregates", "Statistics over tasks, drawn", charts.aggregates(methods, MEASURED), over)
    yield Picture("profiles", "Performance profiles", charts.profiles(methods), over)


def _wins(methods: Mapping[str, statistics.Scores], name: str, other: str) -> str:
    return _measured(statistics.improvement, methods[name], methods[other], digits=2)


def _measured(statistic: Callable, *scores: statistics.Scores, digits: int = 1) -> str:
    shown = f"{float(statistic(*scores)):.{digits}f}"
    band = statistics.interval(statistic, *scores)
    return shown if band is None else f"{shown} [{band[0]:.{digits}f}, {band[1]:.{digits}f}]"


def _log_likelihoods(comparison: Comparison) -> Iterator[Table]:
    for metric, (name, title, of) in LIKELIHOODS.items():
        if any(f"{LAST}/{metric}" in run.metrics for runs in comparison.runs.values() for run in runs):
            note = f"Of recorded actions of {of}, in nats an action, before actions are clipped; more is better. Last "
            note += "checkpoint, mean ± standard deviation (n - 1) over training seeds."
            yield _grid(comparison, f"{LAST}/{metric}", name, title, note, digits=3, none="-")


def _curves(comparison: Comparison, history: Callable) -> dict[tuple[str, str], list[Curve]]:
    """The evaluations during training of each run that has any, whatever has become of it."""
    curves = defaultdict(list)
    for (task, method), runs in comparison.runs.items():
        for run in runs:
            score = dict(history(run.number, f"eval/{comparison.kind(task)}_mean"))
            log_prob = dict(history(run.number, "eval/log_prob")) if "eval/log_prob" in run.metrics else {}
            pretrained = 0
            if "behaviour/updates_per_second" in run.metrics:
                pretrained = max(step for step, _ in history(run.number, "behaviour/updates_per_second"))
            updates = np.array(sorted(score))
            if not len(updates):
                continue
            pretraining = updates <= pretrained
            best = run.metrics.get(f"{BEST}/update")
            curves[task, method].append(
                Curve(
                    updates,
                    np.array([score[update] for update in updates]),
                    np.array([log_prob.get(update, np.nan) for update in updates]),
                    pretraining & ~pretraining.all(),
                    int(np.flatnonzero(updates == best)[0]) if best in updates else None,
                )
            )
    return dict(curves)


def _figures(comparison: Comparison, curves: Mapping, methods: Mapping) -> Iterator[Picture]:
    kinds = {task: comparison.kind(task) for task in comparison.tasks if any(at[0] == task for at in curves)}
    if kinds:
        note = "Evaluations during training: mean over seeds, and from the lowest to the highest seed."
        yield Picture("learning_curves", "Learning curves", charts.learning_curves(curves, kinds), note)
    for task, kind in kinds.items():
        shown = {at[1]: found for at, found in curves.items() if at[0] == task and np.isfinite(found[0].log_prob).any()}
        if shown:
            note = "Each dot is an evaluation during training, each line a seed. The star is the best checkpoint."
            title = f"Score against log-likelihood: {task}"
            yield Picture(f"likelihood_{_file(task)}", title, charts.likelihood(shown, task, kind), note)


def _trade_offs(comparison: Comparison, history: Callable) -> Iterator[Picture]:
    """What `eval.steps` has measured."""
    for task in comparison.tasks:
        kind, points = comparison.kind(task), {}
        for method in comparison.methods:
            runs = [run for run in comparison.runs.get((task, method), ()) if "steps/ms_per_action" in run.metrics]
            found = defaultdict(list)
            for run in runs:
                times = dict(history(run.number, "steps/ms_per_action"))
                for count, score in history(run.number, f"steps/{kind}_mean"):
                    found[count].append((score, times[count]))
            if found:
                points[method] = {count: tuple(np.mean(found[count], axis=0)) for count in sorted(found)}
        if points:
            note = "The last policy with other numbers of solver steps; means over the seeds."
            title = f"Score against sampling steps and latency: {task}"
            yield Picture(f"steps_{_file(task)}", title, charts.trade_off(points, task, kind), note)


def _differences(comparison: Comparison) -> Iterator[Table]:
    """The settings that separate the compared methods."""
    rows = []
    for name, values in comparison.differences():
        row = [name]
        for method in comparison.methods:
            known = {values.get(at, "-") for at in comparison.runs if at[1] == method}
            row.append(known.pop() if len(known) == 1 else "differs by task")
        rows.append(row)
    if rows:
        note = "Options and settings in which methods differ on the same task; all others are equal."
        yield Table("differences", "What separates the methods", ["", *comparison.methods], rows, note)


def _runs(comparison: Comparison) -> Table:
    head = ["task", "method", "seed", "state", "last", "best", "log-likelihood", "revision", "MLflow run"]
    rows = []
    for (task, method), runs in sorted(comparison.runs.items()):
        for run in runs:
            names = f"{LAST}/{{}}_mean", f"{BEST}/{{}}_mean", f"{LAST}/log_prob"
            values = (run.metrics.get(name.format(comparison.kind(task))) for name in names)
            numbers = ["" if value is None else f"{value:.6g}" for value in values]
            rows.append([task, method, str(run.seed), run.state, *numbers, (run.commit or "")[:8], run.number])
    return Table("runs", "Runs", head, rows, "Every run that counts; last and best as in the tables above.")


def _file(name: str) -> str:
    return "".join(sign if sign.isalnum() else "_" for sign in name)


def _shown(table: Table) -> Shown:
    """The table for the terminal."""
    shown = Shown(title=table.title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for name in table.head:
        shown.add_column(name, justify="right" if name else "left", overflow="fold")
    for row in table.cells("[bold]{}[/bold]"):
        shown.add_row(*row)
    return shown
