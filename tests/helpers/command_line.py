"""The command `genpolicy` in this process, for the tests."""

import contextlib
import io
import random
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from genpolicy import app
from genpolicy.launch import local, slurm
from genpolicy.launch.sweep import Sweep, sweep_name
from genpolicy.runs import provenance
from genpolicy.runs.job import Job


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


def last(words: Iterable[str]) -> list[str]:
    """The words, of those that say the same setting the last one: what is typed says each once."""
    kept = {
        number if word.startswith("-") else word.partition("=")[0].lstrip("+"): word
        for number, word in enumerate(words)
    }
    return list(kept.values())


def genpolicy(*words: str) -> Result:
    """Runs the command with the `last` of these words."""
    return typed(*last(words))


def typed(*words: str) -> Result:
    """Runs the command with these very words."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["genpolicy", *words]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            app.main()
        except SystemExit as end:
            code = end.code
    return Result(code, out.getvalue(), err.getvalue())


def mistaken(make: Callable[[random.Random], list[str]], count: int, folder: Path) -> list[tuple]:
    """Those of so many bad command lines, as `make` draws them, that are not refused as they should be in a folder.

    Each must be one line, neither empty nor long nor an exception's, and exit code 1, and leave nothing behind; the
    folder, which is the working folder, holds a `file`. With each line how it ended, and what it left.
    """
    (folder / "file").write_text("in the way")
    draw, start = random.Random(make.__name__), app.start
    lines, wrong = set(), []

    def guarded(job, sweep=None):
        # What is in the way of a run, or a bad data file, is found as it starts.
        if job.config.mode == "train" and not ("file" in job.config.paths.outputs or job.config.dataset.get("path")):
            raise AssertionError("accepted")
        start(job, sweep)

    while len(lines) < count and len(wrong) < count:
        words = make(draw)
        if tuple(words) in lines:
            continue
        with mock.patch.object(app, "start", guarded):
            result = genpolicy(*words)
        lines.add(tuple(words))
        left = sorted(path.name for path in folder.iterdir())
        told = result.err.startswith("genpolicy: ") and result.err.count("\n") == 1 and 20 < len(result.err) < 1000
        raw = "Error:" in result.err or "accepted" in result.err
        if result.code != 1 or not told or raw or left != ["file"]:
            wrong.append((words, result.code, result.err[:300], left))
    assert (folder / "file").read_text() == "in the way"
    return wrong


def tried(*words: str) -> tuple[Result, list[tuple[Job, str | None]]]:
    """The checked jobs that a command would start, each with the name of its sweep, and how it went up to there."""
    started = []

    def launch(jobs, name=None):
        started.extend((job, sweep_name(jobs)) for job in jobs)

    with (
        mock.patch.object(provenance, "probe"),
        mock.patch.object(app, "start", lambda job, sweep=None: started.append((job, sweep))),
        mock.patch.object(Sweep, "save"),
        mock.patch.object(local, "launch", launch),
        mock.patch.object(slurm, "launch", launch),
    ):
        return genpolicy(*words), started


def jobs(*words: str) -> list[tuple[Job, str | None]]:
    """The jobs of a command that must be legal."""
    result, started = tried(*words)
    assert result.code == 0, result.err
    return started
