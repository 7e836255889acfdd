"""One thread for torch (the machines are shared), property tests without deadlines, and what makes tests quick."""

import gc
import math
import os
import shutil
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import settings
from tiny import undrawn

from genpolicy.evaluation import evaluator
from genpolicy.system import forecast
from genpolicy.tracking import trackers

torch.set_num_threads(1)
gc.set_threshold(20_000, 20, 100)  # torch's and MLflow's many objects, which stay, are looked through less often
settings.register_profile("genpolicy", deadline=None, derandomize=True)
settings.load_profile("genpolicy")


@pytest.fixture(scope="session", autouse=True)
def nothing_said_of_slow_machines():
    """Of a sweep whose jobs take long to check, how far that is: a line more where something else is busy."""
    with mock.patch.object(forecast, "SAY_SECONDS", math.inf):
        yield


@pytest.fixture(scope="session", autouse=True)
def small_costs():
    """A run of the tests waits for the disk some sixty times, and times a hundred actions."""
    with mock.patch.object(os, "fsync", autospec=True), mock.patch.object(evaluator, "TIMED", 5):
        yield


@pytest.fixture(autouse=True)
def permissions_end():
    """What a command lets this process import, by its environment, goes with the test."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty folder to work in: no options, runs or data of wherever the tests happen to run."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_figures():
    """Runs in this process draw nothing."""
    with undrawn():
        yield


@pytest.fixture(scope="session")
def template(tmp_path_factory) -> Path:
    """An empty store, whose tables take seconds to make."""
    folder = tmp_path_factory.mktemp("template")
    trackers.open_store(f"sqlite:///{folder}/mlflow.db", folder)
    return folder / "mlflow.db"


@pytest.fixture
def outputs(tmp_path, template) -> Path:
    """A folder for runs with an empty store in it."""
    shutil.copy(template, tmp_path / "mlflow.db")
    return tmp_path
