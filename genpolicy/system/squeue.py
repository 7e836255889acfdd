"""What SLURM's own commands say."""

import functools
import re
import shutil
import subprocess
import time

from genpolicy.errors import UserError

MAX_ARRAY = 1001  # SLURM's default


def ask(*command: str) -> str | None:
    """What a command of SLURM prints; None if it fails or does not answer."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def alive() -> dict[str, str]:
    """This user's jobs that run, wait or are just ending, as squeue names them ('12_3'), with state and reason.

    Empty on a machine without SLURM. Raises `UserError` if SLURM does not answer, as nothing is then known.
    """
    if shutil.which("squeue") is None:
        return {}
    command = ("squeue", "--me", "--array", "--noheader", "--format=%i|%T|%r")
    for wait in (1, 4, 10, 0):  # a controller that restarts is back in a few seconds
        if (listed := ask(*command)) is not None:
            break
        time.sleep(wait)
    else:
        raise UserError("squeue does not answer: SLURM's controller is away; try again when it is back")
    found = {}
    for line in listed.splitlines():
        job, state, reason = line.split("|", 2)
        found[job] = state if reason == "None" else f"{state} ({reason})"
    return found


def state(job: str) -> str:
    """The state of a job, such as RUNNING; empty if SLURM does not say."""
    return (ask("squeue", "--noheader", f"--jobs={job}", "--format=%T") or "").strip()


@functools.cache
def max_array() -> int:
    """How many jobs an array may have on this cluster."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config") or "", re.MULTILINE)
    return int(found[1]) if found else MAX_ARRAY
