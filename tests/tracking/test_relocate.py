"""A store moved with its runs: everything in it is found again, and nothing else is touched."""

import contextlib
import shutil
import sqlite3
import urllib.parse
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from shipped import FIXED, models, ship, trained

import genpolicy
from genpolicy.errors import UserError
from genpolicy.runs.run import Run
from genpolicy.tracking import relocate, sync, trackers

FOREIGN = {"genpolicy/bucket": "s3://bucket/mlartifacts", "mine": "file:///data/mlartifacts"}


def opened(outputs: Path):
    return trackers.open_store(f"sqlite:///{outputs}/mlflow.db", outputs).client


@pytest.fixture(scope="module")
def shipped(tmp_path_factory, template):
    """A store with a finished run, away from where it was filled; the run's id in MLflow, and that old folder."""
    folder = tmp_path_factory.mktemp("moved")
    old, away = folder / "old place", folder / "away"
    old.mkdir()
    shutil.copy(template, old / "mlflow.db")
    run = trained(old, *FIXED, "algo.steps=2")
    run.path("figures").mkdir(exist_ok=True)
    run.path("figures/picture.png").write_bytes(b"a picture")
    assert ship(old) == "[]\nFalse\n"
    client = MlflowClient(f"sqlite:///{old}/mlflow.db")
    for name, place in FOREIGN.items():
        client.create_run(client.create_experiment(name, place))
    (model,) = models(old)
    client.create_registered_model("best")
    client.create_model_version("best", model.artifact_location, model.source_run_id)
    shutil.move(old, away)
    return away, model.source_run_id, old


@pytest.fixture
def moved(shipped, tmp_path):
    """The folder to which the store was moved, the run's id in MLflow, and the old folder."""
    away, number, old = shipped
    shutil.copytree(away, tmp_path / "new")
    return tmp_path / "new", number, old


@pytest.mark.slow
def test_artifacts_and_runs_are_found_again(moved, tmp_path):
    new, number, old = moved
    (directory,) = new.glob("*/*/*/seed0")
    seen = np.ones((1, 2), np.float32)
    action = genpolicy.load_policy(directory).act(seen)
    np.testing.assert_array_equal(genpolicy.load_policy(number, f"paths.outputs={new}").act(seen), action)
    client = opened(new)
    assert client.get_run(number).data.tags["genpolicy.run_dir"].startswith(str(old))
    picture = client.download_artifacts(number, "figures/picture.png", tmp_path)
    assert Path(picture).read_bytes() == b"a picture"
    (model,) = models(new)
    np.testing.assert_array_equal(mlflow.pyfunc.load_model(model.artifact_location).predict(seen), action)
    place = client.get_model_version_download_uri("best", "1")
    assert Path(urllib.parse.urlparse(place).path, "MLmodel").exists()
    assert sync.sync_all(new, f"sqlite:///{new}/mlflow.db", {}).failures == []
    assert client.get_run(number).data.tags["genpolicy.run_dir"] == str(directory)
    assert len(models(new)) == 1
    assert not old.exists()


@pytest.mark.slow
def test_what_lies_elsewhere_stays(moved):
    client = opened(moved[0])
    for name, place in FOREIGN.items():
        experiment = client.get_experiment_by_name(name)
        assert experiment.artifact_location == place
        (run,) = client.search_runs([experiment.experiment_id])
        assert run.info.artifact_uri.startswith(place + "/")


@pytest.mark.slow
def test_another_path_to_the_same_folder_moves_nothing(moved, tmp_path):
    new, number, _ = moved
    before = opened(new).get_run(number).info.artifact_uri
    (tmp_path / "link").symlink_to(new)
    assert opened(tmp_path / "link").get_run(number).info.artifact_uri == before


@pytest.mark.slow
def test_a_run_that_was_overwritten_is_not_another_one(moved):
    new, number, _ = moved
    (directory,) = new.glob("*/*/*/seed0")
    frozen = directory / "config.yaml"
    frozen.write_text(frozen.read_text().replace(Run(directory).id, "0" * 32))
    with pytest.raises(UserError, match="is not on this machine, or has been overwritten"):
        genpolicy.load_policy(number, f"paths.outputs={new}")


def test_a_store_of_a_later_mlflow_is_said_and_left_as_it_is(outputs):
    with contextlib.closing(sqlite3.connect(outputs / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    before = (outputs / "mlflow.db").read_bytes()
    with pytest.raises(UserError, match=rf"mlflow.db: of a later version of MLflow than the {mlflow.__version__} that"):
        relocate.check_database(outputs / "mlflow.db")
    assert (outputs / "mlflow.db").read_bytes() == before


def test_a_locked_store_is_not_to_be_moved_away(outputs, monkeypatch):
    monkeypatch.setattr(relocate, "PATIENCE_SECONDS", 0)
    with contextlib.closing(sqlite3.connect(outputs / "mlflow.db", isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match=r"mlflow\.db: another program keeps it locked; wait for it, or end it"):
            relocate.check_database(outputs / "mlflow.db")
    relocate.check_database(outputs / "mlflow.db")
