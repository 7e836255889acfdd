"""Stopping in good order: signals are noted when they come, and obeyed between two steps."""

import signal


class Interrupted(SystemExit):
    """A signal asked the program to stop, and it did so between two steps; exit code 128 + signal."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.signal = signal.Signals(number).name


class Signals:
    """While entered, notes SIGINT, SIGTERM and SIGUSR2 (what SLURM sends before it takes a machine away).

    A second SIGINT raises KeyboardInterrupt at once, for people in a hurry.
    """

    NOTED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)

    def __init__(self):
        self.received: int | None = None

    def check(self) -> None:
        """Raises `Interrupted` if a signal has come."""
        if self.received is not None:
            raise Interrupted(self.received)

    def __enter__(self):
        self._before = {number: signal.signal(number, self._note) for number in self.NOTED}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame) -> None:
        if number == signal.SIGINT and self.received == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
