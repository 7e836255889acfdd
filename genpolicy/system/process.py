"""A Python process of genpolicy's own, beside this one."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from genpolicy.system.files import open_regular


def start(module: str, *words: str, log: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen:
    """Run `python -m module words`, what it prints appended to `log`; `environment` adds to this process's.

    Its session is its own, so that Ctrl-C at the terminal does not end it. Raises OSError if it cannot be started, and
    `UserError` if the log cannot be written.
    """
    with open_regular(log, "ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", module, *words],
            cwd=Path(__file__).resolve().parents[2],  # so that it imports this very package
            env=os.environ | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
