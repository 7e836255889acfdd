"""The journal of a run: every metric, appended as it is made. It is the truth; MLflow is a view of it.

One line an event, each a JSON object:

    {"time": 1700000000000, "step": 1200, "metrics": {"critic/loss": 0.5}}
    {"time": 1700000000000, "step": 5000, "metrics": {"eval/return_mean": 3.0}, "returns": [2.0, 4.0]}

`time` is in milliseconds since 1970, `step` counts the updates of all phases.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from genpolicy.files import open_regular, unwritable


class Journal:
    """Appends events to the file. A (metric, step) is never written twice.

    A killed run goes back to its last checkpoint and repeats what it had logged after it. Of a metric only
    steps beyond the last one in the file are written, so that the first record of a step, which may have been
    shipped with its time, stays the only one. A line torn by a crash is cut off when the file is opened.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._last: dict[str, int] = {}
        end = 0
        try:
            self._file = open_regular(self.path, "ab")  # open as long as the journal is
            for event, position in read(self.path):
                self._last.update(dict.fromkeys(event["metrics"], event["step"]))
                end = position
            os.truncate(self._file.fileno(), end)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def log(self, step: int, metrics: dict[str, float], returns: Sequence[float] | None = None) -> None:
        """Append the metrics of a step; `returns` are those of the single episodes of an evaluation."""
        new = {name: value for name, value in metrics.items() if step > self._last.get(name, -1)}
        if new:
            self._last.update(dict.fromkeys(new, step))
            event = {"step": step, "metrics": new}
            self._append(event if returns is None else event | {"returns": list(returns)})

    def sync(self) -> None:
        """Force everything to the disk: a checkpoint must never be newer than the journal."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; the journal is then complete as it stands."""
        self._file.close()

    def _append(self, event: dict) -> None:
        line = json.dumps({"time": time.time_ns() // 1_000_000} | event) + "\n"
        try:
            self._file.write(line.encode())
            self._file.flush()
        except OSError as error:
            raise unwritable(self.path, error) from error


def read(path: Path, offset: int = 0) -> Iterator[tuple[dict, int]]:
    """The complete events from a byte offset on, each with the offset at which it ends.

    Ends before the first line that is not a whole event: its writer is still writing it, or died doing so.
    """
    with open_regular(path) as file:
        file.seek(offset)
        for line in file:
            event = _parse(line)
            if event is None:
                return
            offset += len(line)
            yield event, offset


def _parse(line: bytes) -> dict | None:
    if not line.endswith(b"\n"):
        return None
    try:
        event = json.loads(line)
    except ValueError:
        return None
    kinds = {"time": int, "step": int, "metrics": dict}
    whole = isinstance(event, dict) and all(isinstance(event.get(key), kind) for key, kind in kinds.items())
    return event if whole else None
