"""MLflow as a view of the journal: complete, without doubles, whoever fails. The oracle is the SQLite file itself."""

import contextlib
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import genpolicy
from mlflow_server import Server
from tiny import ended, events, only_run, opened, records, words

from genpolicy import tracking
from genpolicy.errors import UserError
from genpolicy.files import is_locked
from genpolicy.run import Run, find_runs

SQLITE = "tracking.uri=null"


def importer(directory: Path) -> subprocess.Popen:
    """The child that ships a run, at ordinary priority so that a busy machine does not starve it."""
    code = "import pathlib, sys; from genpolicy import tracking; tracking.follow(pathlib.Path(sys.argv[1]))"
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


RUNS = 3


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The runs of one sweep, shipped by as many importers started at once into a store that was not there."""
    outputs = tmp_path_factory.mktemp("a folder with spaces")
    runs = [ended(outputs, f"seed={seed}", SQLITE, events=40, sweep="abc") for seed in range(RUNS)]
    (runs[0].directory / "figures").mkdir()
    runs[0].path("figures/samples.png").write_bytes(b"a picture")
    runs[0].path("evaluation-last-9-8.mp4").write_bytes(b"a video")
    children = [importer(run.directory) for run in runs]
    said = [child.communicate(timeout=300)[0] for child in children]
    assert [child.returncode for child in children] == [0] * RUNS, said
    return outputs, runs


def test_importers_at_once_on_a_store_that_did_not_exist(swept):
    outputs, runs = swept
    assert stored(outputs) == {run.id: journaled(run) for run in runs}
    assert ask(outputs, "SELECT COUNT(*) FROM experiments WHERE name = 'genpolicy/default'") == [(1,)]
    rows = ask(outputs, "SELECT name, status FROM runs ORDER BY name")
    assert rows == [*((f"gmpo-gvp swiss-roll s{seed}", "FINISHED") for seed in range(RUNS)), ("sweep abc", "FINISHED")]


def test_one_parent_for_a_sweep(swept):
    outputs, _ = swept
    ((parent,),) = ask(outputs, "SELECT run_uuid FROM runs WHERE name = 'sweep abc'")
    assert ask(outputs, "SELECT value FROM tags WHERE key = 'mlflow.parentRunId'") == [(parent,)] * RUNS


def test_the_parent_describes_what_has_become_of_the_sweep(outputs):
    for seed, score in enumerate((10.0, 20.0, 60.0)):
        run = ended(outputs, f"seed={seed}", SQLITE, sweep="abc")
        event = {"time": 10**12, "step": 9, "metrics": {"final/score_mean": score}}
        run.path("journal.jsonl").write_text(json.dumps(event) + "\n")
    tracking.catch_up(outputs, None, {})
    ((said,),) = ask(
        outputs,
        "SELECT note.value FROM tags AS note JOIN tags AS parent ON parent.run_uuid = note.run_uuid "
        "WHERE note.key = 'mlflow.note.content' AND parent.key = 'genpolicy.parent'",
    )
    assert said.startswith("3 runs: 3 finished\n")
    assert "| swiss-roll | 30.0 ± 26.5 |" in said


def test_settings_tags_and_files(swept):
    outputs, runs = swept
    ((number, place),) = ask(outputs, "SELECT run_uuid, artifact_uri FROM runs WHERE name = 'gmpo-gvp swiss-roll s0'")
    params = dict(ask(outputs, f"SELECT key, value FROM params WHERE run_uuid = '{number}'"))
    assert params["algo.beta"] == "4.0"
    assert params["critic.hidden"] == "[16]"
    assert params["env.reference_min"] == "null"
    assert params["algo._target_"] == "genpolicy.algo.gmpo.GMPO"
    tags = dict(ask(outputs, f"SELECT key, value FROM tags WHERE run_uuid = '{number}'"))
    expected = {"algo": "gmpo", "model": "gvp", "env": "swiss-roll", "seed": "0", "device": "cpu", "state": "finished"}
    expected |= {"objective": "flow_matching", "solver": "midpoint", "dataset": "swiss_roll", "sweep": "abc"}
    assert {name: tags[f"genpolicy.{name}"] for name in expected} == expected
    assert re.fullmatch("[0-9a-f]{40}", tags["mlflow.source.git.commit"])
    assert tags["genpolicy.run_dir"] == str(runs[0].directory)
    assert tags["genpolicy.pid"] == str(os.getpid())
    artifacts = Path(place.removeprefix("file://").replace("%20", " "))
    assert artifacts.is_relative_to(outputs / "mlartifacts")
    assert (artifacts / "config.yaml").read_bytes() == runs[0].path("config.yaml").read_bytes()
    assert (artifacts / "figures" / "samples.png").read_bytes() == b"a picture"
    assert (artifacts / "evaluation-last-9-8.mp4").read_bytes() == b"a video"


def test_the_data_set_is_an_input_of_every_run(swept):
    outputs, _ = swept
    ((source, kind, schema, profile),) = ask(
        outputs,
        "SELECT dataset_source, dataset_source_type, dataset_schema, dataset_profile FROM datasets "
        "WHERE name = 'swiss_roll swiss-roll' AND digest = '0a1b2c3d'",
    )
    assert (kind, json.loads(source)) == ("local", {"uri": "/data/roll.npz"})
    assert [(column["name"], column["type"]) for column in json.loads(schema)["mlflow_colspec"]] == [
        ("observation", "array"),
        ("action", "array"),
        ("reward", "float"),
    ]
    assert json.loads(profile).items() >= {"transitions": 10_000, "finished episodes": 9_000, "O": 0, "A": 2}.items()
    rows = ask(outputs, "SELECT destination_id FROM inputs WHERE destination_type = 'RUN'")
    assert len(set(rows)) == len(rows) == RUNS
    assert set(ask(outputs, "SELECT name, value FROM input_tags")) == {("mlflow.data.context", "training")}


def test_shipping_again_changes_nothing(swept, capsys):
    outputs, runs = swept
    before = counts(outputs)
    result = genpolicy("mode=sync", f"paths.outputs={outputs}")
    assert result.code == 0, result.err
    assert f"{RUNS} runs of {outputs} are up to date" in result.out
    for run in runs:
        run.path("tracking.json").unlink()
    assert genpolicy("mode=sync", f"paths.outputs={outputs}").code == 0
    assert counts(outputs) == before
    assert stored(outputs) == {run.id: journaled(run) for run in runs}


def test_a_run_is_found_by_its_mlflow_id(swept):
    outputs, runs = swept
    ((number,),) = ask(outputs, "SELECT run_uuid FROM runs WHERE name = 'gmpo-gvp swiss-roll s2'")
    result = genpolicy("mode=eval", f"checkpoint={number}", f"paths.outputs={outputs}", f"paths.data={outputs}")
    assert f"{runs[2].directory}/last.pt: there is no such checkpoint" in result.err
    result = genpolicy("mode=eval", f"checkpoint={'0' * 32}", f"paths.outputs={outputs}")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "not a run of genpolicy in sqlite:///" in result.err


def test_a_store_thrown_away_is_filled_again(outputs):
    run = ended(outputs, SQLITE)
    assert genpolicy("mode=sync", f"paths.outputs={outputs}").code == 0
    (outputs / "mlflow.db").rename(outputs / "old.db")
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for engine in SqlAlchemyStore._engine_map.values():
        engine.dispose()  # this process still has the old file open
    assert genpolicy("mode=sync", f"paths.outputs={outputs}").code == 0
    assert stored(outputs) == {run.id: journaled(run)}


def test_an_importer_that_dies_after_storing_a_batch_makes_no_double(outputs, monkeypatch):
    run = ended(outputs, SQLITE, events=1300)
    store = tracking.open_store(tracking.store_uri(None, outputs), outputs)
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


def test_how_a_run_ended_is_its_status(outputs):
    runs = [opened(outputs, f"seed={seed}", SQLITE) for seed in range(5)]
    with pytest.raises(ZeroDivisionError), runs[0].recorded():
        _ = 1 / 0
    with pytest.raises(KeyboardInterrupt), runs[1].recorded():
        raise KeyboardInterrupt
    runs[2]._status = {"pid": 1, "host": "gone"}
    runs[2].note(state="running")
    for run in runs[:3] + runs[4:]:
        run.close()
    with runs[3].recorded():
        assert genpolicy("mode=sync", f"paths.outputs={outputs}").code == 0
        rows = dict(ask(outputs, "SELECT substr(name, -1), status FROM runs"))
        assert rows == {"0": "FAILED", "1": "KILLED", "2": "KILLED", "3": "RUNNING"}
    runs[3].close()
    ((reason,),) = ask(outputs, "SELECT value FROM tags WHERE key = 'genpolicy.reason' AND value LIKE 'Zero%'")
    assert reason == "ZeroDivisionError: division by zero"
    for number in (1, 2):
        again = opened(outputs, f"seed={number}", SQLITE)
        with again.recorded():
            pass
        again.close()
    assert genpolicy("mode=sync", f"paths.outputs={outputs}").code == 0
    rows = dict(ask(outputs, "SELECT substr(name, -1), status FROM runs"))
    assert rows == {"0": "FAILED", "1": "FINISHED", "2": "FINISHED", "3": "FINISHED"}
    assert ask(outputs, "SELECT value FROM tags WHERE key = 'genpolicy.reason'") == [(reason,)]  # of nobody else


def test_an_overwritten_run_leaves_the_view(outputs):
    old = ended(outputs, SQLITE)
    assert genpolicy("mode=sync", f"paths.outputs={outputs}").code == 0
    opened(outputs, SQLITE, "overwrite=true").close()
    new = ended(outputs, SQLITE, events=5)
    assert genpolicy("mode=sync", f"paths.outputs={outputs}").code == 0
    rows = ask(
        outputs,
        "SELECT tags.value, lifecycle_stage FROM runs JOIN tags USING (run_uuid) WHERE key = 'genpolicy.id'",
    )
    assert dict(rows) == {old.id: "deleted", new.id: "active"}
    assert stored(outputs)[new.id] == journaled(new)


@pytest.mark.usefixtures("no_figures")
def test_a_run_is_tracked_while_it_trains_and_the_next_run_ships_what_is_missing(outputs):
    missed = ended(outputs, SQLITE, "seed=5")
    result = genpolicy(*words(outputs, SQLITE, "tracking.checkpoints=true"))
    assert result.code == 0, result.err
    command = f"mlflow ui --host 127.0.0.1 --backend-store-uri 'sqlite:///{outputs}/mlflow.db'"
    assert f"dashboard: {command}" in result.out
    runs = [Run(directory) for directory in find_runs(outputs)]
    deadline = time.monotonic() + 60
    while set(stored(outputs)) != {run.id for run in runs} and time.monotonic() < deadline:
        time.sleep(0.1)
    assert stored(outputs) == {run.id: journaled(run) for run in runs}
    assert missed.id in stored(outputs)
    assert len(list((outputs / "mlartifacts").glob("*/artifacts/last.pt"))) == 1
    assert not (outputs / "mlruns").exists()


def test_training_never_imports_mlflow(outputs):
    code = "import sys; from genpolicy import app, tracking; tracking.WAIT_SECONDS = 0; app.main(); "
    code += "print('torch' in sys.modules, 'mlflow' in sys.modules)"
    command = [sys.executable, "-c", code, *words(outputs, SQLITE), "algo.critic_steps=9", "algo.policy_steps=9"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.endswith("True False\n")


@pytest.mark.usefixtures("no_figures")
def test_a_server_that_does_not_answer_and_then_does(outputs, monkeypatch):
    monkeypatch.setattr(tracking, "WAIT_SECONDS", 0.5)
    silent = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{silent.getsockname()[1]}"
    before = time.monotonic()
    result = genpolicy(*words(outputs, f"tracking.uri={address}"))
    assert result.code == 0, result.err
    assert time.monotonic() - before < 60
    assert f"tracking: still shipping to {address}" in result.out
    run = Run(only_run(outputs))
    assert run.finished
    silent.close()
    server = Server(int(address.rpartition(":")[2]), outputs)
    server.start()
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and is_locked(run.path("tracking.lock")):
            time.sleep(0.2)
        assert genpolicy("mode=sync", f"paths.outputs={outputs}").code == 0
        before = counts(outputs)
        assert stored(outputs) == {run.id: journaled(run)}
        run.path("tracking.json").unlink()
        assert genpolicy("mode=sync", f"paths.outputs={outputs}").code == 0
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
        (returns,) = (value for name, _, value in records(run.directory) if name == "final/return_mean")
        table = (away / "default" / "report" / "tables" / "scores_last.csv").read_text()
        assert table == f",gmpo-gvp\nswiss-roll (return),{returns:.1f}\n"
    finally:
        server.stop()


def test_an_importer_gives_up_a_server_that_stays_away(outputs, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    run = ended(outputs, f"tracking.uri={address}")
    monkeypatch.setattr(tracking, "PATIENCE_SECONDS", 0.2)
    with pytest.raises(SystemExit) as end:
        tracking.follow(run.directory)
    assert end.value.code == 1
    assert genpolicy("mode=sync", f"paths.outputs={outputs}", f"tracking.uri=sqlite:///{outputs}/mlflow.db").code == 0
    assert stored(outputs) == {run.id: journaled(run)}


def test_a_store_that_fails_is_one_line(tmp_path):
    ended(tmp_path, SQLITE)
    (tmp_path / "mlflow.db").write_text("no database" * 1000)
    result = genpolicy("mode=sync", f"paths.outputs={tmp_path}")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "1 runs could not be shipped" in result.err
    closed = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    closed.close()
    result = genpolicy("mode=sync", f"paths.outputs={tmp_path}", f"tracking.uri={address}")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert address in result.err


def test_nothing_to_ship_is_no_failure(tmp_path):
    assert genpolicy("mode=sync", f"paths.outputs={tmp_path}").code == 0
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="there is no store to ship to"):
        tracking.sync(opened(tmp_path).config)


def test_stores():
    assert tracking.store_uri(None, Path("/runs")) == "sqlite:////runs/mlflow.db"
    assert tracking.store_uri("none", Path("/runs")) is None
    assert tracking.store_uri("http://host:5000", Path("/runs")) == "http://host:5000"
    assert json.dumps(tracking.ENVIRONMENT["MLFLOW_DISABLE_TELEMETRY"]) == '"true"'


def test_one_follower_ships_all_runs_and_ends_with_them(outputs):
    first, second = ended(outputs, "seed=0", SQLITE), opened(outputs, "seed=1", SQLITE)
    code = "import pathlib, sys; from genpolicy import tracking; tracking.FOLLOW_SECONDS = 0.5; "
    code += "tracking.follow_all(pathlib.Path(sys.argv[1]), None)"
    command = [sys.executable, "-c", code, str(outputs)]
    with second.recorded(device="cpu"):
        follower = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        line = {"time": 1_700_000_000_000, "step": 1, "metrics": {"policy/loss": 1.0}}
        second.path("journal.jsonl").write_text(json.dumps(line) + "\n")
        deadline = time.monotonic() + 120
        while stored(outputs) != {run.id: journaled(run) for run in (first, second)}:
            assert follower.poll() is None, follower.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout == ""
        with second.path("journal.jsonl").open("a") as journal:
            journal.write(json.dumps(line | {"step": 2}) + "\n")
    second.close()
    assert follower.communicate(timeout=120)[0] == ""
    assert follower.returncode == 0
    assert stored(outputs) == {run.id: journaled(run) for run in (first, second)}
    assert ask(outputs, "SELECT status, COUNT(*) FROM runs GROUP BY status") == [("FINISHED", 2)]
