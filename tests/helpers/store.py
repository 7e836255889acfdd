"""What lies in a run's journal and in the SQLite file of an MLflow store, read plainly, for the tests."""

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path

from tiny import events

from genpolicy.runs.run import Run

SQLITE = "tracking.uri=null"


def importer(directory: Path) -> subprocess.Popen:
    """The child that ships a run, at ordinary priority so that a busy machine does not starve it."""
    code = "import pathlib, sys; from genpolicy.tracking.follower import sync_run; sync_run(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(directory)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ask(outputs: Path, question: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(outputs / "mlflow.db")) as database:
        return database.execute(question).fetchall()


def stored(outputs: Path) -> dict[str, list[tuple]]:
    """(metric, step, time, value) of each run in the store, by the id that genpolicy gave it."""
    rows = ask(
        outputs,
        "SELECT tags.value, metrics.key, metrics.step, metrics.timestamp, metrics.value FROM metrics "
        "JOIN tags ON tags.run_uuid = metrics.run_uuid AND tags.key = 'genpolicy.id'",
    )
    return {number: sorted(row[1:] for row in rows if row[0] == number) for number in {row[0] for row in rows}}


def journaled(run: Run) -> list[tuple]:
    return sorted(
        (name, event["step"], event["time"], value)
        for event in events(run.directory)
        for name, value in event["metrics"].items()
    )


def counts(outputs: Path) -> dict[str, int]:
    tables = ("experiments", "runs", "metrics", "latest_metrics", "params", "tags", "datasets", "inputs", "input_tags")
    return {table: ask(outputs, f"SELECT COUNT(*) FROM {table}")[0][0] for table in tables}
