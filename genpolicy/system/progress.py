"""What a person sees of a run: bars on a terminal, plain lines elsewhere, and a small table at its end."""

import time

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column, Table

from genpolicy.dataset.transitions import Behaviour
from genpolicy.env.task import Task
from genpolicy.errors import printable
from genpolicy.system.console import plain
from genpolicy.system.forecast import duration

TERMINAL_SECONDS = 0.5
LINE_SECONDS = 10.0


class Progress:
    """Shows on stderr how far the phases are: steps, rate, time left, the metrics last read.

    steps: false shows only what is said, for runs that keep step with one that is shown.

    Use it as a context manager. On a terminal each phase has a bar; elsewhere there is a line every ten
    seconds and one at the end of each phase.
    """

    def __init__(self, console: Console | None = None, steps: bool = True):
        self.console = console or Console(stderr=True)
        self._steps_shown, self._bars = steps, None
        if self.console.is_terminal and steps:
            self._bars = Bars(*_columns(), console=self.console, refresh_per_second=2, expand=True)
        self._seconds = TERMINAL_SECONDS if self._bars else LINE_SECONDS

    def __enter__(self):
        if self._bars:
            self._bars.start()
        return self

    def __exit__(self, *_):
        if self._bars:
            self._bars.stop()

    def begin(self, phase: str, steps: int, done: int) -> None:
        """A phase of so many steps, `done` of which were made before."""
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
        """What came since the last step was no step: it does not count for the rate."""
        self._mark = None

    def say(self, text: str) -> None:
        """A line of its own."""
        self.console.print(printable(text), soft_wrap=True, highlight=False, markup=False)

    def _show(self, step: int, now: float) -> None:
        made, seconds = step - self._mark[0], now - self._mark[1]
        if made and seconds > 0:
            self._rate = made / seconds
        pace = f"{self._rate:,.3g}/s  {duration((self._steps - step) / self._rate)} left" if self._rate else ""
        if self._bars:
            self._bars.update(self._bar, completed=step, pace=pace, metrics=self._metrics)
        else:
            self.say("  ".join(filter(None, (f"{self._phase} {step:,}/{self._steps:,}", pace, self._metrics))))


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


def behaviour_metrics(data: Behaviour, task: Task) -> dict[str, float]:
    """What the data's own episodes earned, under the names of an evaluation; empty if none finished."""
    if not data.episodes:
        return {}
    values = {
        "return_mean": data.return_mean,
        "return_std": data.return_std,
        "episodes": float(data.episodes),
    }
    if task.reference_min is not None:
        values["score_mean"] = task.score(data.return_mean)
        values["score_std"] = data.return_std * task.score_scale
    return values


def print_table(title: str, results: dict[str, dict[str, float]]) -> None:
    """Return, normalised score, log-likelihood (nats) and latency of each policy, one a line, on stdout.

    Where actions were held out, their log-likelihood is a column of its own.
    """
    apart = any("held_out_log_prob" in values for values in results.values())
    narrow = {"collapse_padding": apart, "pad_edge": not apart}  # to fit 80 columns
    shown = Table(title=plain(title), box=box.SIMPLE_HEAD, title_justify="left", **narrow)
    likelihoods = ("log-\nlikelihood", "held-\nout") if apart else ("log-likelihood",)
    for name in ("", "return", "score", *likelihoods, "latency"):
        shown.add_column(name, justify="right" if name else "left", no_wrap=True, vertical="bottom")
    for name, values in results.items():
        cells = [
            f"{values[f'{kind}_mean']:.1f} ± {values[f'{kind}_std']:.1f}" if f"{kind}_mean" in values else "-"
            for kind in ("return", "score")
        ]
        density = "no density" if "episode_length" in values else "-"  # what is not evaluated has no policy
        unit = "" if apart else " nats"
        cells.append(f"{values['log_prob']:.3f}{unit}" if "log_prob" in values else density)
        if apart:
            cells.append(f"{values['held_out_log_prob']:.3f}" if "held_out_log_prob" in values else "-")
        cells.append(f"{values['ms_per_action']:.2f} ms" if "ms_per_action" in values else "-")
        shown.add_row(_TITLES.get(name, name), *cells)
    Console().print(shown)
    for name, values in results.items():
        change = abs(values["log_prob_halved"] - values["log_prob"]) if "log_prob_halved" in values else 0.0
        if change > SOLVER_ERROR:
            print(
                f"{_TITLES.get(name, name)}: with half the steps of `likelihood` its log-likelihood changes by "
                f"{change:.2g} nats; more steps make it more exact (likelihood.steps)"
            )


SOLVER_ERROR = 0.01  # nats of a solver's error that are pointed out
_TITLES = {"final_behaviour": "BC (behaviour)", "final": "trained policy"}
