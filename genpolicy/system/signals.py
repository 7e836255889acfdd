"""Stopping cleanly: while a run trains, signals are noted when they come and obeyed between two steps."""

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Self


class Interrupted(SystemExit):
    """A signal asked the program to stop, and it did so cleanly; exit code 128 + signal."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.signal = signal.Signals(number).name


class PhaseTrained(Interrupted):
    """A run was to be trained until the end of a phase, and has been; exit code 0."""

    def __init__(self, phase: str):
        SystemExit.__init__(self, 0)
        self.signal = f"{phase} phase trained"


class Signals:
    """While entered, listens to the signals that ask a program to stop, SLURM's warnings among them.

    The first one raises `Interrupted`: at once, or inside `deferred` when `check` is called. Those that follow
    change nothing, so that they cannot tear what is being saved; but a second SIGINT raises KeyboardInterrupt,
    for people in a hurry. SIGHUP, by which a terminal says that it is closed, is left alone where it is ignored, as
    nohup has it.
    """

    NOTED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

    def __init__(self) -> None:
        self.received: int | None = None
        self._deferring = 0  # how many are inside `deferred`

    def check(self) -> None:
        """Raises `Interrupted` if a signal has come."""
        if self.received is not None:
            raise Interrupted(self.received)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, signals are noted only. Several may be inside at once, and leave in any order."""
        self._deferring += 1
        try:
            yield
        finally:
            self._deferring -= 1

    def __enter__(self) -> Self:
        kept = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else set()
        self._before = {number: signal.signal(number, self._note) for number in self.NOTED if number not in kept}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGHUP:
            _forget_lost_output()
        if self.received is None:
            self.received = number
            if not self._deferring:
                raise Interrupted(number)


def _forget_lost_output() -> None:
    """What is written to a terminal that is closed, or a pipe that nobody reads, goes nowhere, and is no error."""
    for stream in (1, 2):
        poll = select.poll()
        poll.register(stream, select.POLLOUT)
        if any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0)):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream)
            os.close(nowhere)
