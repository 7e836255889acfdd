"""`mode=sync`: ship to MLflow what is missing there."""

from pathlib import Path

from genpolicy.errors import UserError
from genpolicy.runs.identity import label
from genpolicy.runs.job import Job
from genpolicy.runs.run import find_runs
from genpolicy.tracking.follower import dashboard, look_at, settle, store_uri, sync_all, sync_until_idle


def run(job: Job) -> None:
    """Ships what is missing of all runs below paths.outputs. Raises `UserError` if some fail.

    Without a tracking.uri, runs that name another store than the folder's own are left out, and named. With `follow`
    ships the runs that are tracked in that store, until no run trains or waits for its SLURM job; whatever fails is
    then tried again.
    """
    config = job.config
    outputs = Path(config.paths.outputs)
    if config.tracking.uri == "none":
        raise UserError("tracking.uri=none: there is no store to ship to; give a tracking URI, or leave it out")
    if next(find_runs(outputs), None) is None:
        raise UserError(f"{outputs}: no runs there; give paths.outputs=")
    if config.follow:
        sync_until_idle(outputs, config.tracking.uri)
        return
    stores: dict = {}
    outcome = sync_all(outputs, config.tracking.uri, stores)
    busy = f"; {len(outcome.busy)} being shipped by another process" if outcome.busy else ""
    print(f"{outcome.shipped} runs of {outputs} are up to date in MLflow{busy}")
    if outcome.elsewhere:
        first = f"{label(outcome.elsewhere[0])}{', ...' if len(outcome.elsewhere) > 1 else ''}"
        print(f"left out: {len(outcome.elsewhere)} runs that name another store ({first}); tracking.uri=... ships them")
    if outcome.failures:
        print(*(f"not shipped: {said}" for said in outcome.failures), sep="\n", flush=True)
        raise UserError(f"{len(outcome.failures)} runs could not be shipped: {outcome.failures[0]}")
    if not outcome.busy:
        settle(outputs)
    if not stores:
        look_at(store_uri(config.tracking.uri, outputs), outputs)
    for uri in stores or [store_uri(config.tracking.uri, outputs)] * bool(outcome.shipped):
        print(f"dashboard: {dashboard(uri)}")
