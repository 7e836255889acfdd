"""Shipping the runs of a folder to trackers: once, or as they grow, by a process of its own."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import time
from pathlib import Path

from omegaconf import DictConfig

from genpolicy.config.arguments import quoted
from genpolicy.config.run_settings import absolute_uri
from genpolicy.errors import UserError, one_line, printable
from genpolicy.runs.run import Run, find_runs
from genpolicy.runs.state import FINAL, launching, run_states
from genpolicy.system import process
from genpolicy.system.files import Lock, last_line, open_regular
from genpolicy.tracking import tracked
from genpolicy.tracking.trackers import chosen, open_tracker, store_uri

FOLLOW_SECONDS = 5.0
FOLLOW_PATIENCE_SECONDS = 600.0
FOLLOW_LOG = "follow.log"
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
SYNC = "`genpolicy mode=sync` ships what is missing"


@dataclasses.dataclass
class Outcome:
    """What `sync_all` did: runs shipped, runs that another process is shipping or that name another store, failures."""

    shipped: int = 0
    busy: list[Path] = dataclasses.field(default_factory=list)
    elsewhere: list[Path] = dataclasses.field(default_factory=list)
    failures: list[str] = dataclasses.field(default_factory=list)


def sync_all(
    outputs: Path, tracker: str | None, known: dict, thorough: bool = True, own: bool = False, patience: float = 0.0
) -> Outcome:
    """Ship what is missing of the runs in a folder to a tracker, or (None) to the folder's own MLflow store.

    To a `tracker` all of them, with `own` those whose configuration names it; to the folder's own those that name no
    other store. What only a run's configuration names gets nothing: the folder may come from other people. `known`
    holds the open trackers by name, and gets those opened here. Unless `thorough`, runs that are shipped by their own
    account are left alone, but of the folder's own store what a file lacks, as one begun anew; and a tracker that fails
    is not tried again. patience: seconds to wait, in all, for other processes that are shipping runs which have ended.
    """
    outcome, broken = Outcome(), ""  # broken: what is wrong with the tracker
    deadline = time.monotonic() + patience
    target = store_uri(tracker, outputs)
    numbers = tracked.numbers(target) if thorough or tracker is None else None
    for directory in find_runs(outputs):
        try:
            if (numbers is not None or not thorough) and tracked.shipped(directory, target, numbers):
                outcome.shipped += thorough
                continue
            run = known_run(directory, (directory / "config.yaml").stat().st_mtime_ns)
            named = chosen(run.config.tracking, outputs)
            if target not in named and (own or tracker is None):
                outcome.elsewhere += [directory] if run.config.tracking.uri != "none" else []
                continue
            state = run.status()["state"]
            if state == "queued" or (broken and not thorough):
                continue
            lock = Lock(tracked.lock_of(run.directory, target))
            if not lock.acquire(max(0.0, deadline - time.monotonic()) if state in FINAL else 0.0):
                outcome.busy.append(directory)
                continue
            try:
                if broken:
                    raise UserError(broken)
                if target not in known:
                    broken = "the tracker cannot be opened"
                    known[target] = open_tracker(target, outputs)
                    broken = ""
                known[target].ship(run)
                outcome.shipped += 1
            finally:
                lock.release()
        except Exception as error:  # as in `sync_run`; the other runs are shipped all the same
            said = one_line(error)
            outcome.failures.append(printable(said if str(directory) in said else f"{directory}: {target}: {said}"))
            if broken or not (thorough or isinstance(error, UserError)):
                broken = said
    if target in known and not broken:
        try:
            known[target].describe_sweeps()
        except Exception as error:  # as in `sync_run`
            outcome.failures.append(printable(f"{target}: {one_line(error)}"))
    return outcome


def sync_until_idle(outputs: Path, trackers: list[str]) -> None:
    """Ship the runs below `outputs` to those of the trackers that their configurations name, as they grow.

    Goes on until no run is left that trains or waits for its SLURM job; a tracker that then fails, or a run that
    another process is shipping, is tried for some minutes more. Only one process does this for a folder and its
    trackers; another one returns at once.
    """
    other = (
        "" if trackers == [store_uri(None, outputs)] else f"-{hashlib.sha256(str(trackers).encode()).hexdigest()[:8]}"
    )
    lock, known, deadline = Lock(outputs / f".follow{other}.lock"), {}, None
    while lock.acquire():
        while True:
            last = not _unfinished(outputs)  # before shipping, so that all that has ended is shipped
            outcomes = [sync_all(outputs, each, known, thorough=False, own=True) for each in trackers]
            failures = [message for outcome in outcomes for message in outcome.failures]
            for message in failures:
                log(message)
            if not failures:
                settle(outputs)
            deadline = (deadline or time.monotonic() + FOLLOW_PATIENCE_SECONDS) if last else None
            busy = any(outcome.busy for outcome in outcomes)  # maybe with another tracker
            if last and (not (failures or busy) or time.monotonic() > deadline):
                break
            time.sleep(FOLLOW_SECONDS)
        lock.release()
        if not _unfinished(outputs):  # or a sweep was started in the meantime, and found the lock held
            return


def start_follower(config: DictConfig) -> None:
    """Start a process of its own that ships the runs of a folder, unless there is one; it outlives this one.

    One that cannot be started is said here, one that fails by `complaint`.
    """
    outputs = Path(config.paths.outputs)
    if not chosen(config.tracking, outputs):
        return
    words = ["mode=sync", "follow=true", f"paths.outputs={quoted(str(outputs))}"]
    words.append(f"tracking.also=[{','.join(config.tracking.also)}]")
    if config.tracking.uri is not None:
        words.append(f"tracking.uri={quoted(absolute_uri(config.tracking.uri))}")
    try:
        process.start("genpolicy.app", *words, log=outputs / FOLLOW_LOG, environment=ONE_THREAD)
    except (OSError, UserError) as error:
        print(f"tracking: not started ({error}); {SYNC}", flush=True)


def complaint(outputs: Path) -> str | None:
    """What last went wrong in the follower of a folder, unless all has been shipped since."""
    said = last_line(outputs / FOLLOW_LOG)
    return f"tracking: {said} ({outputs / FOLLOW_LOG}); {SYNC}" if said else None


def settle(outputs: Path) -> None:
    """All is shipped: what went wrong before is of no interest any more."""
    log = outputs / FOLLOW_LOG
    if last_line(log):
        with open_regular(log, "ab") as file:
            file.truncate(0)


def _unfinished(outputs: Path) -> bool:
    """Whether any run below a folder trains or waits for its job or its turn, as far as one can see."""
    try:
        return launching(outputs) or any(run.busy for run in run_states(find_runs(outputs)))
    except UserError:
        return True  # SLURM's controller is away


@functools.lru_cache(maxsize=10_000)
def known_run(directory: Path, _changed: int) -> Run:
    """The run, read once as long as its configuration is the same: a follower looks at hundreds again and again."""
    return Run(directory)


def log(message: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S"), message, flush=True)
