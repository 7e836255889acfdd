"""Which phases the runs of a sweep share, and so in which order they are trained: each phase once, and first."""

from __future__ import annotations

import contextlib
import functools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from genpolicy.config.schema import TARGET, always_training, digest
from genpolicy.errors import UserError
from genpolicy.runs.identity import label
from genpolicy.runs.run import claim_run
from genpolicy.runs.state import known_status
from genpolicy.system.files import last_line
from genpolicy.training.memory import PARTS


@dataclass(frozen=True)
class Task:
    """A run directory that is to be trained, to its end or until a phase is, once `after` others have succeeded."""

    run: Path
    until: str | None = None
    after: tuple[Task, ...] = ()

    @property
    def words(self) -> list[str]:
        """How `genpolicy.launch.worker` is told of it."""
        return [str(self.run), *filter(None, [self.until])]

    def follows(self, other: Task) -> bool:
        """Whether it cannot be done if another task fails."""
        return any(before == other or before.follows(other) for before in self.after)


def tasks(runs: Mapping[Path, DictConfig]) -> list[Task]:
    """What is to be done for runs of these configurations, each task after those that it waits for.

    A phase that several of the runs share is a task of its own: one of them trained until then.
    """
    wanted = {run: _wanted(run, config) for run, config in runs.items()}
    count = Counter(key for own in wanted.values() for key in own.values())
    shared = {run: {name: key for name, key in own.items() if count[key] > 1} for run, own in wanted.items()}
    leaders: dict[str, Path] = {}  # of each shared phase: the run that trains it

    def precedence(run: Path) -> tuple[bool, int]:
        """First those that evaluate their policy while a shared phase is trained, which they would miss otherwise."""
        evaluates = bool(shared[run]) and not shared[run].keys().isdisjoint(_shareable(runs[run]).of_the_policy)
        return not evaluates, len(shared[run]) if evaluates else -len(shared[run])

    for run in sorted(runs, key=precedence):  # in one order for all phases, so no two wait for each other
        for key in shared[run].values():
            leaders.setdefault(key, run)
    phases: dict[Path, Task] = {}

    def leading(keys: Iterable[str], besides: Path | None = None) -> tuple[Task, ...]:
        """The tasks that train phases."""
        return tuple(until_the_last(run) for run in dict.fromkeys(leaders[key] for key in keys) if run != besides)

    def until_the_last(run: Path) -> Task:
        """The task of a leader: until the last phase that it trains for others."""
        if run not in phases:
            keys = list(shared[run].values())
            last = max(number for number, key in enumerate(keys) if leaders[key] == run)
            phases[run] = Task(run, list(shared[run])[last], leading(keys[:last], besides=run))
        return phases[run]

    ends = [Task(run, None, leading(shared[run].values())) for run in runs]
    return [*phases.values(), *ends]


def dependents(task: Task, todo: Iterable[Task]) -> list[Path]:
    """The runs, beside its own, that cannot be trained if a task fails."""
    if task.until is None:
        return []
    return [other.run for other in todo if other.until is None and other.follows(task) and other.run != task.run]


def _wanted(run: Path, config: DictConfig) -> dict[str, str]:
    """The phases that a run may share and has not got yet: by name, what tells whether they are the same."""
    if config.phases.reuse is False or config.seeds:
        return {}
    status = known_status(run)
    if status["state"] == "finished":
        return {}
    had = status.get("phases", {})
    recipes = _shareable(config).recipes
    data = [always_training(config[name]) for name in ("env", "dataset")]
    return {name: digest([recipe, data, config.seed]) for name, recipe in recipes.items() if name not in had}


class _Shareable(NamedTuple):
    """The phases that runs of a configuration may share: by name, the digest of their recipe.

    of_the_policy: the names of those in which the run's policy is evaluated.
    """

    recipes: dict[str, str]
    of_the_policy: set[str]


def _shareable(config: DictConfig) -> _Shareable:
    parts = {name: OmegaConf.to_container(config[name]) for name in PARTS}
    parts |= {"budget": config.budget, "precision": config.precision, "init": {"digests": dict(config.init.digests)}}
    parts |= {"observation_parts": list(config.observation_parts)}
    parts |= {"online": OmegaConf.to_container(config.online), "dataset": {TARGET: config.dataset[TARGET]}}
    return _shareable_of(json.dumps(parts, sort_keys=True))


@functools.lru_cache(maxsize=1000)
def _shareable_of(parts: str) -> _Shareable:
    """Of the settings that matter, as JSON."""
    import torch

    from genpolicy.algo.algorithm import assemble
    from genpolicy.runs import phases
    from genpolicy.training.setup import shorten

    config, end = OmegaConf.create(json.loads(parts)), torch.ones(1)  # no simulator is needed for its sizes
    with torch.device("meta"):
        algorithm = shorten(assemble(config, sum(config.observation_parts) or 1, -end, end), config)
    arithmetic = {phase.name: phase.precision(config.precision) for phase in algorithm.phases}
    found = {name: phases.recipe(config, algorithm.phases, name) for name in arithmetic}
    rest = OmegaConf.to_container(config.scaling)
    return _Shareable(
        {name: digest([made, rest, arithmetic[name]]) for name, made in found.items() if made is not None},
        {phase.name for phase in algorithm.phases if phase.policy is algorithm.policy},
    )


def tell(task: Task, waiting: Iterable[Path]) -> None:
    """Says in the status of runs that cannot be trained, as a task has failed, why."""
    reason = known_status(task.run).get("reason") or last_line(task.run / "log.txt")
    for directory in waiting:
        # Somebody else may have it, or the disk be full.
        with contextlib.suppress(UserError), contextlib.closing(claim_run(directory, timeout=1.0)) as run:
            if not run.finished:  # as one is that was to be evaluated
                run.fail(f"the {task.until} phase failed in {label(task.run)}: {reason}")


def drawing(found: Sequence[Task], titles: Mapping[Path, str]) -> list[str]:
    """The tasks as lines, each with those that it waits for; none if nothing is shared."""
    if not any(task.until for task in found):
        return []
    numbers = {task: number for number, task in enumerate(found)}
    lines = []
    for task, number in numbers.items():
        after = f", after {', '.join(str(numbers[before]) for before in task.after)}" if task.after else ""
        lines.append(f"  {number}: {title(task, titles)}{after}")
    return ["shared phases are trained once:", *lines]


def title(task: Task, titles: Mapping[Path, str]) -> str:
    """What people call a task, by what they call its run."""
    return titles[task.run] + (f" until the end of its {task.until} phase" if task.until else "")
