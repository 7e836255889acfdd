"""What MLflow shows of a run, in MLflow's own terms: its tags, parameters, data set and policy."""

import getpass
import json
import math
import os
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import mlflow.pyfunc
import numpy as np
from mlflow.entities import Dataset, DatasetInput, InputTag, Param
from mlflow.entities import Run as MlflowRun
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_GIT_COMMIT,
    MLFLOW_SOURCE_NAME,
    MLFLOW_USER,
)
from omegaconf import DictConfig, OmegaConf

from genpolicy.errors import counted
from genpolicy.runs.evaluations import LATER, as_text, recorded
from genpolicy.runs.identity import GROUPS, settings
from genpolicy.runs.protocol import known_of, protocol
from genpolicy.runs.run import POLICY, Run
from genpolicy.system.files import read_regular

EXPERIMENT = "genpolicy/"  # begins the names of experiments; the study follows
VALUE_LENGTH = 6000  # MLflow's limits
TAG_LENGTH = 8000
LARGEST_POLICY = 2**34  # bytes


def choices(run: Run) -> dict[str, str]:
    """The options that a run is composed of, and its seed, as tags."""
    return {f"genpolicy.{group}": run.choices[group] for group in GROUPS} | {"genpolicy.seed": str(run.config.seed)}


def tags(run: Run, status: dict) -> dict[str, str]:
    """What MLflow shows of a run beside its settings and metrics."""
    labels = choices(run) | {"genpolicy.id": run.id, "genpolicy.run_dir": run.directory}
    labels |= {"genpolicy.sweep": run.sweep, MLFLOW_SOURCE_NAME: "genpolicy", MLFLOW_USER: _user()}
    facts = ("state", "reason", "host", "pid", "device", "job", "dirty", "simulator")
    labels |= {f"genpolicy.{name}": status.get(name) for name in facts}
    labels |= {MLFLOW_GIT_COMMIT: status.get("commit"), "genpolicy.protocol": _protocol(run)}
    if versions := status.get("plugins"):
        labels["genpolicy.plugins"] = ", ".join(f"{package} {version}" for package, version in versions.items())
    for name, told in status.get("phases", {}).items():
        if told.get("reused"):
            labels[f"genpolicy.phase.{name}"] = f"trained in {told.get('run')}"
    labels |= {"genpolicy.log": run.path("log.txt") if run.path("log.txt").exists() else None}
    for digits, record in recorded(run.directory):
        told = {name: record[name] for name in ("choices", "changed", "without")}
        labels[f"{LATER}{digits}"] = json.dumps(told | {"changed": {k: as_text(v) for k, v in told["changed"].items()}})
    return {name: str(value)[:TAG_LENGTH] for name, value in labels.items() if value is not None}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())


def _protocol(run: Run) -> str | None:
    return protocol(known_of(run.config, run.choices)) or None


def sweep_note(children: Sequence[MlflowRun]) -> str:
    """What MLflow shows on the parent of a sweep's runs, as Markdown: how many of each state, and their scores.

    Runs that differ in their seeds alone share a line, with mean and standard deviation (n - 1) of the final scores, or
    of the returns where a task has no reference; those that are no finite numbers do not count.
    """
    options = {group: {run.data.tags.get(f"genpolicy.{group}", "") for run in children} for group in GROUPS}
    shown = [group for group in GROUPS if group in ("env", "algo", "model") or len(options[group]) > 1]
    shown += ["protocol"] if any("genpolicy.protocol" in run.data.tags for run in children) else []
    values: dict[tuple, set[str]] = {}  # of each setting, those of runs of the same options, which say others' settings
    for run in children:
        chosen = tuple(run.data.tags.get(f"genpolicy.{group}") for group in GROUPS)
        for name, value in run.data.params.items():
            values.setdefault((name, chosen), set()).add(value)
    varied = sorted({name for (name, _), found in values.items() if len(found) > 1 and name != "seed"})
    lines: dict[tuple, list[MlflowRun]] = {}
    for run in children:
        line = (run.data.tags.get(f"genpolicy.{group}", "") for group in shown)
        lines.setdefault((*line, *(run.data.params.get(name, "") for name in varied)), []).append(run)
    states = Counter(run.data.tags.get("genpolicy.state", "queued") for run in children)
    head = [*shown, *varied, "final score (runs)"]
    table = [head, ["---"] * len(head), *([*names, _score(runs)] for names, runs in sorted(lines.items()))]
    note = [f"{counted(len(children), 'run')}: {', '.join(f'{count} {state}' for state, count in states.items())}", ""]
    note += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in table]
    while len(text := "\n".join(note)) > TAG_LENGTH:
        note.pop()
    return text


def _score(runs: Sequence[MlflowRun]) -> str:
    kinds = {"final/score_mean": "{} ({})", "final/return_mean": "return {} ({})"}
    for name, form in kinds.items():
        found = [value for run in runs if math.isfinite(value := run.data.metrics.get(name, math.nan))]
        if found:
            spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
            return form.format(f"{statistics.fmean(found):.1f}{spread}", len(found))
    return ""


def params(config: DictConfig) -> list[Param]:
    """The settings that make the run what it is, by their dotted names; the rest is in config.yaml."""
    shown = settings(OmegaConf.to_container(config))
    return [Param(name, value[:VALUE_LENGTH]) for name, value in shown.items()]


def data_set(facts: dict) -> DatasetInput:
    """The data set that a run has noted in its status (`data_facts`), as what it was trained on."""
    source, shapes = facts["source"], facts["shapes"]
    if source.startswith(("http://", "https://")):
        kind, place = "http", {"url": source}
    elif Path(source).is_absolute():
        kind, place = "local", {"uri": source}
    else:
        kind, place = "code", {"tags": {MLFLOW_SOURCE_NAME: source}}
    columns = [ColSpec(Array(DataType.float) if shape else DataType.float, name) for name, shape in shapes.items()]
    profile = {"transitions": facts["transitions"], "finished episodes": facts["episodes"], "source": source}
    profile |= {"O": shapes["observation"][0], "A": shapes["action"][0]}
    entity = Dataset(
        facts["name"],
        facts["digest"],
        kind,
        json.dumps(place),
        json.dumps({"mlflow_colspec": Schema(columns).to_dict()}),
        json.dumps(profile),
    )
    return DatasetInput(entity, [InputTag(MLFLOW_DATASET_CONTEXT, "training")])


def save_policy(folder: Path, run: Run, data: dict, number: str, model_id: str) -> None:
    """Write the trained policy as MLflow's model `model_id` of MLflow's run `number` into a folder that is not there.

    Nothing is pickled: it holds the run's configuration and weights, which `genpolicy.api` loads. data: as for
    `data_set`.
    """
    sizes = [data["shapes"][name][0] for name in ("observation", "action")]
    tensors = (Schema([TensorSpec(np.dtype(np.float32), (-1, size))]) for size in sizes)
    chunks = run.config.chunk.length > 1  # which the served policy plays one action a request, until `reset`
    params = ParamSchema([ParamSpec("reset", DataType.boolean, False)]) if chunks else None
    signature = ModelSignature(*tensors, params)
    with tempfile.TemporaryDirectory() as temporary:
        content = Path(temporary) / "policy"
        content.mkdir()
        for name in ("config.yaml", POLICY):
            (content / name).write_bytes(read_regular(run.path(name), LARGEST_POLICY))
        mlflow.pyfunc.save_model(
            folder,
            loader_module="genpolicy.api",
            data_path=content,
            signature=signature,
            input_example=np.array([data["example"]], dtype=np.float32),
            pip_requirements=["genpolicy"],
            mlflow_model=Model(model_id=model_id, run_id=number, artifact_path="policy"),
        )
