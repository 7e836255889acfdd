"""What a report consists of: tables, statistics and charts of runs that can be compared."""

import functools
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from genpolicy.errors import counted
from genpolicy.report import charts, learning, statistics, swept
from genpolicy.report.beside import beside_published
from genpolicy.report.document import Document, Picture, Table, Text, file_name
from genpolicy.report.headline import headline
from genpolicy.report.inside import inside
from genpolicy.report.results import BEST, LAST, Comparison, Result
from genpolicy.report.sources import History, Source
from genpolicy.report.tables import SCORES, cost, grid

MEASURED = {"IQM": statistics.iqm, "mean": statistics.mean, "median": statistics.median}
MEASURED |= {"optimality gap": statistics.optimality_gap}
LIKELIHOODS = {
    "log_prob": ("log_likelihood", "Log-likelihood", "the data that were trained on"),
    "held_out_log_prob": ("log_likelihood_held_out", "Log-likelihood, held out", "episodes that were not trained on"),
}


def compose(
    source: Source,
    title: str,
    command: Callable[[Result], str] = lambda run: "",
    drawn: Callable[[Result], Iterable[Path]] = lambda run: [],
) -> Document:
    """The report on the runs of a source.

    command: says how a run is made, "" where that is not known. drawn: the figures of mode=inspect of a run.
    """
    comparison, history = Comparison(source.results), functools.cache(source.history)
    found = learning.curves(comparison, history)
    methods = _scores(comparison)
    seeds = ", ".join(map(str, comparison.seeds))
    runs, made = counted(len(source.results), "run"), time.strftime("%Y-%m-%d %H:%M")
    lines = [f"{runs}, seeds {seeds}; {made}; from {source.name}"]
    parts = [
        headline(comparison, methods),
        Text("remarks", "Warnings, and what is missing", [*source.odd, *remarks(comparison, methods)]),
        *_aggregates(methods, comparison.methods),
        *(grid(comparison, f"{which}/{{kind}}_mean", *SCORES[which]) for which in comparison.checkpoints),
        cost(comparison, history),
        *beside_published(comparison),
        *swept.parts(comparison),
        *learning.learning_curves(comparison, found),
        *_pairs(methods, comparison.methods),
        *_log_likelihoods(comparison),
        *learning.likelihood(comparison, found),
        *_trade_offs(comparison, history),
        *inside(comparison, drawn),
        *_differences(comparison),
        _runs(comparison, command),
    ]
    return Document(title, lines, [part for part in parts if not isinstance(part, Text) or part.lines])


def remarks(comparison: Comparison, methods: Mapping[str, statistics.Scores]) -> list[str]:
    """Everything that a reader of the tables must know and could not see."""
    lines = [*comparison.lacks(f"{LAST}/{{kind}}_mean"), *comparison.duplicates, *comparison.mixed()]
    lines += (apart := comparison.apart())
    left_out = [task for task in comparison.tasks if task not in comparison.common(f"{LAST}/score_mean")]
    if left_out and len(comparison.methods) > 1 and not apart:
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


def _scores(comparison: Comparison) -> dict[str, statistics.Scores]:
    """Each method's scores on the tasks that all methods have; empty if there is no such task."""
    metric = f"{LAST}/score_mean"
    tasks = comparison.common(metric)
    return {
        method: [comparison.cell(task, method, metric).values for task in tasks]
        for method in comparison.methods
        if tasks
    }


def _aggregates(methods: Mapping[str, statistics.Scores], names: list[str]) -> Iterator[Table | Picture]:
    """Statistics over tasks and seeds, with intervals; names: of all methods, in the order of their colours."""
    if not methods:
        return
    found = {
        name: {title: statistics.estimate(statistic, scores) for title, statistic in MEASURED.items()}
        for name, scores in methods.items()
    }
    drawn = charts.aggregates(found, names)
    yield Picture("aggregates", "Statistics over tasks", drawn, f"{_over(methods)} Optimality gap: less is better.")
    rows = [[name, *(estimate.text(1) for estimate in each.values())] for name, each in found.items()]
    note = f"{_over(methods)} IQM: the mean of the middle half of all runs. Mean and median: over tasks, of the means "
    note += "over seeds. Optimality gap: how far runs fall short of 100 on average; less is better."
    yield Table("aggregates", "Statistics over tasks, in numbers", ["", *MEASURED], rows, note)


def _pairs(methods: Mapping[str, statistics.Scores], names: list[str]) -> Iterator[Table | Picture]:
    """What compares methods run by run, with intervals; names: as above."""
    if len(methods) < 2:
        return
    wins = {}
    for name, other in itertools.combinations(methods, 2):
        wins[name, other] = statistics.estimate(statistics.improvement, methods[name], methods[other])
        wins[other, name] = wins[name, other].complement()
    rows = [[name, *(wins[name, other].text(2) if name != other else "" for other in methods)] for name in methods]
    note = (
        f"{_over(methods)} The probability that a run of the row's method scores more than one of the column's on the "
    )
    note += "same task."
    yield Table("improvement", "Probability of improvement", ["", *methods], rows, note)
    yield Picture("profiles", "Performance profiles", charts.profiles(methods, names), _over(methods))


def _over(methods: Mapping[str, statistics.Scores]) -> str:
    count = len(next(iter(methods.values())))
    over = f"Last checkpoint, over {count} task{'s' * (count > 1)} and the training seeds; in brackets and as bands"
    return over + " 95 % intervals of the stratified bootstrap."


def _log_likelihoods(comparison: Comparison) -> Iterator[Table]:
    for metric, (name, title, of) in LIKELIHOODS.items():
        if any(f"{LAST}/{metric}" in run.metrics for runs in comparison.runs.values() for run in runs):
            note = f"Of recorded actions of {of}, in nats an action, before actions are clipped; more is better. Last "
            note += "checkpoint, mean ± standard deviation (n - 1) over training seeds."
            yield grid(comparison, f"{LAST}/{metric}", name, title, note, digits=3, none="-")


def _values(history: History, number: str, metric: str) -> dict[int, float]:
    return {step: value for step, value, _ in history(number, metric)}


def _trade_offs(comparison: Comparison, history: History) -> Iterator[Picture]:
    """What `eval.steps` has measured."""
    for task, kind in comparison.kinds.items():
        points = {}
        for method in comparison.methods:
            runs = [run for run in comparison.runs.get((task, method), ()) if "steps/ms_per_action" in run.metrics]
            found = defaultdict(list)
            for run in runs:
                times = _values(history, run.number, f"{run.evaluation}steps/ms_per_action")
                for count, score in _values(history, run.number, f"{run.evaluation}steps/{kind}_mean").items():
                    found[count].append((score, times[count]))
            if found:
                points[method] = {count: tuple(np.mean(found[count], axis=0)) for count in sorted(found)}
        if points:
            note = "The last policy with other numbers of solver steps; means over the seeds."
            title = f"Score against sampling steps and latency: {task}"
            yield Picture(
                f"steps_{file_name(task)}", title, charts.trade_off(points, task, kind, comparison.methods), note
            )


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


def _runs(comparison: Comparison, command: Callable[[Result], str]) -> Table:
    head = ["task", "method", "seed", "state", "last", "best", "log-likelihood", "revision", "run"]
    rows = []
    for task, method, run in comparison.listed:
        names = f"{LAST}/{{}}_mean", f"{BEST}/{{}}_mean", f"{LAST}/log_prob"
        values = (run.metrics.get(name.format(comparison.kinds[task])) for name in names)
        numbers = ["" if value is None else f"{value:.6g}" for value in values]
        rows.append([task, method, str(run.seed), run.state, *numbers, (run.commit or "")[:8], run.number])
    note = "Every run that counts; last and best as in the tables above. The command makes the run, or finds it."
    made = [command(run) for _, _, run in comparison.listed]
    return Table("runs", "Runs", head, rows, note, commands=made)
