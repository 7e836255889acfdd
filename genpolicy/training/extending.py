"""Runs that go on from one that was shorter: the same but for the updates of the last phase, of which it had less."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genpolicy.algo.algorithm import Algorithm
from genpolicy.errors import UserError
from genpolicy.runs import checkpoint, journal, provenance
from genpolicy.runs.identity import identity
from genpolicy.runs.run import Run, load_run
from genpolicy.runs.state import known_status

AGAIN = ("final", "best/", "late/", "steps/", "evaluation-", "system/")  # begin the names of metrics of a run's end


def shorter(run: Run, algorithm: Algorithm) -> tuple[Path, int] | None:
    """The directory of the longest run that this one continues, and the updates of its last phase; None without one."""
    if run.config.phases.reuse is False or not algorithm.phases or algorithm.phases[-1].online:
        return None
    name = steps_setting(run, algorithm)
    best = None
    for other in _siblings(run):
        if other.config.algo.get(name) is None or other.config.algo[name] >= run.config.algo[name]:
            continue
        steps, config = other.config.algo[name], other.config.copy()
        config.algo[name] = run.config.algo[name]
        same_data = provenance.digest_of(other.directory) == provenance.digest_of(run.directory)
        if identity(config) == identity(run.config) and same_data and (best is None or steps > best[1]):
            best = other.directory, steps
    if best is None:
        return None
    return best[0], max(1, round(run.config.budget * best[1]))


def load(directory: Path) -> tuple[dict, list[dict], dict | None]:
    """The last checkpoint of a run that is gone on from, its journal's events, and its best checkpoint, if it has one.

    Raises `UserError` if one of them is missing or damaged.
    """
    saved = checkpoint.load(last := directory / "last.pt")
    try:
        best = checkpoint.load(directory / "best.pt") if saved["state"]["best"] else None
        _ = saved["generators"]["run"]
    except (KeyError, TypeError) as error:
        raise checkpoint.mismatch(last, error) from error
    return saved, journal.events(directory / "journal.jsonl"), best


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


def _siblings(run: Run) -> Iterator[Run]:
    """Finished runs of the same study, task, algorithm, model and seed."""
    family = run.directory.parent.name.rpartition("-")[0]
    for directory in sorted(run.directory.parents[1].glob(f"{family}-*/{run.directory.name}")):
        if directory != run.directory and not directory.is_symlink() and known_status(directory)["state"] == "finished":
            try:
                yield load_run(directory)
            except UserError:  # other people's, or of another version
                continue


def kept(event: dict) -> dict:
    """The metrics of an event of the shorter run that are the longer one's, too."""
    return {name: value for name, value in event["metrics"].items() if not name.startswith(AGAIN)}
