"""How runs stand: what they have written of themselves, and whether somebody works on them."""

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from genpolicy.errors import UserError
from genpolicy.runs import records
from genpolicy.runs.evaluations import is_pending
from genpolicy.system import squeue
from genpolicy.system.files import is_locked, regular_files

FINAL = ("finished", "failed", "interrupted", "died")
POLL_SECONDS = 5.0


def read_status(directory: Path) -> dict:
    """The last status written of a run. One that says it is running but has no living owner has died.

    Raises `UserError` if it cannot be read.
    """
    status = _read_status(directory)
    if status["state"] == "running" and not is_locked(directory / "lock"):
        status = _read_status(directory)  # it may have ended between the two looks
        if status["state"] == "running":
            process = f"process {status.get('pid')} on {status.get('host')}"
            status |= {"state": "died", "reason": f"{process} is gone"}
    return status


def _read_status(directory: Path) -> dict:
    path = directory / "status.json"
    status = records.read(path, records.STATUS)
    if status is None:
        return {"state": "queued"}
    if status.get("state") not in ("running", *FINAL):
        raise UserError(f"{path}: not what genpolicy writes there (state: {status.get('state')!r}); move it away")
    return status


def known_status(directory: Path) -> dict:
    """The same for a list of runs, of which one must not take the others along: 'unreadable', and the reason."""
    try:
        return read_status(directory)
    except UserError as error:
        return {"state": "unreadable", "reason": str(error)}


@dataclass(frozen=True)
class RunState:
    """How a run stands, for people and for the decision whether it is to be started.

    `state` is that of status.json, or 'new', 'waiting' (for its job) or 'unreadable'; `job` is the SLURM job it was
    last given to, `alive` whether SLURM still has that job, `status` what status.json says.
    """

    directory: Path
    state: str
    job: str | None
    alive: bool
    status: dict

    @property
    def busy(self) -> bool:
        """Whether a process is training the run, or a job of it is queued."""
        return self.alive or self.state == "running"


def run_states(runs: Iterable[Path]) -> Iterator[RunState]:
    """How each run stands, SLURM being asked once at most."""
    alive = functools.cache(squeue.alive)
    return (run_state(directory, alive) for directory in runs)


def settled(runs: Iterable[Path]) -> list[RunState]:
    """How runs stand when none is busy any more, for which this waits."""
    directories = list(runs)
    while True:
        found = list(run_states(directories))
        if not any(run.busy for run in found):
            return found
        time.sleep(POLL_SECONDS)


def run_state(directory: Path, alive: Callable[[], dict[str, str]]) -> RunState:
    """How a run directory stands; `alive` tells the living SLURM jobs, and is asked only about a run that has one."""
    status = known_status(directory)
    try:
        job = (records.read(directory / "job.json", records.JOB) or {}).get("job")
    except UserError as error:
        status, job = {"state": "unreadable", "reason": str(error)}, None
    state = status["state"]
    living = job is not None and (state != "finished" or is_pending(directory)) and job in alive()
    if living and state in ("failed", "died") and alive()[job].startswith("COMPLETING"):
        living = False  # while an interrupted one's job may be on its way back into the queue
    if living and state == "failed" and status.get("job") == job:
        living = False  # of several runs in a job, one that has failed is not tried again
    if state not in ("running", "finished") and living:
        state = "waiting"
    elif state == "queued":
        state = "new"
    return RunState(directory, state, job, living, status)


def launching(outputs: Path) -> bool:
    """Whether runs below the folder of all runs wait for their turn in a process on this machine."""
    return any(map(is_locked, regular_files(outputs, "*/sweeps/*/lock")))
