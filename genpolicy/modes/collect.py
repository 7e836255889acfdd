"""`mode=collect`: episodes of a policy in a task's simulator, as a file in D4RL's layout.

Batches of whole episodes are played and appended to `<path>.part`, which is cut and becomes the file when it is long
enough. The seed and a batch's number decide all that is drawn in it, so that a command that was stopped and is given
again ends in the same file as one that was not.
"""

import functools
import json
import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from genpolicy.algo.actor import ActionQueue
from genpolicy.config.arguments import quoted, shell
from genpolicy.config.run_settings import named_file
from genpolicy.config.schema import build
from genpolicy.dataset.waypoint import WaypointController
from genpolicy.env.maze2d import Maze2d
from genpolicy.env.task import Task
from genpolicy.errors import UserError, counted
from genpolicy.evaluation.rollout import evaluation_seed, start_seeds, steps
from genpolicy.runs.job import Job
from genpolicy.system.files import being_written, no_link
from genpolicy.system.progress import Progress
from genpolicy.system.signals import Signals
from genpolicy.training.setup import find_run, fresh_algorithm, restore

Act = Callable[[torch.Tensor, torch.Generator], torch.Tensor]

BATCHES = 3 * 2**30  # the first index of the seeds of batches: those of evaluations and of online training are below


def run(job: Job) -> None:
    """Records what `config.collect` says; resumes what is there. On a signal keeps whole batches and stops."""
    config = job.config
    path = named_file("collect.path", config.collect.path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with being_written(path):
            _record(config, path)
        task = [word for word in job.overrides if word.startswith(("env=", "env."))]
        print(shell("genpolicy", *task, "dataset=hdf5", f"dataset.path={quoted(str(path))}"))
    except OSError as error:
        raise UserError(f"collect.path: {path} cannot be written ({error.strerror or error})") from error


def _record(config: DictConfig, path: Path) -> None:
    if path.exists():
        raise UserError(f"collect.path: {path} is there already; name another one, or delete it")
    part, wanted = no_link(path.with_name(path.name + ".part")), config.collect.steps
    # What decides the file, and is written into it; the length may grow.
    decisive = OmegaConf.to_container(config.env), config.collect.policy, config.collect.at_once, config.seed
    made_by = json.dumps(dict(zip(("env", "policy", "at_once", "seed"), decisive, strict=True)), sort_keys=True)
    task = build(config.env)
    begin = _policy(config, task)
    with Signals() as signals, Progress() as progress:
        rows, batches = _begin(part, made_by)
        progress.begin("steps", wanted, min(rows, wanted))
        with signals.deferred():
            while rows < wanted:
                seed = evaluation_seed(config.seed, BATCHES + batches)
                batch = play(task, begin(seed), config.collect.at_once, seed, signals.check)
                batches += 1
                rows = _append(part, batch, batches)
                progress.advance(min(rows, wanted))
            _cut(part, wanted)
            os.replace(part, path)
    print(f"{path}: {counted(wanted, 'step')}")


@torch.no_grad()
def play(task: Task, act: Act, episodes: int, seed: int, check: Callable[[], None]) -> dict[str, np.ndarray]:
    """The columns of D4RL's layout [N,...] of as many whole episodes, one after the other.

    `check` is called at every step and may raise.
    """
    generator, envs, states = torch.Generator().manual_seed(seed), task.make(episodes), []
    played = [defaultdict(list) for _ in range(episodes)]

    def noted(observation: torch.Tensor) -> torch.Tensor:
        check()
        states[:] = map(task.state, envs)
        return act(observation, generator)

    for step in steps(task, noted, start_seeds(seed, episodes), here=True):
        for number in np.flatnonzero(step.running):
            row = {
                "observations": step.observation[number].astype(np.float32),
                "actions": step.action[number],
                "rewards": np.float32(step.reward[number]),
                "terminals": step.terminated[number],
                "timeouts": step.truncated[number] and not step.terminated[number],
            }
            row |= {f"infos/{name}": value for name, value in states[number].items()}
            for name, value in row.items():
                played[number][name].append(value)
    return {name: np.array([value for episode in played for value in episode[name]]) for name in played[0]}


def _policy(config: DictConfig, task: Task) -> Callable[[int], Act]:
    """What makes a policy for a batch of episodes from its seed: observations [B,O], generator -> actions [B,A].

    Raises `UserError` if there is no such policy.
    """
    low, high = torch.from_numpy(task.action_low), torch.from_numpy(task.action_high)
    if config.collect.policy == "random":
        return lambda _: lambda seen, draw: low + (high - low) * torch.rand(len(seen), len(low), generator=draw)
    if config.collect.policy == "waypoint":
        if not isinstance(task, Maze2d):
            raise UserError(f"collect.policy=waypoint: steers the ball of maze2d, not env={task.name}")
        return functools.partial(WaypointController, task.simulate())
    run, path = find_run(config, "collect.policy")
    own = build(run.config.env)
    sizes = [(each.observation_size, each.action_size) for each in (own, task)]
    if sizes[0] != sizes[1]:
        raise UserError(f"collect.policy: {path} was trained for {own.name}, whose sizes are not those of {task.name}")
    algorithm = fresh_algorithm(run.config, task, torch.device("cpu"))
    restore(algorithm, path)
    return lambda _: ActionQueue(algorithm.act, run.config.chunk)


def _begin(part: Path, made_by: str) -> tuple[int, int]:
    """The rows and the whole batches that an earlier process has left, or an empty file."""
    try:
        with h5py.File(part, "a") as file:
            if file.attrs.setdefault("made_by", made_by) != made_by:
                begun = file.attrs["made_by"]
                raise UserError(
                    f"collect.path: {part} was begun with other settings ({begun}); delete it to start again"
                )
            rows, batches = int(file.attrs.get("rows", 0)), int(file.attrs.get("batches", 0))
            _resize(file, rows)
            return rows, batches
    except OSError as error:
        if part.exists() and part.stat().st_size and not h5py.is_hdf5(part):
            raise UserError(f"collect.path: {part} is damaged; delete it to start again") from error
        raise


def _append(part: Path, batch: dict[str, np.ndarray], batches: int) -> int:
    """Adds columns [n,...] to the file, and returns how many rows it has."""
    with h5py.File(part, "a") as file:
        rows = int(file.attrs.get("rows", 0))
        after = rows + len(batch["rewards"])
        for name, values in batch.items():
            if name not in file:
                shape = values.shape[1:]
                file.create_dataset(
                    name, (0, *shape), values.dtype, maxshape=(None, *shape), chunks=True, compression=1
                )
            file[name].resize(after, 0)
            file[name][rows:] = values
        file.attrs["rows"], file.attrs["batches"] = after, batches
    return after


def _cut(part: Path, rows: int) -> None:
    """Leaves so many rows of the file. Its batches are not whole then: what went on with it would begin anew."""
    with h5py.File(part, "a") as file:
        del file.attrs["rows"], file.attrs["batches"]
        file.flush()
        _resize(file, rows)


def _resize(file: h5py.File, rows: int) -> None:
    file.visititems(lambda _, column: column.resize(rows, 0) if isinstance(column, h5py.Dataset) else None)
