"""Runs that go on from one that was shorter: the same but for the updates of the last phase, of which it had less."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from genpolicy.algo.algorithm import Algorithm
from genpolicy.errors import UserError, counted, message
from genpolicy.runs import checkpoint, journal, provenance
from genpolicy.runs.identity import identity, label
from genpolicy.runs.run import Run, load_run
from genpolicy.runs.state import known_status
from genpolicy.training.late import late_points, spread
from genpolicy.training.sharing import differences, evaluations
from genpolicy.training.state import is_of_another_device

AGAIN = ("final", "best/", "late/", "steps/", "evaluation-", "system/")  # begin the names of metrics of a run's end


class Shorter(NamedTuple):
    """A run that is gone on from, as it was when it finished."""

    directory: Path
    steps: int  # updates of its last phase
    saved: dict  # its last checkpoint
    best: dict | None  # its best one, if it has one
    events: list[dict]  # of its journal, what is the longer run's, too
    made: dict[str, str]  # the circumstances that it was trained in


def shorter(run: Run, algorithm: Algorithm, generator: torch.Generator, say: Callable[[str], None]) -> Shorter | None:
    """The longest run that this one goes on from; None without one, or where `say` tells what stands against it.

    generator: the run's, of its kind of device.
    """
    if run.config.phases.reuse is False or not algorithm.phases or algorithm.phases[-1].online:
        return None
    found = _longest(run, algorithm)
    if found is None:
        return None
    other, steps = found
    alike = evaluations(other.config) == evaluations(run.config)
    try:
        if reason := reason_against(algorithm):
            raise UserError(reason)
        if reason := _late_mean_lost(run, algorithm, steps, alike):
            raise UserError(reason)
        begun = _load(other.directory, steps, alike)
        if is_of_another_device(begun.saved, generator):
            raise UserError("it was trained on another kind of device")
        differs = differences(begun.made, run.noted("made", {}))
        if differs and run.config.phases.reuse != "any":
            raise UserError(f"it was trained with {', '.join(differs)}; phases.reuse=any does")
    except UserError as error:
        say(f"does not go on from {label(other.directory)}: {message(error, 200)}")
        return None
    without = "" if alike else "; its evaluations were made otherwise, and are left out"
    say(f"goes on from {label(other.directory)}, after {counted(steps, 'update')} of the last phase{without}")
    return begun


def _longest(run: Run, algorithm: Algorithm) -> tuple[Run, int] | None:
    """The longest run that this one continues, and the updates of its last phase."""
    name = steps_setting(run, algorithm)
    best = None
    for other in _siblings(run):
        if other.config.algo.get(name) is None or other.config.algo[name] >= run.config.algo[name]:
            continue
        steps, config = other.config.algo[name], other.config.copy()
        config.algo[name] = run.config.algo[name]
        same_data = provenance.digest_of(other.directory) == provenance.digest_of(run.directory)
        if identity(config) == identity(run.config) and same_data and (best is None or steps > best[1]):
            best = other, steps
    return None if best is None else (best[0], max(1, round(run.config.budget * best[1])))


def _load(directory: Path, steps: int, alike: bool) -> Shorter:
    """What the run has left; raises `UserError` if something of it is missing or damaged.

    alike: whether its evaluations are the longer run's, too.
    """
    saved = checkpoint.load(last := directory / "last.pt")
    try:
        if not alike:
            saved["state"]["best"] = {}
        best = checkpoint.load(directory / "best.pt") if saved["state"]["best"] else None
        _ = saved["generators"]["run"]
    except (KeyError, TypeError) as error:
        raise checkpoint.mismatch(last, error) from error
    made = known_status(directory).get("made", {"code": "of an earlier version"})
    left_out = AGAIN if alike else (*AGAIN, "eval/")
    events = [_without(event, left_out) for event in journal.events(directory / "journal.jsonl")]
    return Shorter(directory, steps, saved, best, events, made)


def steps_setting(run: Run, algorithm: Algorithm) -> str:
    """The setting of the algorithm that says how long its last phase is."""
    own = f"{algorithm.phases[-1].name}_steps"
    return own if own in run.config.algo else "steps"


def reason_against(algorithm: Algorithm) -> str | None:
    """Why the last phase cannot go on where a shorter one has ended, if it cannot."""
    last = algorithm.phases[-1]
    if any(update.schedule != "constant" for update in last.updates.values()):
        return "the schedule of its learning rate depends on its length"
    if algorithm.objective.scheduled:
        return "what its objective draws depends on its length"
    if algorithm.scheduled:
        return "when it changes its weights depends on its length"
    return None


def _late_mean_lost(run: Run, algorithm: Algorithm, steps: int, alike: bool) -> str | None:
    """Why the late mean would be lost after so many updates of a shorter run, if that is so.

    alike: whether its evaluations are the longer run's, too.
    """
    count, phase = run.config.eval.per_phase, algorithm.phases[-1]
    points = late_points(phase.steps)
    if phase.policy is not algorithm.policy or not points <= {*spread(count, phase.steps)}:
        return None
    lacking = {point for point in points if point <= steps} - ({*spread(count, steps)} if alike else set())
    return f"it was not evaluated after {min(lacking)} updates, as the late mean needs" if lacking else None


def _siblings(run: Run) -> Iterator[Run]:
    """Finished runs of the same study, task, algorithm, model and seed."""
    family = run.directory.parent.name.rpartition("-")[0]
    for directory in sorted(run.directory.parents[1].glob(f"{family}-*/{run.directory.name}")):
        if directory != run.directory and not directory.is_symlink() and known_status(directory)["state"] == "finished":
            try:
                yield load_run(directory)
            except UserError:  # other people's, or of another version
                continue


def _without(event: dict, names: tuple[str, ...]) -> dict:
    """An event of a journal without the metrics whose names begin with these."""
    return event | {"metrics": {name: value for name, value in event["metrics"].items() if not name.startswith(names)}}
