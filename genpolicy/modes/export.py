"""`mode=export`: the policy of a run as a file that is used without genpolicy: ONNX, or a program of torch.export."""

import json
import math
import os
from pathlib import Path

import torch
from omegaconf import DictConfig
from rich import box
from rich.table import Table

from genpolicy.algo.actor import Actor
from genpolicy.config.legal import legal_options
from genpolicy.config.run_settings import named_file
from genpolicy.config.schema import build, locate
from genpolicy.dataset.nothing import Nothing
from genpolicy.dataset.transitions import Transitions
from genpolicy.env.task import Task
from genpolicy.errors import UserError
from genpolicy.export import graph, metadata, parity
from genpolicy.runs import provenance
from genpolicy.runs.evaluations import with_chosen
from genpolicy.runs.job import Job
from genpolicy.runs.run import Run
from genpolicy.system.console import console, plain
from genpolicy.system.files import being_written, new_folder, write_atomically
from genpolicy.training.setup import find_run, fresh_algorithm, restore

OBSERVATIONS = 1000  # at least, at which the graph is compared with the policy


def run(job: Job) -> None:
    """Writes the policy of `checkpoint` as a file, and what it is beside it in JSON; prints how near and fast it is.

    The run's own configuration holds but for the solver, the selection among candidates and how many actions of a chunk
    are played. Raises `UserError`, and leaves no file, if the policy is no fixed graph, if the graph gives other
    actions than the policy, if the run was made of other data, or if there is a file.
    """
    settings = job.config.export
    graph.require(settings.format)
    found, checkpoint = find_run(job.config)
    path = _target(found, settings)
    with new_folder(path.parent, own=int(settings.path is None)), being_written(path):
        _require_new(path)
        _export(job, found, checkpoint, path)


def _export(job: Job, found: Run, checkpoint: Path, path: Path) -> None:
    """As `run`, of a checkpoint of the run that was found, into a file that is not there."""
    settings = job.config.export
    config, choices = with_chosen(found, job)
    task = build(config.env)
    algorithm = fresh_algorithm(config, task, torch.device("cpu"))
    updates = restore(algorithm, checkpoint)
    actor = algorithm.actor().eval().requires_grad_(False)
    _require_fixed_steps(actor, config)
    data = _data(found, config, task)
    exported = graph.FORMATS[settings.format](graph.trace(actor, config.chunk.length, settings.batch), config.threads)
    batch = settings.batch or 1
    seen = _observations(data, actor, batch * math.ceil(OBSERVATIONS / batch))
    difference = parity.compare(actor, exported, seen, settings.batch)
    if not difference.share <= settings.tolerance:
        raise UserError(
            f"{path}: not written: its actions would differ from the policy's by up to {difference.share:.2g} of their "
            f"range, more than export.tolerance={settings.tolerance:g}; fewer solver steps enlarge rounding less"
        )
    latencies = parity.latencies(actor, exported, seen[:batch], config.chunk)
    content = metadata.about(found, config, choices, task, actor, exported, data)
    content["checkpoint"] = {"file": checkpoint.name, "updates": updates}
    source = "the data" if data is not None else "standard normal draws in the algorithm's units"
    content["parity"] = difference._asdict() | {"observations_from": source}
    content["latency"] = {"observations": batch, "threads": config.threads, "ms_per_action": latencies}
    _write(path, exported, content)
    _show(found, difference, source, latencies, batch)
    print(f"{path}\n{_beside(path)}")


def _target(found: Run, settings: DictConfig) -> Path:
    """The file that is to be written."""
    if settings.path is None:
        return found.path("export") / f"policy{graph.FORMATS[settings.format].suffix}"
    return named_file("export.path", settings.path)


def _require_new(path: Path) -> None:
    for each in (path, _beside(path)):
        if os.path.lexists(each):
            raise UserError(f"{each}: is there already; delete it, or name another file by export.path=")


def _beside(path: Path) -> Path:
    """The file of the metadata."""
    return path.with_name(f"{path.name}.json")


def _require_fixed_steps(actor: Actor, config: DictConfig) -> None:
    """Raises `UserError` if the policy's solver chooses its steps by what it computes."""
    if hasattr(actor.policy, "solver") and "steps" not in config.solver:
        requires = locate(config.solver._target_).requires
        legal = legal_options("solver", lambda solver: solver.requires is requires, lambda node: "steps" in node)
        raise UserError(f"solver: chooses its steps by what it computes, where a graph's are fixed; legal: {legal}")


def _data(found: Run, config: DictConfig, task: Task) -> Transitions | None:
    """The run's data, in the environment's units; None where they are not here, or there are none.

    Raises `DataChanged` if the run was made of others.
    """
    dataset = build(config.dataset, directory=config.paths.data)
    place = dataset.location(task)
    if isinstance(dataset, Nothing) or (place is not None and not place.exists()):
        return None
    now, data = provenance.stamp(config), dataset.load(task)
    provenance.compare(found.directory, data, now)
    return data


def _observations(data: Transitions | None, actor: Actor, count: int) -> torch.Tensor:
    """So many observations [count, O], in the environment's units: spread over the data, or drawn."""
    if data is not None:
        return data.observation[torch.arange(count) * data.size // count]
    draw = torch.Generator().manual_seed(0)
    return actor.scaling.unscale_observation(torch.randn(count, len(actor.scaling.mean), generator=draw))


def _write(path: Path, exported: graph.Graph, content: dict) -> None:
    """Both files, or none."""
    about = json.dumps(content, indent=1)
    write_atomically(_beside(path), about.encode())
    try:
        write_atomically(path, exported.content(about))
    except BaseException:
        _beside(path).unlink()
        raise


def _show(found: Run, difference: parity.Difference, source: str, latencies: dict[str, float], batch: int) -> None:
    title = f"{found.name}: at {difference.observations:,} observations of {source} the largest difference is "
    title += f"{difference.largest:.2g}, {difference.share:.2g} of the range of actions"
    if difference.ties:
        title += f"; at {difference.ties} more, two candidates have the same value but for rounding"
    console().print(plain(title))
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("an action" if batch == 1 else f"an action at each of {batch} observations")
    shown.add_column("ms", justify="right")
    for name, value in latencies.items():
        shown.add_row(name, f"{value:.3f}")
    console().print(shown)
