"""What a report consists of: tables, statistics and figures on runs that can be compared."""

import itertools
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np

from genpolicy.config.arguments import options
from genpolicy.config.option_content import background
from genpolicy.report import charts, statistics
from genpolicy.report.charts import Curve
from genpolicy.report.document import Document, Picture, Table, Text
from genpolicy.report.published import counterpart, published, sources
from genpolicy.report.results import BEST, LAST, LATE, Comparison, Result
from genpolicy.report.sources import History, Source
from genpolicy.report.tables import SCORES, grid

MEASURED = {"IQM": statistics.iqm, "mean": statistics.mean, "optimality gap": statistics.optimality_gap}
LIKELIHOODS = {
    "log_prob": ("log_likelihood", "Log-likelihood", "the data that were trained on"),
    "held_out_log_prob": ("log_likelihood_held_out", "Log-likelihood, held out", "episodes that were not trained on"),
}


def compose(source: Source, title: str, curves_over: str = "phase") -> Document:
    """The report on the runs of a source. curves_over: the axis of the learning curves, "phase" or "time"."""
    comparison, history = Comparison(source.results), source.history
    curves = _curves(comparison, history, curves_over == "time")
    methods = _scores(comparison)
    seeds = ", ".join(map(str, comparison.seeds))
    lines = [f"{len(source.results)} runs, seeds {seeds}; {time.strftime('%Y-%m-%d %H:%M')}; from {source.name}"]
    parts = [
        Text("remarks", "Warnings, and what is missing", [*source.odd, *remarks(comparison, methods)]),
        *(grid(comparison, f"{which}/{{kind}}_mean", *SCORES[which]) for which in comparison.checkpoints),
        *_beside_published(comparison),
        *_statistics(methods),
        *_log_likelihoods(comparison),
        *_figures(comparison, curves, curves_over),
        *_trade_offs(comparison, history),
        *_differences(comparison),
        _runs(comparison),
    ]
    return Document(title, lines, [part for part in parts if not isinstance(part, Text) or part.lines])


def remarks(comparison: Comparison, methods: Mapping[str, statistics.Scores]) -> list[str]:
    """Everything that a reader of the tables must know and could not see."""
    lines = [*comparison.lacks(f"{LAST}/{{kind}}_mean"), *comparison.duplicates, *(apart := comparison.apart())]
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


def _beside_published(comparison: Comparison) -> Iterator[Table | Text]:
    """Our numbers and those of the papers that have the same method on the same task; with warnings about either."""
    rows, tasks, used, others = [], set(), set(), defaultdict(set)
    for (task, method), runs in sorted(comparison.runs.items()):
        name, known_there = counterpart(runs[0].choices["algo"], runs[0].choices["model"]), False
        ours = {which: comparison.cell(task, method, f"{which}/{{kind}}_mean") for which in comparison.checkpoints}
        for cell in published(runs[0].name):
            if cell.method != name or not len(ours[LAST].values):
                continue
            known_there = True
            if cell.setup != runs[0].setup:
                others[task].add(f"{cell.source} ({cell.setup or 'as published first'})")
                continue
            theirs = f"{cell.mean:g}" + ("" if cell.std is None else f" ± {cell.std:g}")
            compared = {"best": BEST, "late": LATE}.get(cell.protocol, LAST)
            mine = ours[compared].values if compared in ours else ()
            difference = f"{mine.mean() - cell.mean:+.1f}" if len(mine) else ""
            shown = [each.text(1, "missing") for each in ours.values()]
            known = ", ".join(filter(None, (cell.source, cell.protocol, cell.comment)))
            rows.append([task, method, *shown, name, theirs, difference, known])
            used.add(cell.source)
        if known_there:
            tasks.add((task, runs[0].name, runs[0].choices["dataset"]))
    if rows:
        note = (
            "The difference is ours less theirs: of our best checkpoint where they report the best, of our late mean "
        )
        note += (
            "where they report one, else of the last. The same names do not make the same protocol: seeds, episodes, "
        )
        note += "checkpoints, settings and simulators differ."
        head = ["task", "method", *comparison.checkpoints, "published as", "published", "difference", "source"]
        yield Table("published", "Beside published numbers", head, rows, note)
    about = ((name, source) for name, source in sources().items() if name in used)
    lines = [f"{name}: {source.paper}; {source.table}. {source.comment}" for name, source in about]
    for task, found in sorted(others.items()):
        if found:
            lines.append(f"{task}: not beside those of other protocols: {', '.join(sorted(found))}.")
    for task, name, data in sorted(tasks):
        own = (
            ""
            if data in ("d4rl", "rl_unplugged", "ogbench")
            else f"the data come by dataset={data} and may not be the papers'. "
        )
        lines.append(f"{task}: {own}{' '.join(background(options('env')[name]))}")
    if lines:
        yield Text("about_published", "About these numbers", lines)


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
    found = {
        name: {title: statistics.estimate(statistic, scores) for title, statistic in MEASURED.items()}
        for name, scores in methods.items()
    }
    rows = [[name, *(estimate.text(1) for estimate in each.values())] for name, each in found.items()]
    note = f"{over} IQM: the mean of the middle half of all runs. Optimality gap: how far runs fall short of 100 on "
    note += "average; less is better."
    yield Table("aggregates", "Statistics over tasks", ["", *MEASURED], rows, note)
    if len(methods) == 1:
        return
    wins = {}
    for name, other in itertools.combinations(methods, 2):
        wins[name, other] = statistics.estimate(statistics.improvement, methods[name], methods[other])
        wins[other, name] = wins[name, other].complement()
    rows = [[name, *(wins[name, other].text(2) if name != other else "" for other in methods)] for name in methods]
    note = (
        f"{over} The probability that a run of the row's method scores more than one of the column's on the same task."
    )
    yield Table("improvement", "Probability of improvement", ["", *methods], rows, note)
    yield Picture("aggregates", "Statistics over tasks, drawn", charts.aggregates(found), over)
    yield Picture("profiles", "Performance profiles", charts.profiles(methods), over)


def _log_likelihoods(comparison: Comparison) -> Iterator[Table]:
    for metric, (name, title, of) in LIKELIHOODS.items():
        if any(f"{LAST}/{metric}" in run.metrics for runs in comparison.runs.values() for run in runs):
            note = f"Of recorded actions of {of}, in nats an action, before actions are clipped; more is better. Last "
            note += "checkpoint, mean ± standard deviation (n - 1) over training seeds."
            yield grid(comparison, f"{LAST}/{metric}", name, title, note, digits=3, none="-")


def _values(history: History, number: str, metric: str) -> dict[int, float]:
    return {step: value for step, value, _ in history(number, metric)}


def _curves(comparison: Comparison, history: History, timed: bool) -> dict[tuple[str, str], list[Curve]]:
    """The evaluations during training of each run that has any, in whatever state it is; timed: with their times."""
    curves = defaultdict(list)
    for (task, method), runs in comparison.runs.items():
        for run in (run for run in runs if not run.evaluation):
            evaluations = history(run.number, f"eval/{comparison.kinds[task]}_mean")
            score, times = ({entry[0]: entry[i] for entry in evaluations} for i in (1, 2))
            log_prob = _values(history, run.number, "eval/log_prob") if "eval/log_prob" in run.metrics else {}
            pretrained = 0
            if "behaviour/updates_per_second" in run.metrics:
                pretrained = max(_values(history, run.number, "behaviour/updates_per_second"))
            updates = np.array(sorted(score))
            if not len(updates):
                continue
            best = run.metrics.get(f"{BEST}/update")
            curves[task, method].append(
                Curve(
                    _shares(updates, pretrained, 0 if run.state == "finished" else _planned(run)),
                    np.array([score[update] for update in updates]),
                    np.array([log_prob.get(update, np.nan) for update in updates]),
                    updates <= pretrained,
                    int(np.flatnonzero(updates == best)[0]) if best in updates else None,
                    _seconds(run, [times[update] for update in updates], history) if timed else None,
                )
            )
    return dict(curves)


def _seconds(run: Result, times: list[int], history: History) -> np.ndarray:
    """What lies between the first metrics of a run, of its data or of an update, and times in milliseconds."""
    first = [name for name in run.metrics if name == "data/episodes" or name.endswith("/updates_per_second")]
    begin = min([*times, *(time for name in first for _, _, time in history(run.number, name))])
    return (np.array(times) - begin) / 1000


def _planned(run: Result) -> int:
    """How often each phase that trains a policy is evaluated; 0 if that is not known."""
    planned = run.settings.get("eval.per_phase", "0")
    return int(planned) if planned.isdecimal() else 0


def _shares(updates: np.ndarray, pretrained: int, planned: int) -> np.ndarray:
    """The share of its phase at each evaluation [n], of which there are as many as planned, evenly spaced to its end.

    updates [n]: of all phases, at the evaluations; pretrained: those of the first phase that is evaluated, or 0.
    """
    shares = np.empty(len(updates))
    for part in (updates <= pretrained, updates > pretrained):
        rank = np.arange(1, part.sum() + 1)
        shares[part] = rank / max(planned, len(rank))
    return shares


def _figures(comparison: Comparison, curves: Mapping, curves_over: str) -> Iterator[Picture]:
    kinds = {task: kind for task, kind in comparison.kinds.items() if any(at[0] == task for at in curves)}
    if kinds:
        note = "Evaluations during training: mean over seeds, and from the lowest to the highest seed."
        if curves_over == "time":
            note += " Each stands at the mean of its times; the time between a stop and its resumption counts, too."
        drawn = charts.learning_curves(curves, kinds)
        yield Picture("learning_curves", "Learning curves", drawn, note)
    for task, kind in kinds.items():
        shown = {at[1]: found for at, found in curves.items() if at[0] == task and np.isfinite(found[0].log_prob).any()}
        if shown:
            note = "Each dot is an evaluation during training, each line a seed. The star is the best checkpoint."
            title = f"Score against log-likelihood: {task}"
            yield Picture(f"likelihood_{_file(task)}", title, charts.likelihood(shown, task, kind), note)


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
    head = ["task", "method", "seed", "state", "last", "best", "log-likelihood", "revision", "run"]
    rows = []
    for (task, method), runs in sorted(comparison.runs.items()):
        for run in runs:
            names = f"{LAST}/{{}}_mean", f"{BEST}/{{}}_mean", f"{LAST}/log_prob"
            values = (run.metrics.get(name.format(comparison.kinds[task])) for name in names)
            numbers = ["" if value is None else f"{value:.6g}" for value in values]
            rows.append([task, method, str(run.seed), run.state, *numbers, (run.commit or "")[:8], run.number])
    return Table("runs", "Runs", head, rows, "Every run that counts; last and best as in the tables above.")


def _file(name: str) -> str:
    return "".join(sign if sign.isalnum() else "_" for sign in name)
