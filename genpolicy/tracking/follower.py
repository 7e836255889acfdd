"""Tracking: a child process follows the journal of a run and ships it to trackers, off the training thread.

Nothing here imports MLflow but the functions that talk to it; a training process never does. Whatever goes
wrong with a tracker, training goes on; `mode=sync`, and the start of the next run, ship what is missing.

    python -m genpolicy.tracking.follower RUN_DIRECTORY TRACKER...      # what the child runs
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import logging
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Self

from omegaconf import DictConfig

from genpolicy.config.arguments import quoted, shell
from genpolicy.config.run_settings import absolute_uri
from genpolicy.errors import UserError, one_line, printable
from genpolicy.runs.run import Run, find_runs
from genpolicy.runs.state import FINAL, launching, run_states
from genpolicy.system import process, sqlite
from genpolicy.system.files import Lock, last_line, open_regular
from genpolicy.system.signals import Interrupted
from genpolicy.tracking import tracked

if TYPE_CHECKING:
    from genpolicy.tracking.store import Store
    from genpolicy.tracking.tensorboard import TensorBoard
    from genpolicy.tracking.wandb import WeightsAndBiases

POLL_SECONDS = 2.0
FOLLOW_SECONDS = 5.0
FOLLOW_PATIENCE_SECONDS = 600.0
FOLLOW_LOG = "follow.log"
PATIENCE_SECONDS = 60.0  # with a store that fails, after the run has ended
WAIT_SECONDS = 20.0  # of a run that has ended for its child
# No reports home, no waiting for a server that does not answer, no chatter.
ENVIRONMENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_LOGGING_LEVEL": "WARNING"}
ENVIRONMENT |= {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
ENVIRONMENT |= {"GIT_PYTHON_REFRESH": "quiet"}
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
SYNC = "`genpolicy mode=sync` ships what is missing"


def store_uri(uri: str | None, outputs: Path) -> str | None:
    """The tracking URI that a setting means: null is a SQLite file in `outputs`, "none" no store (None)."""
    if uri is None:
        return sqlite.uri_of(outputs / "mlflow.db")
    return None if uri == "none" else uri


def chosen(tracking: DictConfig, outputs: Path) -> list[str]:
    """Where a configuration sends runs: the URI of MLflow's store, if any, and the names of other trackers."""
    uri = store_uri(tracking.uri, outputs)
    return [*([] if uri is None else [uri]), *tracking.also]


def dashboard(tracker: str, outputs: Path, experiment: str | None = None) -> str:
    """How to look at what a tracker has: the command, if one is needed, and the address.

    experiment: as `tracked.experiment` knows it; with MLflow's id the address is that of its runs: a click on it in
    MLflow's list leads to pages for language models.
    """
    if tracker == "tensorboard":
        return shell("tensorboard", "--logdir", str(outputs))
    if tracker == "wandb":
        return experiment or f"wandb sync {shlex.quote(str(outputs))}/*/*/*/*/wandb/offline-run-*"
    pages = f"/#/experiments{f'/{experiment}/runs' if experiment else ''}?workflowType=machine_learning"
    if tracker.startswith("http"):
        return tracker.rstrip("/") + pages
    command = shell("mlflow", "ui", "--host", "127.0.0.1", "--backend-store-uri", tracker)
    return f"{command}  (http://127.0.0.1:5000{pages})"


class Tracker:
    """The child process that ships a run, while the run trains in this one.

    If the run is `synced_elsewhere`, not to a store that is a file: many processes never open one SQLite file.
    """

    def __init__(self, run: Run, synced_elsewhere: bool = False):
        self.run = run
        named = chosen(run.config.tracking, run.outputs)
        self.trackers = [each for each in named if not synced_elsewhere or sqlite.file_of(each) is None]
        self._child: subprocess.Popen | None = None

    def start(self) -> None:
        """Start the child."""
        if not self.trackers:
            return
        words, log = (str(self.run.directory), *self.trackers), self.run.path("tracking.log")
        try:
            self._child = process.start("genpolicy.tracking.follower", *words, log=log, environment=ONE_THREAD)
        except (OSError, UserError) as error:
            print(f"tracking: not started ({error}); {SYNC}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """After the run has ended: wait a little for the child, and say where the run can be seen."""
        if self._child is None or (kind is not None and issubclass(kind, Interrupted | KeyboardInterrupt)):
            return
        try:
            code = self._child.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"tracking: still shipping to {', '.join(self.trackers)}; it goes on by itself, else {SYNC}")
        else:
            if code:
                reason = last_line(self.run.path("tracking.log")) or f"exit code {code}"
                print(f"tracking: not shipped ({reason}); {SYNC}")
        for each in self.trackers:
            try:
                experiment = tracked.experiment(self.run.directory, each)
                print(f"dashboard: {dashboard(each, self.run.outputs, experiment)}")
            except UserError as error:
                print(f"tracking: {error}")


def sync_run(directory: Path, *trackers: str) -> None:
    """Ship a run until it has ended and all of it is shipped; then what earlier runs beside it have missed.

    To `trackers`; without any, to those of its configuration. Raises `SystemExit(1)` if one still fails a minute after
    the run has ended. Ends, too, when the run is no longer there.
    """
    run, known = Run(directory), {}
    left = list(trackers or chosen(run.config.tracking, run.outputs))
    trackers, deadline, wait = tuple(left), None, POLL_SECONDS
    with contextlib.ExitStack() as held:
        for path in sorted({tracked.lock_of(run.directory, each) for each in trackers}):
            held.enter_context(Lock(path))  # which the child of an earlier process of the run holds until it is done
        while _is_there(run):
            failed = False
            for each in tuple(left):
                try:
                    known[each] = known.get(each) or open_tracker(each, run.outputs)
                    if known[each].ship(run) in FINAL:
                        left.remove(each)
                except Exception as error:  # whatever a tracker or its database or the network may raise
                    _log(f"{each}: {one_line(error)}")
                    failed = True
            if not left:
                break
            wait = min(2 * wait, PATIENCE_SECONDS / 2) if failed else POLL_SECONDS
            if failed and _ended(run):
                deadline = deadline or time.monotonic() + PATIENCE_SECONDS
                if time.monotonic() > deadline:
                    raise SystemExit(1)
            until = time.monotonic() + wait
            while time.monotonic() < until and not (_ended(run) and deadline is None):
                time.sleep(0.2)
    for each in trackers:
        for message in sync_all(run.outputs, each, known, thorough=False, own=True).failures:
            _log(message)


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
    account are left alone, and a tracker that fails is not tried again. patience: seconds to wait, in all, for other
    processes that are shipping runs which have ended.
    """
    outcome, broken = Outcome(), ""  # broken: what is wrong with the tracker
    deadline = time.monotonic() + patience
    target = store_uri(tracker, outputs)
    numbers = tracked.numbers(target) if thorough else None
    for directory in find_runs(outputs):
        try:
            if (numbers is not None or not thorough) and tracked.shipped(directory, target, numbers):
                outcome.shipped += thorough
                continue
            run = _known(directory, (directory / "config.yaml").stat().st_mtime_ns)
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


@functools.lru_cache(maxsize=10_000)
def _known(directory: Path, _changed: int) -> Run:
    """The run, read once as long as its configuration is the same: a follower looks at hundreds again and again."""
    return Run(directory)


def _is_there(run: Run) -> bool:
    """Whether the folder of a run has not been deleted, or overwritten by another run."""
    try:
        return _known(run.directory, run.path("config.yaml").stat().st_mtime_ns).id == run.id
    except (FileNotFoundError, UserError):
        return False


def opened(uri: str, outputs: Path) -> dict[str, Store]:
    """The MLflow store of a URI, by that; none while it is a SQLite file that is not there: it is made when needed.

    Raises `UserError` for one that cannot be read.
    """
    if (file := sqlite.file_of(uri)) is not None and not os.path.lexists(file):
        return {}
    try:
        store = open_store(uri, outputs)
        store.studies()
        return {uri: store}
    except Exception as error:  # as in `sync_run`
        raise UserError(f"{uri}: {one_line(error)}") from error


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
                _log(message)
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


def find_directory(number: str, config: DictConfig) -> Path:
    """The run directory of an MLflow run id in the configured store. Raises `UserError` if there is none."""
    store = existing_store(config)
    try:
        directory, own = store.directory(number)
    except Exception as error:  # as in `sync_run`
        raise UserError(f"checkpoint={number}: not a run of genpolicy in {store.uri} ({one_line(error)})") from error
    moved = Path(config.paths.outputs).joinpath(*directory.parts[-4:])  # if the folder of all runs was
    for place in (directory, moved):
        with contextlib.suppress(UserError):
            if Run(place).id == own:
                return place
    raise UserError(
        f"checkpoint={number}: its run directory {directory} is not on this machine, or has been overwritten; "
        "paths.outputs= says where all runs were moved"
    )


def _importer() -> ModuleType:
    """The module that talks to MLflow, which reads its environment when it is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from genpolicy.tracking import store

    logging.getLogger("alembic").setLevel(logging.WARNING)
    return store


def open_tracker(tracker: str, outputs: Path) -> Store | TensorBoard | WeightsAndBiases:
    """MLflow's store of a URI, or the tracker of a name in `tracking.also`."""
    if tracker == "tensorboard":
        from genpolicy.tracking.tensorboard import TensorBoard

        return TensorBoard()
    if tracker == "wandb":
        from genpolicy.tracking.wandb import WeightsAndBiases

        return WeightsAndBiases()
    return open_store(tracker, outputs)


def open_store(uri: str | None, outputs: Path) -> Store:
    """The MLflow store (`tracking.store.Store`) that a setting means; a SQLite file is made if it is not there."""
    return _importer().Store(store_uri(uri, outputs), outputs)


def existing_store(config: DictConfig) -> Store:
    """The store of a configuration, to read. Raises `UserError` if there is none, or it cannot be reached."""
    outputs = Path(config.paths.outputs)
    uri = store_uri(config.tracking.uri, outputs)
    if uri is None or ((file := sqlite.file_of(uri)) is not None and not file.exists()):
        raise UserError(f"no MLflow store at {uri or config.tracking.uri}; give paths.outputs= or tracking.uri=")
    try:
        return open_store(uri, outputs)
    except Exception as error:  # as in `sync_run`
        raise UserError(f"{uri}: {one_line(error)}") from error


def _ended(run: Run) -> bool:
    return run.status()["state"] in FINAL


def _log(message: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S"), message, flush=True)


if __name__ == "__main__":
    os.nice(10)
    sync_run(Path(sys.argv[1]), *sys.argv[2:])
