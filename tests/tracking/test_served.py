"""The trained policy as an MLflow model: found in the run, free of pickles, and served over HTTP."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from mlflow_server import QUIET
from patience import PATIENCE, wait_until
from shipped import FIXED, models, ship, trained
from tiny import events, undrawn

import genpolicy
from genpolicy.tracking import sync, trackers

SEEN = [[0.5, -1.0], [3.0, 2.0]]


ROLL = ("env=swiss-roll", "algo=bc", "algo.behaviour_steps=3", "eval.per_phase=1")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory, template):
    """A folder and its runs, shipped twice: a policy without randomness, one without observations, one not logged."""
    outputs = tmp_path_factory.mktemp("shipped")
    shutil.copy(template, outputs / "mlflow.db")
    with undrawn():
        runs = [trained(outputs, *words) for words in (FIXED, ROLL, (*ROLL, "seed=1", "tracking.model=false"))]
    assert ship(outputs) == "[]\nFalse\n"
    for run in runs:
        run.path("tracking.json").unlink()
    assert sync.sync_all(outputs, f"sqlite:///{outputs}/mlflow.db", {}).failures == []
    return outputs, runs


@pytest.fixture(scope="module")
def logged(shipped):
    """The folder, the run of the policy without randomness, and its one model."""
    outputs, (run, *_) = shipped
    (model,) = [model for model in models(outputs) if model.tags["genpolicy.algo"] == "td3_bc"]
    return outputs, run, model


@pytest.mark.slow
def test_the_model_of_a_run(logged):
    outputs, run, model = logged
    client = MlflowClient(f"sqlite:///{outputs}/mlflow.db")
    found = client.get_run(model.source_run_id)
    (output,) = found.outputs.model_outputs
    assert output.model_id == model.model_id
    assert (model.name, model.status) == ("policy", LoggedModelStatus.READY)
    assert (found.data.tags["genpolicy.id"], model.tags["genpolicy.algo"]) == (run.id, "td3_bc")
    final = {name: value for event in events(run.directory) for name, value in event["metrics"].items()}
    final = {name: value for name, value in final.items() if name.startswith("final/")}
    assert {metric.key: metric.value for metric in model.metrics} == final


@pytest.mark.slow
def test_nothing_in_it_is_pickled_but_tensors(logged):
    folder = Path(logged[2].artifact_location.removeprefix("file://"))
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    weights = torch.load(files.pop("data/policy/policy.pt"), weights_only=True)
    assert {name.partition(".")[0] for name in weights["algorithm"]} == {"policy", "scaling"}
    for path in files.values():
        path.read_bytes().decode("ascii")
    assert files["data/policy/config.yaml"].read_bytes() == logged[1].path("config.yaml").read_bytes()


@pytest.mark.slow
def test_it_acts_as_the_run_does(logged):
    _, run, model = logged
    loaded = mlflow.pyfunc.load_model(model.artifact_location)
    (given,), (answer,) = loaded.metadata.signature.inputs.inputs, loaded.metadata.signature.outputs.inputs
    assert (given.shape, given.type, answer.shape) == ((-1, 2), np.float32, (-1, 2))
    seen = np.array(SEEN, dtype=np.float32)
    expected = genpolicy.load_policy(run.directory).act(seen)
    np.testing.assert_array_equal(loaded.predict(seen), expected)
    np.testing.assert_array_equal(genpolicy.load_policy(run.path("policy.pt")).act(seen), expected)
    example = loaded.input_example
    assert example.tolist() == [run.status()["data"]["example"]]
    with pytest.raises(mlflow.MlflowException, match=r"\(2, 3\) does not match expected shape \(-1, 2\)"):
        loaded.predict(np.zeros((2, 3), np.float32))


@pytest.mark.slow
def test_a_model_logged_with_the_earlier_name_of_its_loader_acts_the_same(logged, tmp_path):
    _, run, model = logged
    earlier = tmp_path / "model"
    shutil.copytree(model.artifact_location.removeprefix("file://"), earlier)
    written = (earlier / "MLmodel").read_text()
    assert "loader_module: genpolicy.api\n" in written
    (earlier / "MLmodel").write_text(
        written.replace("loader_module: genpolicy.api\n", "loader_module: genpolicy.served\n")
    )
    seen = np.array(SEEN, dtype=np.float32)
    expected = genpolicy.load_policy(run.directory).act(seen)
    np.testing.assert_array_equal(mlflow.pyfunc.load_model(str(earlier)).predict(seen), expected)


@pytest.mark.slow
def test_mlflow_serves_it(logged, tmp_path):
    outputs, run, model = logged
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"runs:/{model.source_run_id}/policy"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | QUIET | {"MLFLOW_TRACKING_URI": f"sqlite:///{outputs}/mlflow.db"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until(lambda: answers(port) or server.poll() is not None, lambda: (tmp_path / "log").read_text())
        assert server.poll() is None, (tmp_path / "log").read_text()
        question = json.dumps({"inputs": SEEN}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", question)
        request.add_header("Content-Type", "application/json")
        answer = json.load(urllib.request.urlopen(request, timeout=PATIENCE))
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    expected = genpolicy.load_policy(run.directory).act(np.array(SEEN, dtype=np.float32))
    np.testing.assert_allclose(answer["predictions"], expected, rtol=1e-6)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).status == 200
    return False


@pytest.mark.slow
def test_without_observations_and_not_at_all(shipped):
    (model,) = [model for model in models(shipped[0]) if model.tags["genpolicy.algo"] == "bc"]
    assert model.tags["genpolicy.seed"] == "0"
    loaded = mlflow.pyfunc.load_model(model.artifact_location)
    assert loaded.predict(np.zeros((3, 0), np.float32)).shape == (3, 2)


def test_a_model_begun_and_left_is_gone_on_with(outputs, monkeypatch):
    run = trained(outputs, *FIXED, "algo.steps=2")
    store = trackers.open_store(f"sqlite:///{outputs}/mlflow.db", outputs)

    def dying(*_, **__):
        raise KeyboardInterrupt

    for step in ("log_model_artifacts", "log_outputs", "finalize_logged_model"):
        with monkeypatch.context() as patch:
            patch.setattr(store.client, step, dying)
            with pytest.raises(KeyboardInterrupt):
                store.ship(run)
    assert [model.status for model in models(outputs)] == [LoggedModelStatus.PENDING]
    assert store.ship(run) == "finished"
    (model,) = models(outputs)
    assert model.status == LoggedModelStatus.READY
    assert len(store.client.get_run(model.source_run_id).outputs.model_outputs) == 1
