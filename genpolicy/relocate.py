"""A store's SQLite file that was moved with its artifacts: they lie at absolute addresses, which this corrects."""

from pathlib import Path
from urllib.parse import unquote, urlparse

from mlflow.store.model_registry.dbmodels.models import SqlModelVersion
from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlLoggedModel, SqlRun
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from genpolicy.view import EXPERIMENT

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


def _moved(place: str, artifacts: str) -> bool:
    """Whether a place is a local folder of the same name as `artifacts`, but not that one by another path."""
    former, here = (Path(unquote(urlparse(uri).path)) for uri in (place, artifacts))
    return urlparse(place).scheme == "file" and former.name == here.name and former.resolve() != here.resolve()
