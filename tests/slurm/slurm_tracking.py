"""The dashboard's side of a sweep on SLURM: nothing is lost or doubled, whatever happens to the MLflow server."""

import contextlib
import shutil
import socket
import sqlite3
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from command_line import genpolicy
from mlflow_server import Server
from slurm_sweeps import LAUNCH, outputs, settled, wait_until, words  # noqa: F401, a fixture among them
from tiny import events

from genpolicy.runs.run import Run, find_runs

LONG = ["algo.policy_steps=4000", "log_every=100", "checkpoint_seconds=0.5"]  # some ten seconds, to lose the server in


@pytest.fixture
def server(tmp_path_factory):
    """An MLflow server that answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server = Server(probe.getsockname()[1], tmp_path_factory.mktemp("server"))
    server.start()
    wait_until(server.answers)
    yield server
    server.stop()


def stored(database: Path) -> dict[str, list[tuple]]:
    """The (metric, step, value) of each run, by the id that genpolicy gave it."""
    question = (
        "SELECT tags.value, metrics.key, metrics.step, metrics.value FROM metrics "
        "JOIN tags ON tags.run_uuid = metrics.run_uuid AND tags.key = 'genpolicy.id'"
    )
    with contextlib.closing(sqlite3.connect(database)) as opened:
        rows = opened.execute(question).fetchall()
    return {number: sorted(row[1:] for row in rows if row[0] == number) for number in {row[0] for row in rows}}


def journals(folder: Path) -> dict[str, list[tuple]]:
    return {
        Run(run).id: sorted((name, e["step"], v) for e in events(run) for name, v in e["metrics"].items())
        for run in find_runs(folder)
    }


def states(database: Path) -> Counter:
    with contextlib.closing(sqlite3.connect(database)) as opened:
        return Counter(row[0] for row in opened.execute("SELECT status FROM runs"))


def launch(folder: Path, server: Server) -> None:
    given = [word for word in words(folder, *LONG) if not word.startswith("tracking.uri")]
    result = genpolicy(*LAUNCH, *given, "seed=0,1", f"tracking.uri={server.uri}")
    assert result.code == 0, result.err


def test_a_server_that_goes_away_for_good_and_comes_back(outputs, server):  # noqa: F811
    launch(outputs, server)
    wait_until(lambda: len(stored(server.database)) == 2)
    server.stop()
    wait_until(lambda: settled(outputs))
    assert [Run(run).status()["state"] for run in find_runs(outputs)] == ["finished"] * 2
    copy, other = outputs / "copy", outputs / "other.db"
    shutil.copytree(outputs / "default", copy / "default")
    # For a while: the runs' own processes wait for it, a minute long.
    server.start()
    wait_until(server.answers)
    wait_until(lambda: stored(server.database) == journals(outputs))
    wait_until(lambda: states(server.database) == {"FINISHED": 3})  # with the sweep's own
    # For good: all goes into another store. From the copy, where nobody waits.
    result = genpolicy("mode=sync", f"paths.outputs={copy}", f"tracking.uri=sqlite:///{other}")
    assert result.out.startswith("up to date in MLflow: 2 runs"), result.err
    assert stored(other) == journals(copy) == journals(outputs)
    assert states(other) == {"FINISHED": 3}
