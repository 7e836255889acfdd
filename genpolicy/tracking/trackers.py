"""Where runs are shown: MLflow's store and other trackers, how they are opened, and where one looks at them.

MLflow is imported by what opens its store only; a training process never does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from genpolicy.config.arguments import shell
from genpolicy.errors import UserError, one_line
from genpolicy.runs.run import Run
from genpolicy.system import sqlite

if TYPE_CHECKING:
    from genpolicy.tracking.store import Store
    from genpolicy.tracking.tensorboard import TensorBoard
    from genpolicy.tracking.wandb import WeightsAndBiases

# No reports home, no waiting for a server that does not answer, no chatter.
ENVIRONMENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_LOGGING_LEVEL": "WARNING"}
ENVIRONMENT |= {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
ENVIRONMENT |= {"GIT_PYTHON_REFRESH": "quiet"}


def store_uri(uri: str | None, outputs: Path) -> str | None:
    """The tracking URI that a setting means: null is a SQLite file in `outputs`, "none" no store (None)."""
    if uri is None:
        return sqlite.uri_of(outputs / "mlflow.db")
    return None if uri == "none" else uri


def chosen(tracking: DictConfig, outputs: Path) -> list[str]:
    """Where a configuration sends runs: the URI of MLflow's store, if any, and the names of other trackers."""
    uri = store_uri(tracking.uri, outputs)
    return [*([] if uri is None else [uri]), *tracking.also]


def dashboard(tracker: str, outputs: Path, experiment: str | None = None) -> str:
    """How to look at what a tracker has: the command, if one is needed, and the address.

    experiment: as `tracked.experiment` knows it; with MLflow's id the address is that of its runs: a click on it in
    MLflow's list leads to pages for language models.
    """
    if tracker == "tensorboard":
        return shell("tensorboard", "--logdir", str(outputs))
    if tracker == "wandb":
        return experiment or f"wandb sync {shlex.quote(str(outputs))}/*/*/*/*/wandb/offline-run-*"
    pages = f"/#/experiments{f'/{experiment}/runs' if experiment else ''}?workflowType=machine_learning"
    if tracker.startswith("http"):
        return tracker.rstrip("/") + pages
    command = shell("mlflow", "ui", "--host", "127.0.0.1", "--backend-store-uri", tracker)
    return f"{command}  (http://127.0.0.1:5000{pages})"


def open_tracker(tracker: str, outputs: Path) -> Store | TensorBoard | WeightsAndBiases:
    """MLflow's store of a URI, or the tracker of a name in `tracking.also`."""
    if tracker == "tensorboard":
        from genpolicy.tracking.tensorboard import TensorBoard

        return TensorBoard()
    if tracker == "wandb":
        from genpolicy.tracking.wandb import WeightsAndBiases

        return WeightsAndBiases()
    return open_store(tracker, outputs)


def open_store(uri: str | None, outputs: Path) -> Store:
    """The MLflow store (`tracking.store.Store`) that a setting means; a SQLite file is made if it is not there."""
    return _importer().Store(store_uri(uri, outputs), outputs)


def existing_store(config: DictConfig) -> Store:
    """The store of a configuration, to read. Raises `UserError` if there is none, or it cannot be reached."""
    outputs = Path(config.paths.outputs)
    uri = store_uri(config.tracking.uri, outputs)
    if uri is None or ((file := sqlite.file_of(uri)) is not None and not file.exists()):
        raise UserError(f"no MLflow store at {uri or config.tracking.uri}; give paths.outputs= or tracking.uri=")
    try:
        return open_store(uri, outputs)
    except Exception as error:  # as in `sync_run`
        raise UserError(f"{uri}: {one_line(error)}") from error


def opened(uri: str, outputs: Path) -> dict[str, Store]:
    """The MLflow store of a URI, by that; none while it is a SQLite file that is not there: it is made when needed.

    Raises `UserError` for one that cannot be read.
    """
    if (file := sqlite.file_of(uri)) is not None and not os.path.lexists(file):
        return {}
    try:
        store = open_store(uri, outputs)
        store.studies()
        return {uri: store}
    except Exception as error:  # as in `sync_run`
        raise UserError(f"{uri}: {one_line(error)}") from error


def find_directory(number: str, config: DictConfig) -> Path:
    """The run directory of an MLflow run id in the configured store. Raises `UserError` if there is none."""
    store = existing_store(config)
    try:
        directory, own = store.directory(number)
    except Exception as error:  # as in `sync_run`
        raise UserError(f"checkpoint={number}: not a run of genpolicy in {store.uri} ({one_line(error)})") from error
    moved = Path(config.paths.outputs).joinpath(*directory.parts[-4:])  # if the folder of all runs was
    for place in (directory, moved):
        with contextlib.suppress(UserError):
            if Run(place).id == own:
                return place
    raise UserError(
        f"checkpoint={number}: its run directory {directory} is not on this machine, or has been overwritten; "
        "paths.outputs= says where all runs were moved"
    )


def _importer() -> ModuleType:
    """The module that talks to MLflow, which reads its environment when it is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from genpolicy.tracking import store

    logging.getLogger("alembic").setLevel(logging.WARNING)
    return store
