"""Those who ship runs, and the servers that they ship to, fail, die and come back: nothing is lost or doubled."""

import json
import socket
import subprocess
import sys
import time

import pytest
from command_line import genpolicy
from mlflow_server import Server
from patience import PATIENCE, wait_until
from store import SQLITE, ask, counts, importer, journaled, stored
from tiny import ended, gaussian_words, only_run, opened, records, words

from genpolicy.runs.run import Run, find_runs
from genpolicy.system.files import is_locked
from genpolicy.tracking import follower, trackers


def test_an_importer_that_dies_after_storing_a_batch_makes_no_double(outputs, monkeypatch):
    run = ended(outputs, SQLITE, events=1300)
    store = trackers.open_store(trackers.store_uri(None, outputs), outputs)
    sent, real = [], store.client.log_batch

    def dying(number, metrics=(), params=(), tags=()):
        real(number, metrics, params, tags)
        if metrics:
            sent.append(len(metrics))
            raise KeyboardInterrupt

    monkeypatch.setattr(store.client, "log_batch", dying)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            store.ship(run)
    assert sent == [1000, 1000]
    monkeypatch.undo()
    assert len(stored(outputs)[run.id]) == 1000
    assert store.ship(run) == "finished"
    assert stored(outputs) == {run.id: journaled(run)}
    assert counts(outputs)["runs"] == 1


@pytest.mark.slow
def test_a_killed_importer_is_taken_up_again(outputs):
    run = ended(outputs, SQLITE, events=8000)
    child = importer(run.directory)
    while not run.path("tracking.json").exists() or "offset" not in run.path("tracking.json").read_text():
        assert child.poll() is None
        time.sleep(0.01)
    child.kill()
    child.communicate()
    assert ask(outputs, "SELECT status FROM runs") == [("RUNNING",)]
    assert genpolicy("mode=sync", f"paths.outputs={outputs}").code == 0
    assert stored(outputs) == {run.id: journaled(run)}
    assert ask(outputs, "SELECT status FROM runs") == [("FINISHED",)]


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_a_run_is_tracked_while_it_trains_and_the_next_run_ships_what_is_missing(outputs):
    missed = ended(outputs, SQLITE, "seed=5")
    result = genpolicy(*words(outputs, SQLITE, "tracking.checkpoints=true"))
    assert result.code == 0, result.err
    command = f"mlflow ui --host 127.0.0.1 --backend-store-uri sqlite:///{outputs}/mlflow.db"
    assert f"dashboard: {command}" in result.out
    runs = [Run(directory) for directory in find_runs(outputs)]
    wait_until(lambda: set(stored(outputs)) == {run.id for run in runs})
    wait_until(lambda: stored(outputs) == {run.id: journaled(run) for run in runs})
    assert stored(outputs) == {run.id: journaled(run) for run in runs}
    assert missed.id in stored(outputs)
    assert len(list((outputs / "mlartifacts").glob("*/artifacts/last.pt"))) == 1
    assert not (outputs / "mlruns").exists()


@pytest.mark.slow
def test_training_never_imports_mlflow(outputs):
    code = "import sys; from genpolicy import app; from genpolicy.tracking import follower; follower.WAIT_SECONDS = 0; "
    code += "app.main(); print('torch' in sys.modules, 'mlflow' in sys.modules)"
    small = [SQLITE, "algo.critic_steps=9", "algo.policy_steps=9"]
    command = [sys.executable, "-c", code, *gaussian_words(outputs, *small)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.endswith("True False\n")


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_a_server_that_does_not_answer_and_then_does(outputs, monkeypatch):
    monkeypatch.setattr(follower, "WAIT_SECONDS", 0.5)
    silent = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{silent.getsockname()[1]}"
    result = genpolicy(*words(outputs, f"tracking.uri={address}"))
    assert result.code == 0, result.err
    assert f"tracking: still shipping to {address}" in result.out
    run = Run(only_run(outputs))
    assert run.finished
    silent.close()
    server = Server(int(address.rpartition(":")[2]), outputs)
    server.start()
    try:
        wait_until(lambda: not is_locked(run.path("tracking.lock")))
        server.wait()  # those who ship may have given up before it was there
        assert genpolicy("mode=sync", f"paths.outputs={outputs}", f"tracking.uri={address}").code == 0
        before = counts(outputs)
        assert stored(outputs) == {run.id: journaled(run)}
        run.path("tracking.json").unlink()
        assert genpolicy("mode=sync", f"paths.outputs={outputs}", f"tracking.uri={address}").code == 0
        assert counts(outputs) == before
        assert ask(outputs, "SELECT status FROM runs") == [("FINISHED",)]
        noted = run.status()["data"]
        assert ask(outputs, "SELECT name, digest FROM datasets") == [(noted["name"], noted["digest"])]
        kinds = ask(outputs, "SELECT source_type, destination_type FROM inputs")
        assert sorted(kinds) == [("DATASET", "RUN"), ("RUN_OUTPUT", "MODEL_OUTPUT")]
        assert ask(outputs, "SELECT name, source_run_id FROM logged_models") == [
            ("policy", ask(outputs, "SELECT run_uuid FROM runs")[0][0])
        ]
        assert len(list(server.artifacts.rglob("models/*/artifacts/data/policy/policy.pt"))) == 1
        assert len(list(server.artifacts.rglob("artifacts/config.yaml"))) == 1
        away = outputs / "another machine"
        report = genpolicy("mode=report", f"paths.outputs={away}", f"tracking.uri={address}")
        assert report.code == 0, report.err
        means = {name: value for name, _, value in records(run.directory) if name.endswith("/return_mean")}
        table = (away / "default" / "report" / "tables" / "scores_last.csv").read_text()
        data, policy = (means[f"{whose}/return_mean"] for whose in ("data", "final"))
        assert table == f",behaviour data,gmpo-gvp\nswiss-roll (return),{data:.1f},{policy:.1f}\n"
    finally:
        server.stop()


def test_an_importer_gives_up_a_server_that_stays_away(outputs, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    run = ended(outputs, f"tracking.uri={address}")
    monkeypatch.setattr(follower, "PATIENCE_SECONDS", 0.2)
    with pytest.raises(SystemExit) as end:
        follower.sync_run(run.directory)
    assert end.value.code == 1
    assert genpolicy("mode=sync", f"paths.outputs={outputs}", f"tracking.uri=sqlite:///{outputs}/mlflow.db").code == 0
    assert stored(outputs) == {run.id: journaled(run)}


@pytest.mark.slow
def test_one_follower_ships_all_runs_and_ends_with_them(outputs):
    first, second = ended(outputs, "seed=0", SQLITE), opened(outputs, "seed=1", SQLITE)
    code = "import pathlib, sys; from genpolicy.tracking import sync; sync.FOLLOW_SECONDS = 0.5; "
    code += "sync.sync_until_idle(pathlib.Path(sys.argv[1]), sys.argv[2:])"
    command = [sys.executable, "-c", code, str(outputs), f"sqlite:///{outputs}/mlflow.db"]
    with second.recorded(device="cpu"):
        follower = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        line = {"time": 1_700_000_000_000, "step": 1, "metrics": {"policy/loss": 1.0}}
        second.path("journal.jsonl").write_text(json.dumps(line) + "\n")
        both = {run.id: journaled(run) for run in (first, second)}
        wait_until(lambda: stored(outputs) == both or follower.poll() is not None)
        assert follower.poll() is None, follower.communicate()
        assert subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout == ""
        with second.path("journal.jsonl").open("a") as journal:
            journal.write(json.dumps(line | {"step": 2}) + "\n")
    second.close()
    assert follower.communicate(timeout=PATIENCE)[0] == ""
    assert follower.returncode == 0
    assert stored(outputs) == {run.id: journaled(run) for run in (first, second)}
    assert ask(outputs, "SELECT status, COUNT(*) FROM runs GROUP BY status") == [("FINISHED", 2)]
