"""Waiting for other processes, on machines that have other things to do: limits that only what hangs will meet."""

import time
from collections.abc import Callable

PATIENCE = 300.0  # seconds


def wait_until(true: Callable[[], bool], said: Callable[[], str] = lambda: "") -> None:
    """Return when it is true, and fail if it never is, with what is `said` then."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, said()
        time.sleep(0.1)
