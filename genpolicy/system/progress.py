"""What a person sees of work in progress: bars on a terminal, plain lines elsewhere."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column

from genpolicy.errors import printable
from genpolicy.system.forecast import duration

T = TypeVar("T")

TERMINAL_SECONDS = 0.5
LINE_SECONDS = 10.0


class Stderr(Console):
    """The console of a process that stops as if a terminal had been closed once nobody reads what it says."""

    def __init__(self) -> None:
        super().__init__(stderr=True)

    def on_broken_pipe(self) -> None:
        """Raises SIGHUP, which ends a process that does not listen to it."""
        signal.raise_signal(signal.SIGHUP)


class Progress:
    """Shows on stderr how far the phases are: steps, rate, time left, the metrics last read.

    steps: false shows only what is said, for runs that keep step with one that is shown. transient: a bar disappears
    when all is done.

    Use it as a context manager. On a terminal each phase has a bar; elsewhere there is a line every ten
    seconds and one at the end of each phase.
    """

    def __init__(self, console: Console | None = None, steps: bool = True, transient: bool = False):
        self.console = console or Stderr()
        self._steps_shown, self._bars = steps, None
        if self.console.is_terminal and steps:
            self._bars = Bars(*_columns(), console=self.console, refresh_per_second=2, expand=True, transient=transient)
        self._seconds = TERMINAL_SECONDS if self._bars else LINE_SECONDS

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars:
            self._bars.stop()

    def begin(self, phase: str, steps: int | None, done: int) -> None:
        """A phase of so many steps (None: unknown), `done` of which were made before."""
        self._phase, self._steps, self._metrics, self._rate = phase, steps, "", 0.0
        self._mark = done, time.monotonic()
        self._next = self._mark[1] + self._seconds
        if self._bars:
            self._bar = self._bars.add_task(phase, total=steps, completed=done, pace="", metrics="")

    def advance(self, step: int) -> None:
        """`step` steps of the phase are done. Cheap: shows nothing more often than a person can read."""
        now = time.monotonic()
        self._mark = self._mark or (step, now)
        if self._steps_shown and (now >= self._next or step == self._steps):
            self._next = now + self._seconds
            self._show(step, now)

    def metrics(self, values: dict[str, float]) -> None:
        """The metrics to show from now on."""
        self._metrics = "  ".join(f"{name} {value:.3g}" for name, value in list(values.items())[:4])

    def pause(self) -> None:
        """The time since the last step does not count for the rate: it was spent on something else."""
        self._mark = None

    def say(self, text: str) -> None:
        """A line of its own."""
        self.console.print(printable(text), soft_wrap=True, highlight=False, markup=False)

    def through(self, what: str, parts: Sequence[T]) -> Iterator[T]:
        """The parts of a piece of work, in order; if it takes long, says at times how far it is."""
        begun = said = time.monotonic()
        for number, part in enumerate(parts, 1):
            yield part
            now = time.monotonic()
            if now - said >= LINE_SECONDS:
                said, left = now, (now - begun) / number * (len(parts) - number)
                self.say(f"{what} {number / len(parts):.0%}  {duration(left)} left")

    def _show(self, step: int, now: float) -> None:
        made, seconds = step - self._mark[0], now - self._mark[1]
        if made and seconds > 0:
            self._rate = made / seconds
        pace = f"{self._rate:,.3g}/s" if self._rate else ""
        if pace and self._steps is not None:
            pace += f"  {duration((self._steps - step) / self._rate)} left"
        if self._bars:
            self._bars.update(self._bar, completed=step, pace=pace, metrics=self._metrics)
        else:
            of = "" if self._steps is None else f"/{self._steps:,}"
            self.say("  ".join(filter(None, (f"{self._phase} {step:,}{of}", pace, self._metrics))))


@contextlib.contextmanager
def shown(what: str, steps: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Shows one piece of work of so many steps, if that is known; gives what is told how many are done.

    done: how many were done before, at another time.
    """
    with Progress(transient=True) as progress:
        if not progress.console.is_terminal:
            progress.say(what)
        progress.begin(what, steps, done)
        yield progress.advance


def _columns() -> list[ProgressColumn]:
    """Of a bar; what a narrow terminal has no room for is cut off the metrics, and then the bar."""

    def whole() -> Column:
        return Column(no_wrap=True)

    return [
        TextColumn("{task.description}", style="bold", markup=False, table_column=whole()),
        BarColumn(None, table_column=Column(ratio=1, min_width=4)),
        MofNCompleteColumn(table_column=whole()),
        TextColumn("{task.fields[pace]}", markup=False, table_column=whole()),
        TextColumn("{task.fields[metrics]}", markup=False, table_column=Column(ratio=2, no_wrap=True)),
    ]
