"""What a report shows of training: learning curves, and score against log-likelihood."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from genpolicy.report.chart import Chart, Mark, Panel, Series
from genpolicy.report.charts import SAID
from genpolicy.report.document import Choice, Picture, file_name
from genpolicy.report.results import BEST, Comparison, Result
from genpolicy.report.sources import History

RATE = "/updates_per_second"  # ends the names of the metric that every phase has
ONLINE_STEPS = "online/environment_steps"
STAGES = PRETRAINING, FINETUNING, ONLINE = "pretraining (behaviour)", "finetuning (policy)", "online"
STAR, RUN = "best checkpoint", "run"
LIKELIHOOD_COLOURS = [*STAGES, STAR, "", "", "", RUN]  # the eighth is grey
UNITS = {"hours": 3600, "minutes": 60, "seconds": 1}


@dataclass(frozen=True, eq=False)
class Curve:
    """The evaluations of one run in training, in order: score or return, log-likelihood, and when each was, [n] each.

    `log_prob` is NaN where there is no density. `stage` is an index of `STAGES`: the behaviour model is evaluated
    before the policy that is made from it. `share` is that of the stage, `seconds` those since training began, `steps`
    those in the simulator, of a run that was evaluated in its online phase. `best` is the index of the evaluation whose
    checkpoint was kept as the best, or None.
    """

    mark: Mark
    share: np.ndarray
    stage: np.ndarray
    score: np.ndarray
    log_prob: np.ndarray
    seconds: np.ndarray
    steps: np.ndarray | None
    best: int | None


Curves = Mapping[tuple[str, str], Sequence[Curve]]


def curves(comparison: Comparison, history: History) -> Curves:
    """The evaluations during training of each run that has any, in whatever state it is, by task and method."""
    found = defaultdict(list)
    for (task, method), runs in comparison.runs.items():
        for run in runs:
            evaluations = () if run.evaluation else history(run.number, f"eval/{comparison.kinds[task]}_mean")
            if evaluations:
                found[task, method].append(_curve(run, comparison.mark(run), evaluations, history))
    return dict(found)


def _curve(run: Result, mark: Mark, evaluations: Sequence[tuple[int, float, int]], history: History) -> Curve:
    updates, score, times = map(np.array, zip(*evaluations, strict=True))
    known = history(run.number, "eval/log_prob") if "eval/log_prob" in run.metrics else ()
    log_prob = {step: value for step, value, _ in known}
    phases = {name.removesuffix(RATE): history(run.number, name) for name in run.metrics if name.endswith(RATE)}
    behaviour = max((step for step, _, _ in phases.get("behaviour", ())), default=0)
    offline = max((step for name, found in phases.items() if name != "online" for step, _, _ in found), default=0)
    played = history(run.number, ONLINE_STEPS) if ONLINE_STEPS in run.metrics else ()
    stage = np.where(updates <= behaviour, 0, 1) + (updates > offline if played else 0)
    begins = [time for name in ("data/episodes",) if name in run.metrics for _, _, time in history(run.number, name)]
    begin = min([*times, *begins, *(time for found in phases.values() for _, _, time in found[:1])])
    steps = None
    if (stage == STAGES.index(ONLINE)).any():
        logged, made, _ = zip(*played, strict=True)
        first = min(_whole(run, "online.start") + 1, made[0])  # before the first update
        steps = np.interp(updates, [offline, offline + 1, *logged], [0, first, *made])
    best = run.metrics.get(f"{BEST}/update")
    return Curve(
        mark,
        _shares(run, stage, updates, [max(step for step, _, _ in found) for found in phases.values() if found]),
        stage,
        score,
        np.array([log_prob.get(update, np.nan) for update in updates]),
        (times - begin) / 1000,
        steps,
        int(np.flatnonzero(updates == best)[0]) if best in updates else None,
    )


def _whole(run: Result, name: str) -> int:
    """A setting that is a whole number; 0 if it is not known."""
    value = run.settings.get(name, "0")
    return int(value) if value.isdecimal() else 0


def _shares(run: Result, stage: np.ndarray, updates: np.ndarray, ends: Sequence[int]) -> np.ndarray:
    """The share of its stage at each evaluation [n]: there are as many as planned, evenly spaced to its end.

    Not so in a stage of which something was taken from another run, one that is shorter. ends: the updates after which
    the phases have ended, as far as they have.
    """
    shares, planned = np.empty(len(stage)), _whole(run, "eval.per_phase")
    for each in range(len(STAGES)):
        done = updates[stage == each]
        rank, ended = np.arange(1, len(done) + 1), run.state == "finished"
        share = rank / (len(rank) if ended else max(planned, len(rank)))
        if ended and len(done) and done[-1] in ends:
            done = done - max((end for end in ends if end < done[0]), default=0)
            if (np.abs(done - done[-1] * share) >= 1).any():
                point = done * planned // done[-1]
                regular = -(-done[-1] * point // max(planned, 1)) == done
                share = np.where(regular, point / max(planned, 1), done / done[-1])
        shares[stage == each] = share
    return shares


def learning_curves(comparison: Comparison, found: Curves) -> Iterator[Choice]:
    """Score over training, by what is chosen: the share of each phase, steps in the simulator, or time."""
    if not found:
        return
    note = (
        "Evaluations during training: mean over seeds, and from the lowest to the highest seed; a thin line is a run."
    )
    timed = " Each stands at the mean of its times; the time between a stop and its resumption counts, too. What a run "
    timed += "has taken from another one stands at the moment when it did."
    drawn = [("by phase", "learning_curves", _by_phase(comparison, found), note)]
    if any(curve.steps is not None for each in found.values() for curve in each):
        drawn.append(("by environment steps", "learning_curves_steps", _by_steps(comparison, found), note))
    drawn.append(("by time", "learning_curves_time", _by_time(comparison, found), note + timed))
    pictures = [Picture(name, title, chart, said) for title, name, chart, said in drawn]
    yield Choice("learning_curves", "Learning curves", pictures)


def _tasks(comparison: Comparison, found: Curves) -> list[str]:
    return [task for task in comparison.tasks if any(at[0] == task for at in found)]


def _by_phase(comparison: Comparison, found: Curves) -> Chart:
    """The phases side by side, each from its beginning to its end: what those of two methods cost is not the same."""
    panels = []
    for task in _tasks(comparison, found):
        stages = sorted({int(s) for at, each in found.items() if at[0] == task for curve in each for s in curve.stage})
        if stages == [STAGES.index(FINETUNING)]:
            axis = {"xlabel": "share of the phase that trains the policy", "percent": True, "xlim": (0, 1.05)}
        else:
            names = [STAGES[stage].partition(" ")[0] for stage in stages]
            axis = {"xlabel": "phase", "xticks": [(i + 0.5, name) for i, name in enumerate(names)]}
            axis |= {"xlim": (0, len(stages) + 0.05), "borders": range(1, len(stages))}
        order = np.array([stages.index(stage) if stage in stages else 0 for stage in range(len(STAGES))])
        series = _series(found, task, lambda curve, order=order: curve.share + order[curve.stage])
        panels.append(Panel(task, ylabel=SAID[comparison.kinds[task]], series=series, **axis))
    return Chart(panels, comparison.methods)


def _by_steps(comparison: Comparison, found: Curves) -> Chart:
    """From the last evaluation before the online phase on."""
    online = STAGES.index(ONLINE)
    panels = []
    for task in _tasks(comparison, found):
        stepped = {at: [curve for curve in each if curve.steps is not None] for at, each in found.items()}
        series = _series(
            stepped,
            task,
            lambda curve: curve.steps,
            lambda curve: (curve.stage == online) | np.append(curve.stage[1:] == online, False),
        )
        if series:
            label = SAID[comparison.kinds[task]]
            panels.append(Panel(task, "steps in the simulator", label, series, xlim=(0, None)))
    return Chart(panels, comparison.methods)


def _by_time(comparison: Comparison, found: Curves) -> Chart:
    longest = max(curve.seconds[-1] for each in found.values() for curve in each)
    unit = next(unit for unit, size in UNITS.items() if longest >= 2 * size or size == 1)
    panels = []
    for task in _tasks(comparison, found):
        series = _series(found, task, lambda curve: curve.seconds / UNITS[unit])
        label = SAID[comparison.kinds[task]]
        panels.append(Panel(task, f"wall-clock time ({unit})", label, series, xlim=(0, None)))
    return Chart(panels, comparison.methods)


def _series(
    found: Curves,
    task: str,
    place: Callable[[Curve], np.ndarray],
    shown: Callable[[Curve], np.ndarray] = lambda curve: np.full(len(curve.score), True),
) -> list[Series]:
    """Of each method on a task the mean of its seeds at the same point of training, and each run as a thin line.

    No mean is taken where a seed that comes further has no value, as of a phase that it has taken from another run.
    """
    series = []
    for (at, method), each in sorted(found.items()):
        if at != task or not each:
            continue
        together, ends = defaultdict(list), []
        for curve in each:
            chosen, x = shown(curve), place(curve)
            series.append(Series(method, x[chosen], curve.score[chosen], runs=[curve.mark], thin=True))
            points = [(curve.stage[i], curve.share[i]) for i in np.flatnonzero(chosen)]
            ends += points[-1:]
            for point, at, score in zip(points, x[chosen], curve.score[chosen], strict=True):
                together[point].append((at, score))
        common = [point for point in sorted(together) if len(together[point]) == sum(end >= point for end in ends)]
        x, y = zip(*(zip(*together[point], strict=True) for point in common), strict=True)
        mean, low, high = (list(map(of, y)) for of in (np.mean, min, max))
        series.append(Series(method, list(map(np.mean, x)), mean, low, high))
    return series


def likelihood(comparison: Comparison, found: Curves) -> Iterator[Picture]:
    """Score against log-likelihood during training, as Figure 1 of the GMPO and GMPG paper; a panel for each method.

    Pretraining and what follows are coloured apart, the best checkpoint of each run is marked.
    """
    for task in _tasks(comparison, found):
        shown = {at[1]: each for at, each in found.items() if at[0] == task and np.isfinite(each[0].log_prob).any()}
        panels = []
        for method, each in sorted(shown.items()):
            series = []
            for curve in each:
                series.append(Series(RUN, curve.log_prob, curve.score, runs=[curve.mark], thin=True))
                for stage, name in enumerate(STAGES):
                    if (part := curve.stage == stage).any():
                        at = curve.log_prob[part], curve.score[part]
                        series.append(Series(name, *at, style="points", runs=[curve.mark]))
                if curve.best is not None:
                    at = [curve.log_prob[curve.best]], [curve.score[curve.best]]
                    series.append(Series(STAR, *at, style="stars", runs=[curve.mark]))
            label = SAID[comparison.kinds[task]]
            panels.append(Panel(method, "log-likelihood of the data (nats)", label, series))
        if panels:
            limits = tuple(_joint(panels, each) for each in (Panel.xrange, Panel.yrange))
            panels = [replace(panel, xlim=limits[0], ylim=limits[1]) for panel in panels]
            note = "Each dot is an evaluation during training, each line a seed. The star is the best checkpoint."
            title = f"Score against log-likelihood: {task}"
            yield Picture(f"likelihood_{file_name(task)}", title, Chart(panels, LIKELIHOOD_COLOURS, shared=True), note)


def _joint(panels: Sequence[Panel], ends: Callable[[Panel], tuple[float, float]]) -> tuple[float, float]:
    """The range that holds all panels', with a little room."""
    lows, highs = zip(*map(ends, panels), strict=True)
    room = 0.04 * (max(highs) - min(lows))
    return min(lows) - room, max(highs) + room
