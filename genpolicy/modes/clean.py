"""`mode=clean`: the shared phases below `paths.outputs`; those that no run refers to are deleted."""

from collections import Counter
from pathlib import Path

from rich import box
from rich.filesize import decimal
from rich.table import Table

from genpolicy.errors import UserError, counted
from genpolicy.runs import phases
from genpolicy.runs.job import Job
from genpolicy.runs.run import find_runs
from genpolicy.runs.state import read_status
from genpolicy.system.console import console, plain


def run(job: Job) -> None:
    """Prints a line for each phase: who trained it, its size, how many runs have it; and deletes those of none.

    Raises `UserError`, and deletes nothing, if a run does not tell which phases it has.
    """
    outputs = Path(job.config.paths.outputs)
    users = Counter(told["key"] for run in find_runs(outputs) for told in read_status(run).get("phases", {}).values())
    found = list(phases.shared(outputs))
    if not found:
        raise UserError(f"{outputs}: no shared phases there; give paths.outputs=")
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, justify in (
        ("phase", "left"),
        ("trained in", "left"),
        ("size", "right"),
        ("runs", "right"),
        ("", "left"),
    ):
        shown.add_column(name, justify=justify, no_wrap=True)
    freed = 0
    for directory in found:
        try:
            record = phases.read_record(directory) or {"name": "", "run": ""}
        except UserError:
            record = {"name": "damaged", "run": ""}
        size, count, said = phases.size(directory), users[directory.name], ""
        if not count:
            deleted = phases.delete(directory)
            freed, said = freed + size * deleted, "deleted" if deleted else "being trained"
        cells = f"{directory.name} {record['name']}", record["run"], decimal(size), str(count), said
        shown.add_row(*map(plain, cells))
    console().print(shown)
    print(f"{counted(len(found), 'phase')}; {decimal(freed)} freed")
