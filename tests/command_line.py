"""The command `genpolicy` in this process, for the tests."""

import contextlib
import io
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from unittest import mock

from genpolicy import app, local, slurm
from genpolicy.sweep import Sweep, sweep_name


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


def tried(*words: str) -> tuple[Result, list[tuple[app.Job, str | None]]]:
    """The checked jobs that a command would start, each with the name of its sweep, and how it went up to there."""
    started = []

    def launch(jobs, name=None):
        started.extend((job, sweep_name(jobs)) for job in jobs)

    with (
        mock.patch.object(app, "check_data"),
        mock.patch.object(app, "start", lambda job, sweep=None: started.append((job, sweep))),
        mock.patch.object(Sweep, "save"),
        mock.patch.object(local, "launch", launch),
        mock.patch.object(slurm, "launch", launch),
    ):
        return genpolicy(*words), started


def jobs(*words: str) -> list[tuple[app.Job, str | None]]:
    """The jobs of a command that must be legal."""
    result, started = tried(*words)
    assert result.code == 0, result.err
    return started
