"""What trackers have been told about a run, kept in its tracking.json, and what is new to them. Imports no MLflow."""

import contextlib
import json
import os
import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from genpolicy.runs import journal, records
from genpolicy.runs.run import Run
from genpolicy.runs.state import FINAL
from genpolicy.system import sqlite
from genpolicy.system.files import Lock, regular_files, write_atomically

FILES = ("figures/*", "evaluation-*", "export/*")  # that are shipped of every run


class Record(dict):
    """What one tracker has been told about the run with this id; empty for a new one. Raises `UserError` if damaged.

    A tracker goes by its `uri`: MLflow's, or the name in `tracking.also`.
    """

    def __init__(self, directory: Path, uri: str, number: str):
        self._path, self._uri, self._id = directory / "tracking.json", uri, number
        known = _read(self._path).get(uri, {})
        super().__init__(known if known.get("id") == number else {})

    def keep(self, **facts: Any) -> None:
        """Note `facts` in the file."""
        self.update(facts)
        with Lock(self._path.with_name("tracking.json.lock")):  # others keep what other trackers have been told
            content = _read(self._path) | {self._uri: {"id": self._id} | self}
            write_atomically(self._path, json.dumps(content, indent=1).encode())


def lock_of(directory: Path, uri: str) -> Path:
    """The file of the `Lock` that who ships a run to a tracker holds: to MLflow, or to one of `tracking.also`."""
    return directory / (f"tracking.{uri}.lock" if uri in ("tensorboard", "wandb") else "tracking.lock")


def unsent(run: Run, record: Record) -> Iterator[tuple[dict, int]]:
    """The events of the run's journal beyond the part that is noted as sent, and the offset after each."""
    path = run.path("journal.jsonl")
    if os.path.lexists(path):
        start = record.get("offset", 0)
        yield from journal.read(path, start if start <= path.stat().st_size else 0)


def changed(run: Run, record: Record, *patterns: str) -> Iterator[tuple[str, list[int]]]:
    """Figures, evaluations, exports and what else matches that are new or have changed since noted as sent."""
    for name, now in files(run.directory, *FILES, *patterns).items():
        if record.get("files", {}).get(name) != now:
            yield name, now


def experiment(directory: Path, uri: str) -> str | None:
    """The id of a run's experiment in an MLflow store, the address of its page at Weights & Biases, if it is known."""
    return _read(directory / "tracking.json").get(uri, {}).get("experiment")


def shipped(directory: Path, uri: str, numbers: Collection[str] | None = None) -> bool:
    """Whether all of a run that has ended is in the store, by its own record; the configuration is not read.

    numbers: the ids of all runs in the store, where they are known. Raises `UserError` for a damaged file.
    """
    record = _read(directory / "tracking.json").get(uri, {})
    if record.get("state") not in FINAL or record.get("place") != place(directory):
        return False
    if numbers is not None and record.get("run") not in numbers:
        return False
    journal, sent = directory / "journal.jsonl", record.get("files", {})
    if record.get("offset", 0) < (journal.lstat().st_size if os.path.lexists(journal) else 0):
        return False
    return all(sent.get(name) == now for name, now in files(directory, *FILES).items())


def place(directory: Path) -> dict:
    """Where a run lies, with sizes and times of what is shipped of its small files; for its record."""
    return {"directory": str(directory), "files": files(directory, "config.yaml", "status.json")}


def files(directory: Path, *patterns: str) -> dict[str, list[int]]:
    """The regular files of a run that match, by their relative names, with size and time of the last change."""
    found = {str(path.relative_to(directory)): path.stat() for path in regular_files(directory, *patterns)}
    return {name: [now.st_size, now.st_mtime_ns] for name, now in found.items()}


def numbers(uri: str) -> set[str] | None:
    """The ids of all runs in a store that is a SQLite file; None for others, and for a file that cannot be read."""
    file = sqlite.file_of(uri)
    if file is None or not file.is_file():
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
            return {number for (number,) in database.execute("SELECT run_uuid FROM runs")}
    except sqlite3.Error:
        return None


def _read(path: Path) -> dict:
    return records.read(path, records.TRACKING) or {}
