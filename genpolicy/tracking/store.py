"""Runs into MLflow. Shipping a run again, or going on where a killed importer stopped, changes nothing there.

Why there are no duplicates: a run carries its id as a tag and is searched before it is made; parameters, tags
and files replace equal ones; and MLflow's metrics have (run, key, step, time, value) as their primary key,
all of them fixed in the journal, so that a batch that was stored but not noted here is the same rows again.
"""

import contextlib
import hashlib
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric, RunStatus, RunTag, ViewType
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE, MLFLOW_SOURCE_NAME

from genpolicy.errors import UserError
from genpolicy.runs import journal
from genpolicy.runs.run import POLICY, Run
from genpolicy.runs.state import FINAL
from genpolicy.system import sqlite
from genpolicy.system.files import Lock, new_folder, no_link
from genpolicy.tracking import entities, tracked
from genpolicy.tracking.relocate import check_database, check_place, relocate
from genpolicy.tracking.tracked import Record

METRICS_PER_BATCH = 1000  # MLflow's limits
PARAMS_PER_BATCH = 100
STATUS = {
    "running": "RUNNING",
    "finished": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
    "died": "KILLED",
}


class Store:
    """One MLflow tracking store. `outputs` is the folder of the runs, for locks.

    A SQLite file is opened by one importer at a time, under a lock beside it; it is made under another name
    and renamed when its tables are complete, as a half-made one could never be used again. Its artifacts lie
    beside it, too, also after both were moved.
    """

    def __init__(self, uri: str, outputs: Path):
        self.uri, self.artifacts, self._home = uri, None, None
        self._parents: dict[str, str] = {}  # of sweeps to describe, and their experiments
        if (database := sqlite.file_of(uri)) is not None:
            if no_link(database).parent == outputs:  # it comes with the runs, and may be a stranger's as they may
                self._home = outputs / "mlartifacts"
            if os.path.lexists(database) and not database.is_file():  # which MLflow would try to open for minutes
                raise UserError(f"{database}: not a file, where MLflow's store is to be; move it away")
            with new_folder(database.parent):
                pass
            self.artifacts = (database.parent / "mlartifacts").as_uri()
            self._making = self._lock = Lock(database.with_name(database.name + ".lock"))
            with self._lock:
                if database.exists():
                    check_database(database)
                else:
                    self._make(database)
        else:
            name = hashlib.sha256(uri.encode()).hexdigest()[:8]
            self._making, self._lock = Lock(outputs / f".mlflow-{name}.lock"), contextlib.nullcontext()
        with self._lock:
            self.client = MlflowClient(tracking_uri=uri)
            self._database = None if self.artifacts is None else SqlAlchemyStore(uri, self.artifacts)
            if self._database is not None:
                relocate(self._database, self.artifacts)

    def ship(self, run: Run) -> str:
        """Bring MLflow's view of the run up to date; returns the state that it now shows.

        The caller holds the run's tracking lock. Raises whatever MLflow raises; calling again goes on.
        """
        place = tracked.place(run.directory)  # before anything is read: what changes from now on is shipped next time
        status = run.status()  # before the journal is read: if it is final, the journal is complete
        record = Record(run.directory, self.uri, run.id)
        found = self._find(run, record)
        before = dict(record)
        if found.info.lifecycle_stage == "deleted":
            return status["state"]  # somebody threw it away in MLflow
        number = found.info.run_id
        check_place(found.info.artifact_uri, self._home)
        self._tag(found, entities.tags(run, status))
        if "configured" not in record:
            self._configure(number, run)
            record["configured"] = True
        data = status.get("data")
        if data is not None and record.get("data") != data:
            with self._lock:
                self.client.log_inputs(number, [entities.data_set(data)])
            record["data"] = data
        self._metrics(number, run, record)
        self._files(number, run, record, status["state"] in FINAL)
        if record.get("state") != status["state"]:
            with self._lock:
                if status["state"] == "running":
                    self.client.update_run(number, status="RUNNING")
                else:
                    end = int(1000 * (status.get("finished") or status["updated"]))
                    self.client.set_terminated(number, STATUS[status["state"]], end_time=end)
            if status["state"] == "finished" and run.config.tracking.model:
                self._policy(found, run, data)
            record["state"] = status["state"]
            if status["state"] in FINAL and MLFLOW_PARENT_RUN_ID in found.data.tags:
                self._parents[found.data.tags[MLFLOW_PARENT_RUN_ID]] = found.info.experiment_id
        if record != before | {"place": place}:
            record.keep(place=place)
        return status["state"]

    def describe_sweeps(self) -> None:
        """Describe the sweeps on their parents of which runs have ended since the last time."""
        while self._parents:
            parent, experiment = next(iter(self._parents.items()))
            with self._lock:
                children = self._search(experiment, f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}'")
                self.client.set_tag(parent, MLFLOW_RUN_NOTE, entities.sweep_note(children))
                last = max((child.info.end_time or 0 for child in children), default=None)
                self.client.set_terminated(parent, RunStatus.to_string(RunStatus.FINISHED), last)
            del self._parents[parent]

    def directory(self, number: str) -> tuple[Path, str]:
        """The run directory of an MLflow run id, as last shipped, and the run's own id.

        Raises KeyError or MLflow's exception if there is none.
        """
        with self._lock:
            known = self.client.get_run(number).data.tags
        return Path(known["genpolicy.run_dir"]), known["genpolicy.id"]

    def studies(self) -> list[str]:
        """The names of all studies."""
        with self._lock:
            names = [experiment.name for experiment in self.client.search_experiments()]
        return [name.removeprefix(entities.EXPERIMENT) for name in names if name.startswith(entities.EXPERIMENT)]

    def runs(self, study: str, condition: str) -> list[MlflowRun] | None:
        """The training runs of a study that MLflow's search finds by `condition`; None if there is no such study."""
        with self._lock:
            experiment = self.client.get_experiment_by_name(entities.EXPERIMENT + study)
            if experiment is None:
                return None
            found = self._search(experiment.experiment_id, condition)
        return [run for run in found if "genpolicy.id" in run.data.tags]

    def histories(self, metric: str, numbers: Sequence[str]) -> dict[str, list[tuple[int, float, int]]]:
        """All (step, value, time) of a metric of each MLflow run id, in order; times in milliseconds since 1970."""
        found: dict[str, list] = {number: [] for number in numbers}
        with self._lock:
            if self._database is not None:  # all at once, which no server offers
                entries = self._database.get_metric_history_bulk(list(numbers), metric, max_results=2**31 - 1)
                for entry in entries:
                    found[entry.run_id].append(entry)
            else:
                found |= {number: self.client.get_metric_history(number, metric) for number in numbers}
        return {
            number: sorted((entry.step, _logged(entry.value), entry.timestamp) for entry in entries)
            for number, entries in found.items()
        }

    def _make(self, database: Path) -> None:
        unfinished = database.with_name(database.name + ".new")
        unfinished.unlink(missing_ok=True)
        SqlAlchemyStore(sqlite.uri_of(unfinished), self.artifacts).engine.dispose()
        unfinished.rename(database)

    def _find(self, run: Run, record: Record) -> MlflowRun:
        """The MLflow run of the run, made if there is none."""
        if "run" in record:
            try:
                with self._lock:
                    return self.client.get_run(record["run"])
            except MlflowException as error:
                if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                    raise
                record.clear()  # the store was thrown away and begun anew
        with self._making:
            experiment = self._experiment(entities.EXPERIMENT + run.config.study)
            found = self._tagged(experiment, "genpolicy.id", run.id)
            if not found:
                for old in run.replaces:
                    for overwritten in self._tagged(experiment, "genpolicy.id", old):
                        place = Path(overwritten.data.tags.get("genpolicy.run_dir", ""))
                        if place.parts[-4:] == run.directory.parts[-4:]:  # else it only says that it was overwritten
                            self.client.delete_run(overwritten.info.run_id)
                labels = entities.tags(run, run.status())
                if run.sweep is not None:
                    labels[MLFLOW_PARENT_RUN_ID] = self._parent(experiment, run.sweep)
                start = int(1000 * run.path("config.yaml").stat().st_mtime)
                found = [self.client.create_run(experiment, start, labels, run.name)]
        record.keep(run=found[0].info.run_id, experiment=experiment)
        return found[0]

    def _experiment(self, name: str) -> str:
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            return self.client.create_experiment(name, self.artifacts)
        if experiment.lifecycle_stage == "deleted":
            self.client.restore_experiment(experiment.experiment_id)
        return experiment.experiment_id

    def _search(self, experiment: str, condition: str, view: int = ViewType.ACTIVE_ONLY) -> list[MlflowRun]:
        found, token = [], None
        while token != "":
            page = self.client.search_runs([experiment], condition, view, page_token=token)
            found += page
            token = page.token or ""
        for run in found:
            run.data.metrics.update({name: _logged(value) for name, value in run.data.metrics.items()})
        return found

    def _tagged(self, experiment: str, tag: str, value: str) -> list[MlflowRun]:
        """The runs with a tag, those that were deleted included."""
        return self._search(experiment, f"tags.`{tag}` = '{value}'", ViewType.ALL)

    def _parent(self, experiment: str, sweep: str) -> str:
        """The run under which MLflow shows the runs of a multirun; a heading, so it never runs."""
        sweep = sweep.replace("'", '"')  # which MLflow's search knows no way to write
        found = self._tagged(experiment, "genpolicy.parent", sweep)
        if found:
            return found[0].info.run_id
        labels = {"genpolicy.parent": sweep, MLFLOW_SOURCE_NAME: "genpolicy"}
        parent = self.client.create_run(experiment, tags=labels, run_name=f"sweep {sweep}").info.run_id
        self.client.set_terminated(parent, RunStatus.to_string(RunStatus.FINISHED))
        return parent

    def _tag(self, found: MlflowRun, labels: dict[str, str]) -> None:
        """Change those tags that say something else now, and take off those that no longer hold."""
        number, known = found.info.run_id, found.data.tags
        changed = [RunTag(name, value) for name, value in labels.items() if known.get(name) != value]
        over = [name for name in known if name.startswith("genpolicy.") and name not in labels]
        with self._lock:
            if changed:
                self.client.log_batch(number, tags=changed)
            for name in over:
                self.client.delete_tag(number, name)

    def _configure(self, number: str, run: Run) -> None:
        params = entities.params(run.config)
        with self._lock:
            for start in range(0, len(params), PARAMS_PER_BATCH):
                self.client.log_batch(number, params=params[start : start + PARAMS_PER_BATCH])
            self.client.log_artifact(number, str(run.path("config.yaml")))

    def _metrics(self, number: str, run: Run, record: Record) -> None:
        """Send what the journal has beyond the part already sent; note after each batch how far it goes."""
        start = record.get("offset", 0)
        waiting: list[Metric] = []
        for event, end in tracked.unsent(run, record):
            metrics = event["metrics"].items()
            if len(waiting) + len(metrics) > METRICS_PER_BATCH:
                self._send(number, waiting, record, start)
                waiting = []
            waiting += [Metric(name, value, event["time"], event["step"]) for name, value in metrics]
            start = end
        if waiting:
            self._send(number, waiting, record, start)

    def _send(self, number: str, metrics: list[Metric], record: Record, offset: int) -> None:
        with self._lock:
            self.client.log_batch(number, metrics=metrics)
        record.keep(offset=offset)

    def _files(self, number: str, run: Run, record: Record, final: bool) -> None:
        """What `tracked.changed` finds new or changed; checkpoints at the end, if asked for."""
        checkpoints = ["last.pt", "best.pt"] if final and run.config.tracking.checkpoints else []
        for name, now in tracked.changed(run, record, *checkpoints):
            with self._lock:
                self.client.log_artifact(number, str(run.path(name)), os.path.dirname(name) or None)
            record["files"] = record.get("files", {}) | {name: now}

    def _policy(self, found: MlflowRun, run: Run, data: dict) -> None:
        """Log the trained policy as a model, with the run's final results; a model begun earlier is completed."""
        if not run.path(POLICY).exists():
            return  # of a version that did not write it
        number, experiment = found.info.run_id, found.info.experiment_id
        with self._lock, tempfile.TemporaryDirectory() as folder:
            models = self.client.search_logged_models([experiment], f"source_run_id = '{number}'")
            begun = [model for model in models if model.name == "policy"]
            if begun:
                (model,) = begun
            else:
                model = self.client.create_logged_model(experiment, "policy", number, entities.choices(run))
            if model.status == LoggedModelStatus.READY:
                return
            check_place(model.artifact_location, self._home)
            entities.save_policy(Path(folder) / "policy", run, data, number, model.model_id)
            self.client.log_model_artifacts(model.model_id, f"{folder}/policy")
            results = [
                Metric(name, value, event["time"], event["step"], model.model_id)
                for event, _ in journal.read(run.path("journal.jsonl"))
                for name, value in event["metrics"].items()
                if name.startswith("final/")
            ]
            self.client.log_batch(number, metrics=results)
            outputs = self.client.get_run(number).outputs.model_outputs
            if model.model_id not in [output.model_id for output in outputs]:
                self.client.log_outputs(number, [LoggedModelOutput(model.model_id, results[-1].step)])
            self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _logged(value: float) -> float:
    """The value of a metric as it was logged: in place of an infinite one SQL stores keep the largest number."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value
