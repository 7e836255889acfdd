"""The runs of a study, put in order: tasks, methods, seeds."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from genpolicy.config.schema import TARGET
from genpolicy.report.chart import Mark
from genpolicy.runs.identity import INCIDENTAL, NO_METRIC
from genpolicy.runs.protocol import protocol, subtask

# Metrics of the last checkpoint, of the last evaluations during training together, and of the best of them.
LAST, LATE, BEST = "final", "late", "best"


@dataclass(frozen=True)
class Result:
    """One training run. `number` is its id where it was read: MLflow's, or its directory below the study's.

    `metrics` holds the last value of each metric, `created` orders runs in time. evaluation: begins the names of its
    metrics in the journal where it is a later evaluation of the run's policy, by other settings.
    """

    number: str
    directory: str
    created: int
    state: str
    reason: str
    seed: int
    choices: Mapping[str, str]
    settings: Mapping[str, str]
    commit: str | None
    metrics: Mapping[str, float]
    evaluation: str = ""

    @property
    def task(self) -> str:
        """The task's name, and its setup, if it is not the usual one."""
        return self.name + (f" ({self.setup})" if self.setup else "")

    @property
    def name(self) -> str:
        """That of the task's option, or of the environment registered with gymnasium."""
        return self.settings.get("env.id", self.choices["env"])

    @property
    def protocol(self) -> str:
        """What is not as in the usual protocol of the task."""
        return protocol(self.known)

    @property
    def setup(self) -> str:
        """Which task of several it is, and the protocol: rows of tables are apart by both."""
        return ", ".join(filter(None, (subtask(self.known), self.protocol)))

    @property
    def base(self) -> str:
        """The algorithm and the model, as in the run's name."""
        return f"{self.choices['algo']}-{self.choices['model']}"

    @property
    def configuration(self) -> frozenset[tuple[str, str]]:
        """What is the same for all seeds: the options of the groups, and the settings."""
        settings = ((name, value) for name, value in self.settings.items() if name not in INCIDENTAL | NO_METRIC)
        return frozenset([*self.choices.items(), *settings])

    def known(self, name: str) -> str | None:
        """The option of a group, or the value of a setting."""
        return self.choices.get(name, self.settings.get(name))


@dataclass(frozen=True)
class Cell:
    """What the seeds of one method reached on one task: `values` [seeds], and why each other seed has no value."""

    values: np.ndarray
    lacking: Mapping[int, str]

    def text(self, digits: int, none: str) -> str:
        """'85.2 ± 3.1', with the number of seeds where some are missing: '85.2 ± 3.1 (2 of 3)'; `none` without any."""
        if not len(self.values):
            return none
        shown = f"{self.values.mean():.{digits}f}"
        if len(self.values) > 1:
            shown += f" ± {self.values.std(ddof=1):.{digits}f}"
        return shown + (f" ({len(self.values)} of {len(self.values) + len(self.lacking)})" if self.lacking else "")


class Comparison:
    """The runs of a study by task and method.

    `tasks` and `methods` are in order of their names, `seeds` all that any run has. `protocols` are those of tasks.
    `listed` has each run that counts, with its task and method, in the order in which the report lists them.
    `kinds` says by which metric a task is judged: its normalised 'score' or, where it has no references, its 'return'.
    Of two runs of the same settings and seed the newer finished one counts; `duplicates` says which were left out.
    """

    def __init__(self, results: Iterable[Result]):
        by_identity = defaultdict(list)
        for result in aligned(results):
            by_identity[result.task, result.configuration, result.seed].append(result)
        chosen, self.duplicates = [], []
        for same in by_identity.values():
            best = max(same, key=lambda result: (result.state == "finished", result.created))
            chosen.append(best)
            if len(same) > 1:
                told = f"{best.base} {best.task} s{best.seed}"
                self.duplicates.append(f"{told}: {len(same)} runs; the newest that has finished counts")
        self.words = distinguishing(chosen)
        self.runs: dict[tuple[str, str], list[Result]] = defaultdict(list)
        for result in sorted(chosen, key=lambda result: result.seed):
            self.runs[result.task, self.label(result)].append(result)
        self.listed = [(*at, run) for at, runs in sorted(self.runs.items()) for run in runs]
        self._rows = {id(run): row for row, (_, _, run) in enumerate(self.listed)}
        self.tasks = sorted({task for task, _ in self.runs})
        self.methods = sorted({method for _, method in self.runs})
        self.seeds = sorted({result.seed for result in chosen})
        scored = {task for task, _, run in self.listed if any(name.endswith("/score_mean") for name in run.metrics)}
        self.protocols = {task: runs[0].protocol for (task, _), runs in self.runs.items()}
        self.kinds = {task: "score" if task in scored else "return" for task in self.tasks}

    def label(self, result: Result) -> str:
        """What the method of a run is called: its algorithm and model, and what else tells it from others of these."""
        words = (f"{name}={result.known(name)}" for name in self.words[result.base])
        return " ".join([result.base, *words])

    def mark(self, run: Result) -> Mark:
        """A run as charts show it."""
        task, method, _ = self.listed[row := self._rows[id(run)]]
        return Mark(row, f"{method}, {task}, seed {run.seed}")

    def behaviour(self, task: str, method: str | None = None) -> float | None:
        """The mean score (or return) of the data's own episodes on a task, that of a method's runs or that of all.

        None if it is not known, or if these runs are of different data.
        """
        found = self._data(task, method)
        return found[0] if len(found) == 1 else None

    def mixed(self) -> list[str]:
        """Which methods have runs of different data on a task, which a file may hold that was replaced between them."""
        return [
            f"{method} on {task}: runs of different data, whose own episodes have the means {', '.join(means)}"
            for task, method in sorted(self.runs)
            if len(means := [f"{mean:.6g}" for mean in self._data(task, method)]) > 1
        ]

    def _data(self, task: str, method: str | None) -> list[float]:
        """The different means of the data of these runs, but for what machines may differ by."""
        metric, found = f"data/{self.kinds[task]}_mean", []
        runs = (run for at, name, run in self.listed if at == task and method in (None, name))
        for value in filter(math.isfinite, (run.metrics.get(metric, math.nan) for run in runs)):
            if not any(math.isclose(value, other, rel_tol=1e-6, abs_tol=1e-6) for other in found):
                found.append(value)
        return found

    @property
    def checkpoints(self) -> list[str]:
        """What of a run is reported: the last and the best checkpoint, and, if any has it, the late mean."""
        late = any(name.startswith(f"{LATE}/") for runs in self.runs.values() for run in runs for name in run.metrics)
        return [LAST, *([LATE] if late else []), BEST]

    def cell(self, task: str, method: str, metric: str) -> Cell:
        """The values of a metric, whose name may have {kind} in it, of one method on one task."""
        metric = metric.format(kind=self.kinds[task])
        values, lacking = [], dict.fromkeys(self.seeds, "no run")
        for run in self.runs.get((task, method), ()):
            value = run.metrics.get(metric)
            if run.state != "finished":
                lacking[run.seed] = f"{run.state}: {run.reason}" if run.reason else run.state
            elif value is None:
                lacking[run.seed] = f"no {metric}"
            elif not math.isfinite(value):
                lacking[run.seed] = f"{metric} is {value}"
            else:
                values.append(value)
                del lacking[run.seed]
        return Cell(np.array(values), lacking)

    def common(self, metric: str) -> list[str]:
        """The tasks with scores on which every method has at least one value: aggregates are taken over these.

        None if these are of different protocols.
        """
        scored = (task for task in self.tasks if self.kinds[task] == "score")
        found = [task for task in scored if all(len(self.cell(task, each, metric).values) for each in self.methods)]
        return found if len({self.protocols[task] for task in found}) < 2 else []

    def apart(self) -> list[str]:
        """Which tasks have numbers of different protocols, and that these are not compared."""
        by_name = defaultdict(set)
        for (task, _), runs in self.runs.items():
            by_name[runs[0].name].add(self.protocols[task])
        lines = [
            f"{name}: runs of different protocols are in rows of their own, and not to be compared: "
            + ", ".join(sorted(protocol or "as published" for protocol in protocols))
            for name, protocols in sorted(by_name.items())
            if len(protocols) > 1
        ]
        if len(found := {protocol for protocols in by_name.values() for protocol in protocols}) > 1:
            told = ", ".join(sorted(protocol or "as published" for protocol in found))
            lines.append(f"no mean or statistic over tasks of different protocols ({told}): give report.filter")
        return lines

    def lacks(self, metric: str) -> list[str]:
        """What has no value and why, each seed: nothing is averaged over without a word."""
        lines = []
        for task in self.tasks:
            for method in self.methods:
                seeds = defaultdict(list)
                for seed, reason in self.cell(task, method, metric).lacking.items():
                    seeds[reason].append(str(seed))
                for reason, which in seeds.items():
                    lines.append(f"{method} on {task}, seed{'s' * (len(which) > 1)} {', '.join(which)}: {reason}")
        return lines

    def differences(self) -> list[tuple[str, dict[tuple[str, str], str]]]:
        """Each setting in which methods differ on the same task, with its value by (task, method)."""
        found = []
        names = {name for runs in self.runs.values() for name in (*runs[0].choices, *runs[0].settings)}
        for name in sorted(names - INCIDENTAL - NO_METRIC, key=_choices_first(self.runs)):
            values = {at: value for at, runs in self.runs.items() if (value := runs[0].known(name)) is not None}
            if any(len({values.get(at) for at in self.runs if at[0] == task}) > 1 for task in self.tasks):
                found.append((name, values))
        return found


def aligned(results: Iterable[Result]) -> list[Result]:
    """The runs; where those of one experiment, in one folder, come from versions with other settings, each has all.

    What such a setting is to a run that does not know it, those that do agree on: by another value of it that meant
    anything to their weights they would be in another folder.
    """
    together = defaultdict(list)
    for result in results:
        classes = frozenset(item for item in result.settings.items() if item[0].endswith(TARGET))
        folder = result.directory.rpartition("/")[0] or result.number  # of no known folder: it alone
        together[folder, result.evaluation, frozenset(result.choices.items()), classes].append(result)
    found = []
    for same in together.values():
        values = defaultdict(set)
        for name, value in (item for each in same for item in each.settings.items()):
            values[name].add(value)
        agreed = {name: value for name, (value, *others) in values.items() if not others}
        found += [replace(each, settings=agreed | dict(each.settings)) for each in same]
    return found


def distinguishing(results: Sequence[Result]) -> dict[str, list[str]]:
    """For each algorithm and model, the options and settings that tell its configurations apart on the same task.

    Options of groups come before settings; a name that separates no more than those before it is left out.
    """
    groups = defaultdict(dict)
    for result in results:
        groups[result.base, result.task][result.configuration] = result
    words: dict[str, list[str]] = defaultdict(list)
    for (base, _), configurations in groups.items():
        found = list(configurations.values())
        names = {name for each in found for name in (*each.choices, *each.settings)} - INCIDENTAL - NO_METRIC
        apart = len({_values(each, words[base]) for each in found})
        for name in sorted(names, key=_choices_first({0: found})):
            if apart == len(found):
                break
            more = len({_values(each, [*words[base], name]) for each in found})
            if more > apart:
                words[base].append(name)
                apart = more
    return words


def _values(result: Result, names: Sequence[str]) -> tuple:
    return tuple(result.known(name) for name in names)


def _choices_first(runs: Mapping) -> Callable[[str], tuple]:
    """An order of names: options of groups before settings."""
    choices = {name for found in runs.values() for run in found for name in run.choices}
    return lambda name: (name not in choices, name)
