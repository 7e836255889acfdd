"""Python processes of genpolicy's own: this one, and others beside it."""

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from genpolicy.system.files import open_regular

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def start(module: str, *words: str, log: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen:
    """Run `python -m module words`, what it prints appended to `log`; `environment` adds to this process's.

    Its session is its own, so that Ctrl-C at the terminal does not end it. Raises OSError if it cannot be started, and
    `UserError` if the log cannot be written.
    """
    path = [os.path.abspath(each) for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    own = {"PYTHONPATH": os.pathsep.join(path)} if path else {}  # relative ones are to the folder of the command
    with open_regular(log, "ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", module, *words],
            cwd=Path(__file__).resolve().parents[2],  # so that it imports this very package
            env=os.environ | own | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def keep_freed_memory() -> None:
    """Let this process keep up to 256 MiB of memory that it has freed, for what it asks for next (glibc only).

    An update frees and asks for the same tensors again; as the C library is set, each time the system takes their pages
    and gives cleared ones.
    """
    with contextlib.suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, 256 * 2**20)
        mallopt(M_MMAP_THRESHOLD, 64 * 2**20)  # larger blocks are given back at once
