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
        self._steps_shown, self._bars, self._phase = steps, None, None
        if self.console.is_terminal and steps:
            self._bars = Bars(*_columns(), console=self.console, refresh_per_second=2, expand=True, transient=transient)

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars:
            self._bars.stop()

    def begin(self, phase: str, steps: int | None, done: int) -> None:
        """A phase of so many steps (None: unknown), `done` of which were made before."""
        self._phase = _Work(self.say, self._bars, phase, steps, done)
        self._phase.add_bar()

    def advance(self, step: int) -> None:
        """`step` steps of the phase are done. Cheap: shows nothing more often than a person can read."""
        self._phase.advance(step, self._steps_shown)

    def metrics(self, values: dict[str, float]) -> None:
        """The metrics to show from now on."""
        self._phase.metrics = "  ".join(f"{name} {value:.3g}" for name, value in list(values.items())[:4])

    def pause(self) -> None:
        """The time since the last step, if there was one, does not count for the rate: something else was done."""
        if self._phase is not None:
            self._phase.mark = None

    def say(self, text: str) -> None:
        """A line of its own."""
        self.console.print(printable(text), soft_wrap=True, highlight=False, markup=False)

    @contextlib.contextmanager
    def work(self, what: str, steps: int) -> Iterator[Callable[[int], None]]:
        """A piece of work beside the phases, of so many steps at most; gives what is told how many are done.

        It is shown if it takes long, a bar meanwhile. The rate is that from the first time on that this is told.
        """
        work = _Work(self.say, self._bars, what, steps)
        work.mark = None
        try:
            yield lambda step: work.advance(step, step < steps)
        finally:
            work.remove_bar()

    def through(self, what: str, parts: Sequence[T]) -> Iterator[T]:
        """The parts of such a piece of work, in order."""
        with self.work(what, len(parts)) as advance:
            advance(0)
            for number, part in enumerate(parts, 1):
                yield part
                advance(number)


class _Work:
    """How far something is: a bar if there are `bars`, else lines that are said. metrics: what else is shown."""

    def __init__(self, say: Callable[[str], None], bars: Bars | None, name: str, steps: int | None, done: int = 0):
        self._say, self._bars, self._name, self._steps, self._done = say, bars, name, steps, done
        self.metrics, self._rate, self._bar = "", 0.0, None
        self.mark: tuple[int, float] | None = (done, time.monotonic())  # from where the rate is taken
        self._seconds = TERMINAL_SECONDS if bars else LINE_SECONDS
        self._next = self.mark[1] + self._seconds

    def add_bar(self) -> None:
        if self._bars:
            self._bar = self._bars.add_task(self._name, total=self._steps, completed=self._done, pace="", metrics="")

    def remove_bar(self) -> None:
        if self._bar is not None:
            self._bars.remove_task(self._bar)

    def advance(self, step: int, shown: bool) -> None:
        now = time.monotonic()
        self.mark = self.mark or (step, now)
        if shown and (now >= self._next or step == self._steps):
            self._next = now + self._seconds
            self._show(step, now)

    def _show(self, step: int, now: float) -> None:
        made, seconds = step - self.mark[0], now - self.mark[1]
        if made and seconds > 0:
            self._rate = made / seconds
        pace = f"{self._rate:,.3g}/s" if self._rate else ""
        if pace and self._steps is not None:
            pace += f"  {duration((self._steps - step) / self._rate)} left"
        if self._bars:
            if self._bar is None:
                self.add_bar()
            self._bars.update(self._bar, completed=step, pace=pace, metrics=self.metrics)
        else:
            of = "" if self._steps is None else f"/{self._steps:,}"
            self._say("  ".join(filter(None, (f"{self._name} {step:,}{of}", pace, self.metrics))))


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
