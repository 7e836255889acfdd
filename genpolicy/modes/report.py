"""`mode=report`: the runs of a study, or of a sweep, as tables, statistics and figures."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig
from rich import box
from rich.table import Table as Shown

from genpolicy.errors import UserError, counted, message, one_line, printable
from genpolicy.launch.sweep import Sweep
from genpolicy.report.commands import Commands
from genpolicy.report.contents import compose
from genpolicy.report.document import Table, Text
from genpolicy.report.inside import FIGURES
from genpolicy.report.results import Result
from genpolicy.report.sources import Source, of_directories, of_store
from genpolicy.runs.identity import label
from genpolicy.runs.job import Job
from genpolicy.runs.run import find_runs, read_frozen
from genpolicy.runs.state import FINAL, known_status
from genpolicy.system import sqlite
from genpolicy.system.console import console, plain
from genpolicy.system.files import new_folder, regular_files
from genpolicy.tracking import follower, sync, trackers

if TYPE_CHECKING:  # MLflow is slow to import
    from mlflow.entities import Run as MlflowRun

    from genpolicy.tracking.store import Store

PRINTED = ("headline", "remarks", "scores_last", "scores_late", "scores_best", "aggregates", "published")
WIDTH = 200  # of tables that go to a file or a pipe
DIRECTORIES = "tracking.uri=none reports on the run directories"


def run(job: Job) -> None:
    """Writes the report into the folder of the study or the sweep, and prints its main tables.

    Raises `UserError` if there are no runs, or the store cannot be read.
    """
    config = job.config
    study = Path(config.paths.outputs) / config.study
    source, experiment = _directories(config, study) if _no_store(config) else _store(config, study)
    if not source.results:
        of_sweep = f" of sweep {config.sweep}" if config.sweep else ""
        where = f" with report.filter={config.report.filter}" if config.report.filter else ""
        raise UserError(
            "; ".join([f"study={config.study}: {source.name} has no runs{of_sweep}{where}", *source.odd[:1]])
        )
    document = compose(source, _title(config), Commands(config.study, config.paths).of, _drawn(config))
    folder = (study / "sweeps" / config.sweep if config.sweep else study) / "report"
    with new_folder(folder, own=3 if config.sweep else 1):
        document.write(folder)
    shown_on = console(WIDTH)
    for part in document.parts:
        if part.name not in PRINTED:
            continue
        if isinstance(part, Text):
            shown_on.print(f"\n{part.title}:", *(plain(f"  {line}") for line in part.lines), sep="\n", markup=False)
        elif isinstance(part, Table):
            shown_on.print(_shown(part))
    print()
    if experiment is not None:
        print(f"dashboard: {trackers.dashboard(source.name, study.parent, experiment)}")
    print(f"{folder / 'report.html'}\n{folder / 'report.md'}, tables/*.tex and *.csv, figures/*.png and *.pdf")


def _no_store(config: DictConfig) -> bool:
    """Whether the runs beside the command are to be read as they are: there is no store, or none is wanted."""
    uri = trackers.store_uri(config.tracking.uri, outputs := Path(config.paths.outputs))
    if uri is None:
        return True
    return config.tracking.uri is None and not sqlite.file_of(uri).exists() and any(find_runs(outputs, config.study))


def _directories(config: DictConfig, study: Path) -> tuple[Source, None]:
    """The runs of a study's folder."""
    if config.report.filter:
        raise UserError(
            f"report.filter={config.report.filter}: a search of MLflow, and no store is read; "
            "`genpolicy mode=sync` makes one of the runs"
        )
    outputs = Path(config.paths.outputs)
    directories = list(find_runs(outputs, config.study))
    if config.sweep is not None and (own := Sweep(outputs, config.study, config.sweep).runs):
        return of_directories(study, [each for each in directories if each in own]), None
    return of_directories(study, directories, config.sweep), None


def _store(config: DictConfig, study: Path) -> tuple[Source, str]:
    """The runs that an MLflow store has of a study, and the id of its experiment; what it lacks is sent first.

    Of the store beside the runs, those that were deleted, moved or renamed since are left out, and said.
    """
    outputs, beside = Path(config.paths.outputs), config.tracking.uri is None
    here = list(find_runs(outputs, config.study)) if beside else []  # all of these are shipped before they are read
    store = trackers.open_store(None, outputs) if here else trackers.existing_store(config)
    told = _ship(store, outputs, here) if here else []
    stored = _read(store, config, [DIRECTORIES, *told] if here else [])
    runs = _of_sweep(stored, config)
    if here:
        if not config.report.filter:
            known = set(map(_directory, stored))
            lacking = (run for run in here if str(run) not in known and _is_asked(run, config))
            told += [f"{label(run)}: not in study {config.study} of {store.uri}; {DIRECTORIES}" for run in lacking]
        places = set(here)
        gone = [place for place in map(_directory, runs) if _is_gone(place, outputs, places)]
        runs = [run for run in runs if _directory(run) not in gone]
        if gone:
            told.append(
                f"left out: {counted(len(gone), 'run')} of {store.uri}, deleted, moved or renamed since "
                f"({printable(gone[0])}{', ...' * (len(gone) > 1)}); tracking.uri={store.uri} reports on all"
            )
    source = of_store(store, runs)
    source.odd[:0] = told
    return source, runs[0].info.experiment_id if runs else None


def _directory(run: "MlflowRun") -> str:
    """Where a run lay when it was shipped last."""
    return run.data.tags.get("genpolicy.run_dir", "")


def _is_gone(directory: str, outputs: Path, here: set[Path]) -> bool:
    """Whether a stored run's directory, if it is known, is not one of `here`, nor of a run outside of `outputs`."""
    path = Path(directory)
    lost = path.is_relative_to(outputs) or not (path / "config.yaml").exists()
    return bool(directory) and path not in here and lost


def _is_asked(run: Path, config: DictConfig) -> bool:
    """Whether a run directory has begun and is, as far as it can be read, one that the report is about."""
    if known_status(run)["state"] == "queued":
        return False
    if config.sweep is None or run in Sweep(Path(config.paths.outputs), config.study, config.sweep).runs:
        return True
    with contextlib.suppress(UserError):
        return (read_frozen(run)["sweep"] or "").endswith(f"({config.sweep})")
    return False


def _ship(store: "Store", outputs: Path, runs: list[Path]) -> list[str]:
    """Ships what is missing of the runs in a folder, and says which of `runs` have ended and are not shipped."""
    patience = follower.PATIENCE_SECONDS  # no longer does the process of a run that has ended try a store that fails
    outcome = sync.sync_all(outputs, None, {store.uri: store}, thorough=False, patience=patience)
    late = (run for run in outcome.busy if run in runs and known_status(run)["state"] in FINAL)
    return outcome.failures + [f"{label(run)}: another process still ships it; some of it is not here" for run in late]


def _read(store: "Store", config: DictConfig, hints: list[str]) -> "list[MlflowRun]":
    """The runs of the study that a report is about; hints: the first two are given where there is no such study."""
    try:
        runs = store.runs(config.study, config.report.filter)
    except Exception as error:  # whatever MLflow or its database or the network may raise
        if config.report.filter and getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE":
            raise UserError(
                f"report.filter={config.report.filter}: {message(error).rstrip('.')}; legal is what MLflow's search "
                "takes, such as tags.`genpolicy.algo` = 'gmpo'"
            ) from error
        raise UserError(f"{store.uri}: {one_line(error)}") from error
    if runs is None:
        known = ", ".join(store.studies()) or "none"
        raise UserError("; ".join([f"study={config.study}: not in {store.uri}", f"known: {known}", *hints[:2]]))
    return runs


def _of_sweep(runs: "list[MlflowRun]", config: DictConfig) -> "list[MlflowRun]":
    """Of these runs those of the sweep that a report is about, if it is about one."""
    if config.sweep is None:
        return runs
    members = {str(directory) for directory in Sweep(Path(config.paths.outputs), config.study, config.sweep).runs}
    return [
        run
        for run in runs
        if run.data.tags.get("genpolicy.sweep", "").endswith(f"({config.sweep})") or _directory(run) in members
    ]


def _drawn(config: DictConfig) -> Callable[[Result], list[Path]]:
    """What finds the figures of a run, if it lies below paths.outputs: elsewhere a store may say anything."""
    here = set(map(str, find_runs(Path(config.paths.outputs), config.study)))
    return lambda run: list(regular_files(Path(run.directory), FIGURES)) if run.directory in here else []


def _title(config: DictConfig) -> str:
    return f"Study {config.study}" + (f", sweep {config.sweep}" if config.sweep else "")


def _shown(table: Table) -> Shown:
    """The table for the terminal."""
    shown = Shown(title=plain(table.title), box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for name in table.head:
        shown.add_column(plain(name), justify="right" if name else "left", overflow="fold")
    for i, row in enumerate(table.rows):
        shown.add_row(*(plain(cell, "bold" if (i, j) in table.strong else "") for j, cell in enumerate(row)))
    return shown
