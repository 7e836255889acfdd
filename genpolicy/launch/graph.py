"""Which phases the runs of a sweep share, and so in which order they are trained: each phase once, and first."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from genpolicy.config.schema import always_training, digest
from genpolicy.errors import UserError
from genpolicy.runs.identity import label
from genpolicy.runs.run import claim_run
from genpolicy.runs.state import known_status
from genpolicy.system.files import last_line
from genpolicy.training.memory import PARTS


@dataclass(frozen=True)
class Task:
    """A run directory that is to be trained, to its end or until one of its phases is; `after` others have ended.

    waiting: the runs that cannot be trained if this fails.
    """

    run: Path
    until: str | None = None
    after: tuple[Task, ...] = ()
    waiting: tuple[Path, ...] = ()

    @property
    def words(self) -> list[str]:
        """How `genpolicy.launch.worker` is told of it."""
        return [str(self.run), *filter(None, [self.until])]


def tasks(runs: Mapping[Path, DictConfig]) -> list[Task]:
    """What is to be done for runs of these configurations, in an order in which each task follows those it waits for.

    A phase that several of them share is a task of its own: one of the runs trained until then.
    """
    wanted = {run: _wanted(run, config) for run, config in runs.items()}
    count = Counter(key for own in wanted.values() for key in own.values())
    shared = {run: {name: key for name, key in own.items() if count[key] > 1} for run, own in wanted.items()}
    leaders: dict[str, Path] = {}  # of each shared phase: the run that trains it
    for run in sorted(runs, key=lambda run: -len(shared[run])):  # who has all is told of none by others
        for key in shared[run].values():
            leaders.setdefault(key, run)
    made: dict[Path, Task] = {}

    def leading(run: Path) -> Task:
        if run not in made:
            own = [name for name, key in shared[run].items() if leaders[key] == run]
            names = list(shared[run])
            needed = names[: names.index(own[-1])]
            before = dict.fromkeys(leaders[shared[run][name]] for name in needed)
            after = tuple(leading(leader) for leader in before if leader != run)
            made[run] = Task(run, own[-1], after)
        return made[run]

    last = [
        Task(
            run, None, tuple(leading(leader) for leader in dict.fromkeys(leaders[key] for key in shared[run].values()))
        )
        for run in runs
    ]
    phases = list(made.values())
    follow = {task: tuple(run.run for run in last if task in _all_before(run)) for task in phases}
    # The same tasks again, which now know who waits for them.
    known: dict[Task, Task] = {}
    for task in [*phases, *last]:
        after = tuple(known[before] for before in task.after)
        known[task] = Task(task.run, task.until, after, follow.get(task, ()))
    return list(known.values())


def _all_before(task: Task) -> set[Task]:
    return {task} | {each for before in task.after for each in _all_before(before)}


def _wanted(run: Path, config: DictConfig) -> dict[str, str]:
    """The phases that a run may share and has not got yet: by name, what tells whether they are the same."""
    if config.phases.reuse is False or config.seeds:
        return {}
    had = known_status(run).get("phases", {})
    parts = {name: OmegaConf.to_container(config[name]) for name in PARTS}
    parts |= {"budget": config.budget, "precision": config.precision, "init": {"digests": dict(config.init.digests)}}
    recipes = _recipes(json.dumps(parts, sort_keys=True))
    data = [always_training(config[name]) for name in ("env", "dataset")]
    return {name: digest([recipe, data, config.seed]) for name, recipe in recipes.items() if name not in had}


@functools.lru_cache(maxsize=1000)
def _recipes(parts: str) -> dict[str, str]:
    """The phases that components share, by name: the digest of their recipe."""
    import torch

    from genpolicy.algo.algorithm import assemble
    from genpolicy.runs import phases
    from genpolicy.training.setup import shorten

    config, end = OmegaConf.create(json.loads(parts)), torch.ones(1)  # no simulator is needed for its sizes
    with torch.device("meta"):
        algorithm = shorten(assemble(config, 1, -end, end), config)
    arithmetic = {phase.name: "float32" if phase.exact else config.precision for phase in algorithm.phases}
    found = {name: phases.recipe(config, algorithm.phases, name) for name in arithmetic}
    rest = OmegaConf.to_container(config.scaling)
    return {name: digest([made, rest, arithmetic[name]]) for name, made in found.items() if made is not None}


def failed(task: Task) -> None:
    """Says in the status of the runs that wait for a task that they cannot be trained, and why."""
    reason = known_status(task.run).get("reason") or last_line(task.run / "log.txt")
    for directory in task.waiting:
        if directory == task.run:
            continue  # which says why itself
        try:
            run = claim_run(directory, timeout=1.0)
        except UserError:
            continue  # somebody else has it
        run.note(state="failed", reason=f"the {task.until} phase failed in {label(task.run)}: {reason}")
        run.close()


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
