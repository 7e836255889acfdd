"""Tracking: a child process follows the journal of a run and ships it to trackers, off the training thread.

Whatever goes wrong with a tracker, training goes on; `mode=sync`, and the start of the next run, ship what is missing.

    python -m genpolicy.tracking.follower RUN_DIRECTORY TRACKER...      # what the child runs
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from genpolicy.errors import UserError, one_line
from genpolicy.runs.run import Run
from genpolicy.runs.state import FINAL, known_status
from genpolicy.system import process, sqlite
from genpolicy.system.files import Lock, last_line
from genpolicy.system.signals import Interrupted
from genpolicy.tracking import tracked
from genpolicy.tracking.sync import ONE_THREAD, SYNC, known_run, log, sync_all
from genpolicy.tracking.trackers import chosen, dashboard, open_tracker

POLL_SECONDS = 2.0
PATIENCE_SECONDS = 60.0  # with a store that fails, after the run has ended
WAIT_SECONDS = 20.0  # of a run that has ended for its child


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
                    log(f"{each}: {one_line(error)}")
                    failed = True
            if not left:
                break
            wait = min(2 * wait, PATIENCE_SECONDS / 2) if failed else POLL_SECONDS
            deadline = (deadline or time.monotonic() + PATIENCE_SECONDS) if failed and _ended(run) else None
            if deadline is not None and time.monotonic() > deadline:
                raise SystemExit(1)
            until = time.monotonic() + wait
            while time.monotonic() < until and not (_ended(run) and deadline is None):
                time.sleep(0.2)
    for each in trackers:
        for message in sync_all(run.outputs, each, known, thorough=False, own=True).failures:
            log(message)


def _is_there(run: Run) -> bool:
    """Whether the folder of a run has not been deleted, or overwritten by another run."""
    try:
        return known_run(run.directory, run.path("config.yaml").stat().st_mtime_ns).id == run.id
    except (FileNotFoundError, UserError):
        return False


def _ended(run: Run) -> bool:
    """Whether the run has ended, or does not say, as while its status cannot be read."""
    return known_status(run.directory)["state"] in (*FINAL, "unreadable")


if __name__ == "__main__":
    os.nice(10)
    sync_run(Path(sys.argv[1]), *sys.argv[2:])
