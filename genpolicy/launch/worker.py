"""A run that is there already, trained in this process: `python -m genpolicy.launch.worker RUN_DIRECTORY [PHASE]`.

Exit code 0: finished, or trained until the end of the phase, or left to another process that owns it; 1: failed;
128 + signal: interrupted.
"""

import contextlib
import ctypes
import signal
import sys
import time
from pathlib import Path

from genpolicy.errors import UserError
from genpolicy.runs.run import InUse, claim_run
from genpolicy.system.process import keep_freed_memory

PR_SET_PDEATHSIG = 1  # of linux/prctl.h
PATIENCE_SECONDS = 60.0  # with the earlier process of a requeued run, which may still be ending on another machine


def main(directory: Path, until: str | None = None) -> None:
    """Train the run to its end, or until that of a phase, or raise `Interrupted`.

    SIGTERM comes if the process that started this one dies.
    """
    with contextlib.suppress(AttributeError):  # Linux only
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    keep_freed_memory()
    print(time.strftime("%Y-%m-%d %H:%M:%S"), flush=True)
    try:
        run = claim_run(directory, PATIENCE_SECONDS)
    except InUse as error:
        print(f"{error}: left to it", flush=True)
        return
    from genpolicy.training import train

    train.train(run, True, until)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), *sys.argv[2:])
    except UserError as error:
        print(f"genpolicy: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
