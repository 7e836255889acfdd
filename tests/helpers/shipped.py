"""Small trained runs in an MLflow store, for the tests of their models."""

import subprocess
import sys
from pathlib import Path

from command_line import last
from mlflow import MlflowClient
from tiny import words

from genpolicy import api
from genpolicy.runs.run import Run

# A policy without randomness: its answers can be compared.
FIXED = ("env=multi-goal", "algo=td3_bc", "model=gaussian", "critic=double_q", "objective=least_squares")
FIXED += ("network=mlp", "algo.steps=40", "eval.per_phase=1")
SMALL = [word for word in words(Path()) if not word.startswith(("env=", "algo", "eval.per_phase", "paths."))]


def trained(outputs: Path, *more: str) -> Run:
    places = [f"paths.outputs={outputs}", f"paths.data={outputs}"]
    return Run(api.train(*last([*SMALL, *places, *more])).directory)


def ship(outputs: Path) -> str:
    """Ships all runs in a process of its own; what it says: whether that needed torch."""
    code = "import pathlib, sys; from genpolicy.tracking import sync; outputs = pathlib.Path(sys.argv[1]); "
    code += "uri = f'sqlite:///{outputs}/mlflow.db'; print(sync.sync_all(outputs, uri, {}).failures); "
    code += "print('torch' in sys.modules)"
    return subprocess.run([sys.executable, "-c", code, outputs], capture_output=True, text=True, check=True).stdout


def models(outputs: Path) -> list:
    client = MlflowClient(f"sqlite:///{outputs}/mlflow.db")
    experiment = client.get_experiment_by_name("genpolicy/default").experiment_id
    return client.search_logged_models([experiment])
