"""What a reader asks first: which method is best, by how much, and whether the numbers can say so."""

from collections.abc import Mapping

from genpolicy.report import statistics
from genpolicy.report.document import Text
from genpolicy.report.results import LAST, Comparison
from genpolicy.report.statistics import Estimate, Scores


def headline(comparison: Comparison, methods: Mapping[str, Scores]) -> Text:
    """One sentence, and what limits it.

    methods: each method's scores on the tasks that all have; empty if there is none.
    """
    what = "IQM of normalised scores"
    if not methods and len(comparison.tasks) == 1 and comparison.kinds[comparison.tasks[0]] == "return":
        (task,) = comparison.tasks
        methods, what = _returns(comparison, task), "IQM of returns"
    return Text("headline", "In one sentence", [*_sentences(comparison, methods, what)])


def _returns(comparison: Comparison, task: str) -> dict[str, Scores]:
    """The returns on the only task, if every method has some."""
    cells = {method: comparison.cell(task, method, f"{LAST}/return_mean").values for method in comparison.methods}
    return {method: [values] for method, values in cells.items()} if all(map(len, cells.values())) else {}


def _sentences(comparison: Comparison, methods: Mapping[str, Scores], what: str) -> list[str]:
    if not methods:
        why = "there is no task on which the last checkpoint of every method was evaluated"
        if comparison.apart():
            why = "the runs are of different protocols"
        elif len(comparison.tasks) > 1 and all(kind == "return" for kind in comparison.kinds.values()):
            why = "returns of different tasks have no common scale"
        return [f"No method can be called the best over all tasks: {why}. The tables below compare them task by task."]
    reached = {name: statistics.estimate(statistics.iqm, scores) for name, scores in methods.items()}
    best, *others = sorted(reached, key=lambda name: -reached[name].value)
    count = len(methods[best])
    where = f"over {count} task{'s' * (count > 1)}" if what.endswith("scores") else f"on {comparison.tasks[0]}"
    if not others:
        return [f"{best} is the only method: {what} {_told(reached[best])} ({where}).", *_limits(comparison, methods)]
    second = others[0]
    lead = statistics.estimate(statistics.difference, methods[best], methods[second])
    first = f"{best} has the highest {what} {where}: {_told(reached[best])}, {_told(lead)} above {second} "
    first += f"({_told(reached[second])})."
    return [f"{first} {_verdict(lead, best, second, methods)}", *_limits(comparison, methods)]


def _told(estimate: Estimate) -> str:
    if estimate.interval is None:
        return f"{estimate.value:.1f}"
    low, high = estimate.interval
    return f"{estimate.value:.1f} [{low:.1f}, {high:.1f}]"


def _verdict(lead: Estimate, best: str, second: str, methods: Mapping[str, Scores]) -> str:
    if lead.interval is None:
        fewest = min(len(task) for name in (best, second) for task in methods[name])
        seeds = f"{fewest} seed{'s' * (fewest > 1)}"
        return (
            f"With {seeds} on a task there is no interval ({statistics.FEWEST_SEEDS} are needed): this may be chance."
        )
    if lead.interval[0] > 0:
        return "The 95 % interval of the difference excludes 0."
    return "The 95 % interval of the difference includes 0: these runs do not tell the two apart."


def _limits(comparison: Comparison, methods: Mapping[str, Scores]) -> list[str]:
    """What a reader must know of how the sentence was come by."""
    lines = []
    tasks, count = len(comparison.tasks), len(next(iter(methods.values())))
    if count < tasks:
        lines.append(f"Of {tasks} tasks {count} count: those on which every method has a score.")
    lacking = comparison.lacks(f"{LAST}/{{kind}}_mean")
    if lacking:
        lines.append("Some runs are missing, have failed or have no score: see the warnings.")
    tuned = {}
    for (_, method), runs in comparison.runs.items():
        tuned.setdefault(runs[0].base, set()).add(method)
    several = [f"{base} ({len(names)})" for base, names in sorted(tuned.items()) if len(names) > 1 and len(tuned) > 1]
    if several:
        lines.append(
            f"Settings were chosen by these very scores: more than one configuration counts of {', '.join(several)}."
        )
    if methods and any(scores for scores in methods.values()):
        seeds = sorted({len(task) for scores in methods.values() for task in scores})
        said = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        unit = "seed" if seeds[-1] == 1 else "seeds"
        lines.append(
            f"Last checkpoints, {said} {unit} a task. IQM: the mean of the middle half of all runs; in brackets 95 % "
            "intervals of the stratified bootstrap, for these tasks."
        )
    return lines
