"""The journal of a run: every metric, appended as it is made. It is the truth; MLflow is a view of it.

One line an event, each a JSON object:

    {"time": 1700000000000, "step": 1200, "metrics": {"critic/loss": 0.5}}
    {"time": 1700000000000, "step": 5000, "metrics": {"eval/return_mean": 3.0}, "returns": [2.0, 4.0]}

`time` is in milliseconds since 1970, `step` counts the updates of all phases.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from genpolicy.errors import UserError
from genpolicy.runs import records
from genpolicy.system.files import open_regular, unwritable, write_atomically

INDEX = {"offset": int, "digest": str, "last": {str: int}}
LARGEST = 2**63  # of a time or a step that a database holds
DIGESTED = 4096  # bytes


class Journal:
    """Appends events to the file. A (metric, step) is never written twice.

    A killed run goes back to its last checkpoint and repeats what it had logged after it. Of a metric only
    steps beyond the last one in the file are written, so that the first record of a step, which may have been
    shipped with its time, stays the only one. A line torn by a crash is cut off when the file is opened.

    The file's index holds these last steps up to an offset, as of the last `sync` or `close`; only what follows is
    read when the journal is opened. Raises `UserError` if the file cannot be written, or is damaged before its end.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._index = self.path.with_suffix(".index")
        try:
            self._file = open_regular(self.path, "ab")  # open as long as the journal is
            self._last, self._end = self._indexed()  # the end of the last whole event
            for event, position in read(self.path, self._end):
                self._last.update(dict.fromkeys(event["metrics"], event["step"]))
                self._end = position
            os.truncate(self._file.fileno(), self._end)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def log(self, step: int, metrics: dict[str, float], returns: Sequence[float] | None = None) -> None:
        """Append the metrics of a step; `returns` are those of the single episodes of an evaluation."""
        new = {name: value for name, value in metrics.items() if step > self._last.get(name, -1)}
        if new:
            event = {"step": step, "metrics": new}
            self._append(event if returns is None else event | {"returns": list(returns)})
            self._last.update(dict.fromkeys(new, step))

    def sync(self) -> None:
        """Force everything to the disk: a checkpoint must never be newer than the journal."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:  # a network's file system may say only now that it is full
            raise unwritable(self.path, error) from error
        index = {"offset": self._end, "digest": _digest(self.path, self._end), "last": self._last}
        write_atomically(self._index, json.dumps(index).encode())

    def close(self) -> None:
        """Close the file; the journal is then complete as it stands."""
        if not self._file.closed:
            with contextlib.suppress(OSError, UserError):  # a full disk must not hide the error that ends the run
                self.sync()
            self._file.close()

    def _indexed(self) -> tuple[dict[str, int], int]:
        """The last step of each metric up to an offset, as the index says; none if it is not this file's."""
        try:
            index = records.read(self._index, INDEX) or {}
            last, offset = index.get("last", {}), index.get("offset", 0)
            if 0 <= offset <= os.fstat(self._file.fileno()).st_size and index["digest"] == _digest(self.path, offset):
                return last, offset
        except (KeyError, UserError):
            pass
        return {}, 0

    def _append(self, event: dict) -> None:
        line = (json.dumps({"time": time.time_ns() // 1_000_000} | event) + "\n").encode()
        try:
            left = memoryview(line)
            while left:  # unbuffered: what could not be written is not tried again when the file is closed
                left = left[os.write(self._file.fileno(), left) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self._file.fileno(), self._end)
            raise unwritable(self.path, error) from error
        self._end += len(line)


def read(path: Path, offset: int = 0) -> Iterator[tuple[dict, int]]:
    """The complete events from a byte offset on, each with the offset at which it ends.

    Ends before what is no whole event: its writer is still writing it, or died doing so. Raises `UserError` if events
    follow, as nobody wrote that.
    """
    damaged = None
    with open_regular(path) as file:
        file.seek(offset)
        for line in file:
            event = _parse(line)
            if event is None:
                damaged = offset if damaged is None else damaged
            elif damaged is not None:
                raise UserError(f"{path}: damaged at byte {damaged}: no event there, but after it; move it away")
            offset += len(line)
            if event is not None:
                yield event, offset


def events(path: Path) -> list[dict]:
    """All events of a journal that was closed. Raises `UserError` if it is damaged, or not there."""
    try:
        return [event for event, _ in read(path)]
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such journal") from error


def _digest(path: Path, offset: int) -> str:
    """Of the bytes before an offset: whether an index belongs to a file."""
    with open_regular(path) as file:
        file.seek(max(0, offset - DIGESTED))
        return hashlib.sha256(file.read(min(offset, DIGESTED))).hexdigest()


def _parse(line: bytes) -> dict | None:
    if not line.endswith(b"\n"):
        return None
    try:
        event = json.loads(line)
        times, metrics = (event["time"], event["step"]), event["metrics"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    # By type, not isinstance: there may be millions of lines, and a truth value is no number.
    whole = all(type(value) is int and 0 <= value < LARGEST for value in times) and type(metrics) is dict
    return event if whole and {*map(type, metrics.values())} <= {int, float} else None
