"""`mode=sync`: ship to MLflow, and other trackers, what is missing there."""

from pathlib import Path

from genpolicy.errors import UserError, counted
from genpolicy.runs.identity import label
from genpolicy.runs.job import Job
from genpolicy.runs.run import find_runs
from genpolicy.tracking.sync import settle, sync_all, sync_until_idle
from genpolicy.tracking.trackers import chosen, dashboard, opened


def run(job: Job) -> None:
    """Ships what is missing of all runs below paths.outputs. Raises `UserError` if some fail.

    Without a tracking.uri, runs that name another store than the folder's own are left out, and named. With `follow`
    ships the runs that are tracked in that store, until no run trains or waits for its SLURM job; whatever fails is
    then tried again.
    """
    tracking, outputs = job.config.tracking, Path(job.config.paths.outputs)
    if not chosen(tracking, outputs):
        raise UserError("tracking.uri=none: there is no store to ship to; give a tracking URI, or leave it out")
    if next(find_runs(outputs), None) is None:
        raise UserError(f"{outputs}: no runs there; give paths.outputs=")
    if job.config.follow:
        sync_until_idle(outputs, chosen(tracking, outputs))
        return
    failures, busy, broken = [], False, None
    for tracker in chosen(tracking, outputs):
        name, known = tracker if tracker in tracking.also else "MLflow", {}
        if name == "MLflow":
            try:
                known = opened(tracker, outputs)
            except UserError as error:
                broken = error
                continue
        own = name == "MLflow" and tracking.uri is None  # the folder's own store
        outcome = sync_all(outputs, None if own else tracker, known)
        waiting = f"; {len(outcome.busy)} being shipped by another process" if outcome.busy else ""
        print(f"up to date in {name}: {counted(outcome.shipped, 'run')} of {outputs}{waiting}")
        if outcome.elsewhere:
            first = f"{label(outcome.elsewhere[0])}{', ...' if len(outcome.elsewhere) > 1 else ''}"
            others = f"{counted(len(outcome.elsewhere), 'run')} of another store ({first})"
            print(f"left out: {others}; tracking.uri=... ships them")
        print(*(f"not shipped: {said}" for said in outcome.failures), sep="\n", end="\n" * bool(outcome.failures))
        failures, busy = failures + outcome.failures, busy or bool(outcome.busy)
        if not outcome.failures and (known or outcome.shipped):
            print(f"dashboard: {dashboard(tracker, outputs)}")
    if broken:
        raise broken
    if failures:
        raise UserError(f"{counted(len(failures), 'run')} could not be shipped: {failures[0]}")
    if not busy:
        settle(outputs)
