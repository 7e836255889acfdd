"""`mode=status`: how the runs of a study, or of a sweep, stand."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich import box
from rich.console import Group
from rich.live import Live
from rich.table import Table

from genpolicy.errors import UserError, counted
from genpolicy.launch.sweep import Sweep
from genpolicy.runs.identity import label
from genpolicy.runs.job import Job
from genpolicy.runs.run import find_runs
from genpolicy.runs.state import RunState, run_states
from genpolicy.system.console import console, plain
from genpolicy.system.files import last_line
from genpolicy.tracking import sync

REFRESH_SECONDS = 2.0
FRAME_LINES = 6  # of a screen, that the table's heading and the summary take
WIDTH = 200  # of what goes to a file or a pipe
COLOURS = {
    "running": "cyan",
    "finished": "green",
    "failed": "red",
    "died": "red",
    "unreadable": "red",
    "interrupted": "yellow",
}


def run(job: Job) -> None:
    """Prints the table; on a terminal again and again, until no run is running or queued, or Ctrl-C."""
    config = job.config
    runs = _runs(config)
    shown_on = console(WIDTH)
    said = [plain(line) for line in filter(None, [sync.complaint(Path(config.paths.outputs))])]
    if not shown_on.is_terminal:
        found = list(run_states(runs))
        shown_on.print(table(found, runs), summary(found), *said, sep="\n", markup=False)
        return
    with Live(console=shown_on, auto_refresh=False, vertical_overflow="visible") as live:
        while True:
            found = list(run_states(runs))
            room = max(1, shown_on.height - FRAME_LINES)  # where not all fits, what is finished comes last
            shown = found if len(found) <= room else sorted(found, key=lambda run: run.state == "finished")[:room]
            live.update(Group(table(shown, runs), summary(found), *said), refresh=True)
            if not any(run.busy for run in found):
                break
            time.sleep(REFRESH_SECONDS)


def summary(found: Sequence[RunState]) -> str:
    """How many runs there are of each state."""
    counts = Counter(run.state for run in found)
    return f"{counted(len(found), 'run')}: " + ", ".join(f"{count} {state}" for state, count in counts.items())


def table(found: Sequence[RunState], titles: Mapping[Path, str]) -> Table:
    """The runs, a line each."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("run", overflow="fold")
    for name, justify in (("state", "left"), ("job", "left"), ("updates", "right"), ("score", "right")):
        shown.add_column(name, justify=justify, no_wrap=True)
    shown.add_column("", overflow="fold")
    for run in found:
        row = (titles[run.directory], run.state, run.job or "", _progress(run.status), _score(run.status), _remark(run))
        shown.add_row(*(plain(cell, COLOURS.get(cell, "")) for cell in row))
    return shown


def _runs(config: DictConfig) -> dict[Path, str]:
    outputs = Path(config.paths.outputs)
    if config.sweep is not None:
        sweep = Sweep(outputs, config.study, config.sweep)
        if not sweep.runs:
            known = sorted(path.parent.name for path in sweep.directory.parent.glob("*/sweep.json"))
            raise UserError(f"sweep={config.sweep}: not in study={config.study}; known: {', '.join(known) or 'none'}")
        return sweep.runs
    runs = {directory: label(directory) for directory in find_runs(outputs, config.study)}
    if not runs:
        raise UserError(f"{outputs / config.study}: no runs there; give study= or paths.outputs=")
    return runs


def _progress(status: dict) -> str:
    step, steps = (status.get(name, 0) for name in ("step", "steps"))
    return f"{step:,} of {steps:,} ({step / steps:4.0%})" if steps > 0 else ""


def _score(status: dict) -> str:
    result = status.get("result", {})
    if "score_mean" in result:
        return f"{result['score_mean']:.1f}"
    return f"return {result['return_mean']:.1f}" if "return_mean" in result else ""


def _remark(run: RunState) -> str:
    """What else there is to say of a run; also why its score is not the benchmark's, if it is not."""
    unscaled = run.status.get("unscaled", "")
    return "; ".join(filter(None, [_told(run), unscaled and f"score: not the benchmark's ({unscaled})"]))


def _told(run: RunState) -> str:
    """Why a run has not ended well, with the last line of its log; how long ago a running one was heard of.

    Of one that has: which phases it took from which runs.
    """
    if run.state == "running":
        return f"{time.time() - run.status.get('updated', 0):.0f} s ago"
    if run.state == "unreadable":
        return run.status["reason"]
    if run.state == "finished":
        taken: dict[str, list[str]] = {}
        for name, told in run.status.get("phases", {}).items():
            if told.get("reused"):
                taken.setdefault(told.get("run", ""), []).append(name)
        return "; ".join(f"{', '.join(names)} from {source}" for source, names in taken.items())
    if run.state not in ("failed", "died", "interrupted", "new"):
        return ""
    reason, said = run.status.get("reason") or "", last_line(run.directory / "log.txt")
    return reason if not said or said in reason or reason in said else f"{reason} | {said}"
