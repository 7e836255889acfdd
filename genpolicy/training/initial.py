"""Runs that begin with parts of others: `init.policy|behaviour|critic=<run directory, checkpoint or MLflow run id>`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import torch
from omegaconf import DictConfig

from genpolicy.algo.algorithm import Algorithm
from genpolicy.config.schema import always_training
from genpolicy.errors import UserError
from genpolicy.model.generative import predicted
from genpolicy.runs import checkpoint
from genpolicy.runs.job import Job
from genpolicy.runs.run import Run
from genpolicy.training.setup import find_run
from genpolicy.training.sharing import layout

PARTS = ("policy", "behaviour", "critic")
AVERAGE = "target."  # begins the names of the weights of a policy's moving average
NO_SHAPE = {"lr", "discount", "target_rate", "init"}  # settings that change nothing of what given weights compute
MEANING = {"edit_scale", "noise_scale", "policy_activation", "squash"}  # of algo: what the weights of a policy compute
UNITS = ("mean", "std", "centre", "reach")  # the constants of a scaling


def resolve(jobs: Iterable[Job]) -> None:
    """Completes the configurations of training jobs: where the parts are that they begin with, and their digests.

    Raises `UserError` if there are none, or they are of another task or another shape.
    """
    for job in jobs:
        found = {}
        for part in named(job.config):
            run, path = find_run(job.config, f"init.{part}")
            found[part] = _digest(_weights(run, checkpoint.load(path)["algorithm"], part))
            _check_source(run, job.config, job.choices, part)
            job.config.init[part] = str(path)  # wherever the run is then trained
        given = dict(job.config.init.digests)
        if given and given != found:
            raise UserError(f"init.digests: are made by genpolicy, and are {found} here; leave them out")
        job.config.init.digests = found


def named(config: DictConfig) -> list[str]:
    """The parts that a configuration takes from other runs."""
    return [part for part in PARTS if config.init[part] is not None]


def put(algorithm: Algorithm, run: Run) -> None:
    """Gives a fresh algorithm of a run the parts that it begins with.

    Raises `UserError` if these are others than when the run was made, or are of another task, in other units, or of
    another shape.
    """
    for part in named(run.config):
        name = f"init.{part}"
        module = getattr(algorithm, part, None)
        if module is None:
            raise UserError(f"{name}: algo={run.choices['algo']} has none; leave it out")
        source, path = find_run(run.config, name)
        saved = checkpoint.load(path)["algorithm"]
        _check_source(source, run.config, run.choices, part)
        found = _weights(source, saved, part)
        if _digest(found) != run.config.init.digests[part]:
            raise UserError(f"{name}: {source.directory} has other weights now than when this run was made")
        for constant in UNITS:
            theirs, own = saved.get(f"scaling.{constant}"), getattr(algorithm.scaling, constant)
            if theirs is not None and not torch.allclose(theirs, own.cpu(), rtol=1e-5, atol=1e-6):
                raise UserError(
                    f"{name}: learned with other units of observations or actions (scaling.{constant}): other data, "
                    "or other settings of scaling"
                )
        own = module.state_dict()
        for key in own.keys() - found.keys():
            if key.startswith(AVERAGE):  # which it did not keep: begins at the weights
                found[key] = found[key.removeprefix(AVERAGE)]
        fits = {key: value for key, value in found.items() if key in own}
        if layout(fits) != layout(own):
            raise UserError(f"{name}: the weights of {source.directory} have other shapes than this run's {part}")
        module.load_state_dict(fits)


def _check_source(source: Run, config: DictConfig, choices: Mapping[str, str], part: str) -> None:
    """Raises `UserError` if a part of `source` is of another task than a run's, or computes something else."""
    if source.choices["env"] != choices["env"]:
        raise UserError(f"init.{part}: is of env={source.choices['env']}; this run is of env={choices['env']}")
    for group in ("critic",) if part == "critic" else ("model", "network"):
        theirs, own = (_shape(always_training(each[group])) for each in (source.config, config))
        if theirs != own:
            differs = sorted(key for key in theirs.keys() | own.keys() if theirs.get(key) != own.get(key))
            raise UserError(f"init.{part}: has another {group}: {', '.join(differs)}; give this run the same")
    flow = part != "critic" and "path" in config.model  # in both, as they have the same model
    if flow and (theirs := predicted(source.config)) != (own := predicted(config)):
        raise UserError(
            f"init.{part}: its network predicts the {theirs}, this run's the {own}; give the same objective"
        )
    if part == "policy":
        shared = source.config.algo.keys() & config.algo.keys() & MEANING
        if differs := sorted(name for name in shared if source.config.algo[name] != config.algo[name]):
            raise UserError(f"init.policy: has another algo: {', '.join(differs)}; give this run the same")


def _weights(run: Run, saved: dict, part: str) -> dict[str, torch.Tensor]:
    """The weights of a part among those of its algorithm."""
    begin = f"{part}."
    found = {key.removeprefix(begin): value for key, value in saved.items() if key.startswith(begin)}
    if not found:
        have = [f"init.{other}" for other in PARTS if any(key.startswith(f"{other}.") for key in saved)]
        raise UserError(f"init.{part}: {run.directory} has none; legal: {', '.join(have)}")
    return found


def _digest(weights: dict[str, torch.Tensor]) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of tensors and their names."""
    content = hashlib.sha256()
    for name, value in sorted(weights.items()):
        content.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        content.update(value.contiguous().view(-1).view(torch.uint8).numpy())
    return content.hexdigest()[:16]


def _shape(node: dict) -> dict:
    return {name: value for name, value in node.items() if name not in NO_SHAPE}
