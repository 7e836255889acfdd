"""MLflow as a view of the journal: complete, and without doubles. The oracle is the SQLite file itself."""

import contextlib
import itertools
import json
import math
import os
import re
import shutil
import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
from command_line import genpolicy, jobs
from patience import PATIENCE
from store import SQLITE, ask, counts, importer, journaled, stored
from tiny import ended, opened, words

from genpolicy.errors import UserError
from genpolicy.launch.sweep import Sweep
from genpolicy.modes import sync as mode_sync
from genpolicy.runs.identity import GROUPS
from genpolicy.runs.job import Job
from genpolicy.runs.run import load_run, open_run
from genpolicy.system.files import Lock
from genpolicy.tracking import entities, follower, sync, trackers
from genpolicy.tracking.tracked import Record

RUNS = 3


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The runs of one sweep, shipped by as many importers started at once into a store that was not there."""
    outputs = tmp_path_factory.mktemp("a folder with spaces")
    runs = [ended(outputs, f"seed={seed}", SQLITE, events=40, sweep="abc") for seed in range(RUNS)]
    for name, content in {"figures/samples.png": b"a picture", "export/policy.onnx": b"a graph"}.items():
        runs[0].path(name).parent.mkdir()
        runs[0].path(name).write_bytes(content)
    runs[0].path("evaluation-last-9-8.mp4").write_bytes(b"a video")
    children = [importer(run.directory) for run in runs]
    said = [child.communicate(timeout=PATIENCE)[0] for child in children]
    assert [child.returncode for child in children] == [0] * RUNS, said
    return outputs, runs


@pytest.mark.slow
def test_importers_at_once_on_a_store_that_did_not_exist(swept):
    outputs, runs = swept
    assert stored(outputs) == {run.id: journaled(run) for run in runs}
    assert ask(outputs, "SELECT COUNT(*) FROM experiments WHERE name = 'genpolicy/default'") == [(1,)]
    rows = ask(outputs, "SELECT name, status FROM runs ORDER BY name")
    assert rows == [*((f"gmpo-gvp swiss-roll s{seed}", "FINISHED") for seed in range(RUNS)), ("sweep abc", "FINISHED")]


@pytest.mark.slow
def test_one_parent_for_a_sweep(swept):
    outputs, _ = swept
    ((parent,),) = ask(outputs, "SELECT run_uuid FROM runs WHERE name = 'sweep abc'")
    assert ask(outputs, "SELECT value FROM tags WHERE key = 'mlflow.parentRunId'") == [(parent,)] * RUNS


def test_the_parent_describes_what_has_become_of_the_sweep(outputs):
    for seed, score in enumerate((10.0, 20.0, 60.0)):
        run = ended(outputs, f"seed={seed}", SQLITE, sweep="abc")
        event = {"time": 10**12, "step": 9, "metrics": {"final/score_mean": score}}
        run.path("journal.jsonl").write_text(json.dumps(event) + "\n")
    sync.sync_all(outputs, None, {})
    ((said,),) = ask(
        outputs,
        "SELECT note.value FROM tags AS note JOIN tags AS parent ON parent.run_uuid = note.run_uuid "
        "WHERE note.key = 'mlflow.note.content' AND parent.key = 'genpolicy.parent'",
    )
    assert said.startswith("3 runs: 3 finished\n")
    assert "| gmpo | gvp | swiss-roll | 30.0 ± 26.5 (3) |" in said


def test_a_sweep_over_quoted_words_has_one_parent_whose_description_is_tried_again(outputs, monkeypatch):
    for seed in range(2):
        ended(outputs, f"seed={seed}", SQLITE, sweep="dataset.path='a b','c' (0123abcd)")
    store = trackers.open_store(trackers.store_uri(None, outputs), outputs)
    known = {store.uri: store}
    with monkeypatch.context() as away:
        away.setattr(store.client, "set_tag", lambda *_: 1 / 0)
        (failure,) = sync.sync_all(outputs, None, known).failures
    assert "division by zero" in failure
    assert sync.sync_all(outputs, None, known).failures == []
    assert ask(outputs, "SELECT COUNT(*) FROM runs") == [(3,)]
    ((said,),) = ask(outputs, "SELECT value FROM tags WHERE key = 'mlflow.note.content'")
    assert said.startswith("2 runs: 2 finished\n")


def test_a_user_without_a_name_is_a_number(outputs, monkeypatch):
    """As in a container that is run as some number."""

    def nameless():
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(entities.getpass, "getuser", nameless)
    run = ended(outputs, SQLITE)
    assert entities.tags(run, run.status())["mlflow.user"] == str(os.getuid())


@pytest.mark.parametrize("overwritten", [False, True])
def test_who_ships_a_run_ends_when_it_is_no_longer_there(tmp_path, monkeypatch, overwritten):
    """It would go on for ever, or send what another run in the folder writes under the name of the old one."""
    run, shipped = opened(tmp_path, SQLITE), []

    class Away:
        def ship(self, each):
            shipped.append(each.id)
            if len(shipped) > 1:
                return "finished"
            config = run.path("config.yaml")
            if overwritten:
                config.write_text(config.read_text().replace(run.id, "f" * 32))
            else:
                shutil.rmtree(run.directory)
            return "running"

        def describe_sweeps(self):
            pass

    monkeypatch.setattr(follower, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(follower, "open_tracker", lambda *_: Away())
    with contextlib.suppress(UserError), run.recorded():
        follower.sync_run(run.directory)
    assert shipped == [run.id, *(["f" * 32] if overwritten else [])]


def test_a_status_that_cannot_be_read_for_a_moment_ends_no_follower(tmp_path, monkeypatch):
    run, shipped = opened(tmp_path, SQLITE), []
    status, hidden = run.path("status.json"), run.path("hidden")

    class Blinking:
        def ship(self, each):
            shipped.append(each.id)
            if len(shipped) == 1:
                status.rename(hidden)
                status.mkdir()
                return "running"
            if hidden.exists():
                status.rmdir()
                hidden.rename(status)
            return "finished"

        def describe_sweeps(self):
            pass

    monkeypatch.setattr(follower, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(follower, "open_tracker", lambda *_: Blinking())
    with run.recorded():
        follower.sync_run(run.directory)
    assert len(shipped) > 1


def test_only_runs_that_differ_in_their_seeds_alone_share_a_line_of_a_sweeps_description():
    """Two algorithms, each with two values of its own setting: four lines."""
    runs = []
    for algo, name, beta, seed in itertools.product(("gmpo", "gmpg"), ["algo.beta"], ("1.0", "4.0"), ("0", "1")):
        tags = {f"genpolicy.{group}": "-" for group in GROUPS} | {"genpolicy.algo": algo, "genpolicy.state": "finished"}
        params = {name: beta, "seed": seed, f"algo.{algo}_only": "1", "algo.policy_lr": algo}
        metrics = {"final/score_mean": 10 * float(beta) + int(seed)}
        runs.append(SimpleNamespace(data=SimpleNamespace(tags=tags, params=params, metrics=metrics)))
    head, _, *lines = entities.sweep_note(runs).splitlines()[2:]
    assert head.endswith("| env | algo.beta | final score (runs) |")
    assert [line.split(" | ")[0] for line in lines] == 2 * ["| gmpg"] + 2 * ["| gmpo"]
    runs[0].data.tags["genpolicy.protocol"] = "episodes of 50 steps"
    head, _, *_, last = entities.sweep_note(runs).splitlines()[2:]
    assert head.endswith("| env | protocol | algo.beta | final score (runs) |")
    assert last.endswith("| episodes of 50 steps | 1.0 | 10.0 (1) |")
    assert [line.rpartition("- | ")[2] for line in lines] == 2 * ["1.0 | 10.5 ± 0.7 (2) |", "4.0 | 40.5 ± 0.7 (2) |"]
    runs[0].data.metrics["final/score_mean"] = math.nan
    assert entities.sweep_note(runs).endswith("| episodes of 50 steps | 1.0 |  |")
    runs[1].data.tags["genpolicy.protocol"] = "episodes of 50 steps"
    assert entities.sweep_note(runs).endswith("| episodes of 50 steps | 1.0 | 11.0 (1) |")


@pytest.mark.slow
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
    assert (artifacts / "export" / "policy.onnx").read_bytes() == b"a graph"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["dataset=ogbench_made", "dataset.sparse=true"], "made, sparse"),
        (["dataset.sparse=true", "critic.ensemble=10"], "sparse, 10 critics"),
        ([], None),
    ],
)
def test_the_protocol_is_a_tag_on_ogbench(more, said, tmp_path):
    ((job, _),) = jobs(*words(tmp_path, "env=ogbench-cube-double-play", *more))
    run = open_run(job.config, job.choices)
    assert entities.tags(run, {}).get("genpolicy.protocol") == said
    run.close()


@pytest.mark.slow
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


@pytest.mark.slow
def test_shipping_again_changes_nothing(swept, capsys):
    outputs, runs = swept
    before = counts(outputs)
    result = genpolicy("mode=sync", f"paths.outputs={outputs}")
    assert result.code == 0, result.err
    assert f": {RUNS} runs of {outputs}" in result.out
    for run in runs:
        run.path("tracking.json").unlink()
    assert genpolicy("mode=sync", f"paths.outputs={outputs}").code == 0
    assert counts(outputs) == before
    assert stored(outputs) == {run.id: journaled(run) for run in runs}


@pytest.mark.slow
def test_a_run_is_found_by_its_mlflow_id(swept):
    outputs, runs = swept
    ((number,),) = ask(outputs, "SELECT run_uuid FROM runs WHERE name = 'gmpo-gvp swiss-roll s2'")
    result = genpolicy("mode=eval", f"checkpoint={number}", f"paths.outputs={outputs}", f"paths.data={outputs}")
    assert f"{runs[2].directory}/last.pt: no such checkpoint" in result.err
    result = genpolicy("mode=eval", f"checkpoint={'0' * 32}", f"paths.outputs={outputs}")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "not a run of genpolicy in sqlite:///" in result.err


@pytest.mark.slow
def test_a_run_of_an_earlier_version_is_shipped(outputs):
    folder = outputs / "default" / "task" / "gmpo" / "seed0"
    shutil.copytree(Path(__file__).parents[1] / "data" / "earlier_runs" / "gmpo", folder)
    frozen = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(frozen.replace("uri: none", "uri: null"))
    assert sync.sync_all(outputs, None, {}).failures == []
    run = load_run(folder)
    assert stored(outputs) == {run.id: journaled(run)}


def test_a_store_thrown_away_is_filled_again(outputs):
    run = ended(outputs, SQLITE)
    assert genpolicy("mode=sync", f"paths.outputs={outputs}").code == 0
    (outputs / "mlflow.db").rename(outputs / "old.db")
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for engine in SqlAlchemyStore._engine_map.values():
        engine.dispose()  # this process still has the old file open
    assert genpolicy("mode=sync", f"paths.outputs={outputs}").code == 0
    assert stored(outputs) == {run.id: journaled(run)}


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


def test_a_store_that_fails_is_one_line(tmp_path):
    ended(tmp_path, SQLITE)
    (tmp_path / "mlflow.db").write_text("no database" * 1000)
    result = genpolicy("mode=sync", f"paths.outputs={tmp_path}")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert f"{tmp_path / 'mlflow.db'}: no MLflow store" in result.err
    closed = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    closed.close()
    result = genpolicy("mode=sync", f"paths.outputs={tmp_path}", f"tracking.uri={address}")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert address in result.err


def test_a_follower_that_fails_is_said_until_all_is_shipped(outputs, capsys):
    ended(outputs, SQLITE)
    (outputs / "follow.log").write_text("2026-01-01 00:00:00 the store is away\n")
    assert "the store is away" in genpolicy("mode=status", f"paths.outputs={outputs}").out
    assert genpolicy("mode=sync", f"paths.outputs={outputs}").code == 0
    assert "the store is away" not in genpolicy("mode=status", f"paths.outputs={outputs}").out
    (outputs / "follow.log").unlink()
    (outputs / "follow.log").mkdir()
    sync.start_follower(opened(outputs, "seed=1", SQLITE).config)
    assert "tracking: not started" in capsys.readouterr().out


def test_nothing_to_ship_is_no_failure(tmp_path):
    opened(tmp_path).close()  # which has not begun
    assert genpolicy("mode=sync", f"paths.outputs={tmp_path}").code == 0
    assert not (tmp_path / "mlflow.db").exists()
    with pytest.raises(UserError, match="there is no store to ship to"):
        mode_sync.run(Job(opened(tmp_path).config, {}, []))


def test_a_run_is_shipped_to_mlflow_while_another_process_ships_it_elsewhere(outputs):
    """As the process beside a run of a sweep does with `tracking.also`, as long as the run is trained."""
    run, seen = ended(outputs, SQLITE), []
    store = trackers.open_store(None, outputs)

    class Elsewhere:
        def ship(self, each):
            seen.append(sync.sync_all(outputs, None, {store.uri: store}))
            seen.append(sync.sync_all(outputs, "tensorboard", {}))
            return "finished"

        def describe_sweeps(self):
            pass

    with mock.patch.object(follower, "open_tracker", return_value=Elsewhere()):
        follower.sync_run(run.directory, "tensorboard", "tensorboard")  # as a list may say it twice
    assert [(outcome.shipped, outcome.busy) for outcome in seen[:2]] == [(1, []), (0, [run.directory])]
    assert stored(outputs) == {run.id: journaled(run)}


def test_what_two_trackers_have_been_told_is_kept_one_after_the_other(tmp_path):
    both = [Record(tmp_path, uri, "0a") for uri in ("tensorboard", "wandb")]
    other = Lock(tmp_path / "tracking.json.lock")
    assert other.acquire()
    keeping = threading.Thread(target=both[0].keep, kwargs={"offset": 1})
    keeping.start()
    keeping.join(0.2)
    assert keeping.is_alive()
    other.release()
    keeping.join()
    both[1].keep(offset=2)
    assert [Record(tmp_path, uri, "0a")["offset"] for uri in ("tensorboard", "wandb")] == [1, 2]


def test_a_follower_waits_for_who_ships_a_run(outputs, monkeypatch):
    """As the process beside a run does, for a while after its end."""
    run = ended(outputs, SQLITE)
    monkeypatch.setattr(sync, "FOLLOW_SECONDS", 0.01)
    other = Lock(run.path("tracking.lock"))
    assert other.acquire()
    threading.Timer(0.3, other.release).start()
    sync.sync_until_idle(outputs, [trackers.store_uri(None, outputs)])
    assert stored(outputs) == {run.id: journaled(run)}


def test_a_follower_waits_for_runs_that_wait_for_their_turn(tmp_path):
    opened(tmp_path).close()
    sweep = Sweep(tmp_path, "default", "0123abcd")
    sweep.save()
    assert not sync._unfinished(tmp_path)
    with sweep.in_progress():
        assert sync._unfinished(tmp_path)
    assert not sync._unfinished(tmp_path)


def test_stores():
    assert trackers.store_uri(None, Path("/runs")) == "sqlite:////runs/mlflow.db"
    assert trackers.store_uri("none", Path("/runs")) is None
    assert trackers.store_uri("http://host:5000", Path("/runs")) == "http://host:5000"
    assert json.dumps(trackers.ENVIRONMENT["MLFLOW_DISABLE_TELEMETRY"]) == '"true"'
