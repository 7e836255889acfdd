"""`mode=tasks`: every task at a glance."""

from pathlib import Path

from rich import box
from rich.filesize import decimal
from rich.table import Table

from genpolicy.config.arguments import options
from genpolicy.config.option_content import all_settings
from genpolicy.config.schema import MISSING, TARGET, build
from genpolicy.env.task import Task
from genpolicy.errors import UserError, one_line
from genpolicy.runs.job import Job
from genpolicy.system.console import console, plain


def run(job: Job) -> None:
    """Prints a line for each task: sizes, episode limit, simulator, references, and whether the data are there.

    What a task is, `genpolicy --help env=<task>` says.
    """
    config = job.config
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=plain(f"data: {config.paths.data}"), title_justify="left")
    for name in ("env", "O", "A", "steps", "simulator", "scores 0", "scores 100", "data"):
        text = name in ("env", "simulator", "data")  # which a narrow terminal folds
        justify = "left" if name in ("env", "simulator") else "right"
        shown.add_column(name, justify=justify, no_wrap=not text, overflow="fold")
    for name, path in options("env").items():
        try:
            node = all_settings(path, "env")
            if MISSING in node.values():  # what the user has to name first
                continue
            task = build(node)
        except UserError as error:  # as of a simulator that is not installed
            shown.add_row(*map(plain, (name, "", "", "", one_line(error))))
            continue
        sizes = str(task.observation_size), str(task.action_size), f"{task.max_episode_steps:,}"
        references = [f"{value:g}" if value is not None else "" for value in (task.reference_min, task.reference_max)]
        cells = name, *sizes, _simulator(task, node), *references, _data(task, Path(config.paths.data))
        shown.add_row(*map(plain, cells))
        task.close()
    console().print(shown)


def _simulator(task: Task, node: dict) -> str:
    """The name of what stands in for the task's simulator; genpolicy's own go by their class."""
    return node.get("simulator") or node[TARGET].rpartition(".")[2]


def _data(task: Task, folder: Path) -> str:
    """The size of the published file in the cache."""
    if task.url is None:
        return ""
    file = task.data_file(folder)
    if not file.exists():
        return "not there"
    return decimal(file.stat().st_size, precision=0)
