"""A store's SQLite file, and where its artifacts lie: at absolute addresses, corrected when both were moved."""

import contextlib
import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlparse

import mlflow
from mlflow.store.model_registry.dbmodels.models import SqlModelVersion
from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlLoggedModel, SqlRun
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from genpolicy.errors import UserError
from genpolicy.tracking.entities import EXPERIMENT

PATIENCE_SECONDS = 20  # for another program that has a file locked
TABLES = {"alembic_version", "experiments", "runs", "metrics", "tags"}  # some of MLflow's
PLACES = ((SqlExperiment, "artifact_location"), (SqlRun, "artifact_uri"), (SqlLoggedModel, "artifact_location"))
PLACES += ((SqlModelVersion, "storage_location"),)


def relocate(store: SqlAlchemyStore, artifacts: str) -> None:
    """Make what lies in the artifact folder that the store had elsewhere be found in `artifacts`, as a URI.

    That folder is the one of genpolicy's experiments, if it has the same name; others, such as s3://..., stay. The
    caller holds the store's lock.
    """
    with store.ManagedSessionMaker(read_only=False) as session:
        experiments = session.query(SqlExperiment.artifact_location).filter(SqlExperiment.name.startswith(EXPERIMENT))
        for former in {place for (place,) in experiments if place and _moved(place, artifacts)}:
            for table, column in PLACES:
                for row in session.query(table).filter(getattr(table, column).startswith(former, autoescape=True)):
                    rest = getattr(row, column).removeprefix(former)
                    if not rest or rest.startswith("/"):
                        setattr(row, column, artifacts + rest)


def check_database(database: Path) -> None:
    """Raises `UserError` for a file that is no MLflow store, before MLflow makes its tables there.

    And for one of a later version of MLflow, or that another program keeps locked.
    """
    address = f"{database.absolute().as_uri()}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=PATIENCE_SECONDS)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            versions = connection.execute("SELECT version_num FROM alembic_version") if tables >= TABLES else ()
            later = {version for (version,) in versions} - _versions()
    except sqlite3.Error as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise UserError(f"{database}: another program keeps it locked; wait for it, or end it") from error
        raise UserError(f"{database}: no MLflow store ({error}); move it away, or give tracking.uri=") from error
    if not tables >= TABLES:
        raise UserError(f"{database}: no MLflow store, but another database; move it away, or give tracking.uri=")
    if later:
        raise UserError(
            f"{database}: of a later version of MLflow than the {mlflow.__version__} that is installed; install that "
            "one, or give tracking.uri="
        )


def check_place(place: str, home: Path | None) -> None:
    """Raises `UserError` if artifacts would be put at `place`, outside the folder `home` (None: they may lie anywhere).

    A store that lies among the runs may come from other people, as they may.
    """
    address = urlparse(place)
    outside = home is not None and not Path(unquote(address.path)).resolve().is_relative_to(home.resolve())
    if outside or (home is not None and address.scheme != "file"):
        raise UserError(f"{home.parent}: its MLflow store would put files at {place}, outside {home}; move it away")


def _versions() -> set[str]:
    """The versions of its tables that the installed MLflow knows."""
    migrations = Path(mlflow.__file__).parent / "store/db_migrations/versions"
    return {path.name.partition("_")[0] for path in migrations.glob("*.py")}


def _moved(place: str, artifacts: str) -> bool:
    """Whether a place is a local folder of the same name as `artifacts`, but not that one by another path."""
    former, here = (Path(unquote(urlparse(uri).path)) for uri in (place, artifacts))
    return urlparse(place).scheme == "file" and former.name == here.name and former.resolve() != here.resolve()
