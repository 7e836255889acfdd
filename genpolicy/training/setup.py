"""What a run is set up from: its task, data, algorithm and device, and the weights of a checkpoint."""

import re
from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from genpolicy.algo.actor import Actor
from genpolicy.algo.algorithm import Algorithm, assemble, horizon
from genpolicy.algo.compilation import CUDA_GRAPHS
from genpolicy.algo.phase import Phase
from genpolicy.config.run_settings import absolute
from genpolicy.config.schema import build, locate
from genpolicy.dataset.nothing import Nothing
from genpolicy.dataset.scaling import Scaling
from genpolicy.dataset.sequences import Sequences
from genpolicy.dataset.transitions import Transitions
from genpolicy.env.task import Task
from genpolicy.errors import UserError
from genpolicy.runs import checkpoint
from genpolicy.runs.run import POLICY, Run, load_run
from genpolicy.tracking import trackers


def find_run(config: DictConfig, setting: str = "checkpoint") -> tuple[Run, Path]:
    """The run that a setting names, as of this machine, and its checkpoint.

    It names a run directory, a checkpoint in it or an MLflow run id. Raises `UserError` if there is no such thing.
    """
    reference = OmegaConf.select(config, setting)
    path = Path(absolute(reference))
    if not path.exists() and re.fullmatch("[0-9a-f]{32}", reference):
        path = trackers.find_directory(reference, config)
    elif not path.exists():
        raise UserError(f"{setting}: {reference} is no run directory, checkpoint or MLflow run id")
    if path.is_dir() and not (path / "config.yaml").exists():
        deeper = (found for depth in range(4) for found in sorted(path.glob(f"{'*/' * depth}seed*/config.yaml")))
        if below := next(deeper, None):
            raise UserError(f"{setting}: {reference} is not a run directory; one below it is {below.parent}")
    path = path / "last.pt" if path.is_dir() else path
    path = path.parent.resolve() / path.name  # a link that the user names is followed; one in a run is not
    run = load_run(path.parent)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    run.config.threads, run.config.paths.data = config.threads, config.paths.data
    return run, path


def restore(algorithm: Algorithm, path: Path) -> int:
    """Gives an algorithm the weights of a checkpoint, and returns after how many updates they were saved.

    Raises `UserError` if they do not fit, or lack a critic that the policy acts by.
    """
    saved = checkpoint.load(path)
    try:
        if path.name == POLICY:
            actor = algorithm.actor()
            actor.load_state_dict(_of_actor(actor, saved["algorithm"], path))
        else:
            algorithm.load_state_dict(saved["algorithm"])
    except torch.OutOfMemoryError:
        raise
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise checkpoint.mismatch(path, error) from error
    return updates_of(path, saved)


def _of_actor(actor: Actor, weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Of the weights in `POLICY`, which has a critic where its run chooses by one, those that an actor takes."""
    without = {name: value for name, value in weights.items() if not name.startswith("critic.")}
    if actor.critic is None:
        return without
    if len(without) == len(weights):
        raise UserError(f"{path}: holds no critic, by which `select` chooses; the run directory or its last.pt has it")
    return weights


def updates_of(path: Path, saved: dict) -> int:
    """After how many updates the content of a checkpoint was saved. Raises `UserError` if that does not say."""
    try:
        return saved["state"]["updates"]
    except (KeyError, TypeError) as error:
        raise checkpoint.mismatch(path, error) from error


def stage_of(run: Run, path: Path, updates: int | None = None) -> str:
    """What begins the names of files on the policy in a checkpoint of a run: nothing for the trained one.

    updates: after how many it was saved, if it was read already; a run in training may have saved another one since.
    """
    if run.finished and path.name in ("last.pt", POLICY):
        return ""
    return stage_after(path, updates_of(path, checkpoint.load(path)) if updates is None else updates)


def stage_after(path: Path, updates: int) -> str:
    """As `stage_of`, of a policy in training after so many updates."""
    return f"{path.stem}-{updates}-"


def load(config: DictConfig, task: Task, device: torch.device) -> Transitions:
    """The transitions of a configuration, in the algorithm's units and on the device."""
    transitions = build(config.dataset, directory=config.paths.data).load(task)
    scaling = Scaling(task.observation_size, *bounds(task), **config.scaling)
    scaling.fit(transitions)
    return sequences(scaling.scale(transitions), config).to(device)


def sequences(transitions: Transitions, config: DictConfig) -> Transitions:
    """What batches are drawn from: the transitions, or as many of them at a time as the settings ask for."""
    length = horizon(config)
    if length == 1:
        return transitions
    algo, objective = (locate(config[name]._target_) for name in ("algo", "objective"))
    discount = config.critic.discount if algo.learns_critic else 1.0
    masked = algo.masks and objective.masks
    found = Sequences.of_transitions(transitions, length, config.chunk.length, discount, masked)
    return replace(found, scaling=transitions.scaling.repeated(config.chunk.length))


def bounds(task: Task) -> tuple[Tensor, Tensor]:
    """The ends [A] of a task's action space."""
    return torch.from_numpy(task.action_low), torch.from_numpy(task.action_high)


def data_facts(run: Run, task: Task, transitions: Transitions) -> dict:
    """What the run's status and MLflow say of the data that it is trained on."""
    first = transitions.observation[0] if transitions.size else torch.zeros(transitions.observation_size)
    example = transitions.scaling.unscale_observation(first.to(transitions.device))
    return {
        "name": f"{run.choices['dataset']} {task.name}",
        "digest": transitions.digest(),
        "source": transitions.source,
        "transitions": transitions.size,
        "episodes": transitions.behaviour.episodes,
        "example": example.tolist(),
        "shapes": {name: list(shape) for name, shape in transitions.shapes.items()},
    }


def fresh_algorithm(config: DictConfig, task: Task, device: torch.device) -> Algorithm:
    """The algorithm of a run for a task, on the device; the networks follow from the seed."""
    if config.threads:
        torch.set_num_threads(config.threads)
    algorithm = assemble(config, task.observation_size, *bounds(task), config.seed).to(device)
    return shorten(algorithm, config)


def shorten(algorithm: Algorithm, config: DictConfig) -> Algorithm:
    """The algorithm with the phases that its run trains: not those of given parts; with its share of the updates."""
    algorithm.given = frozenset(config.init.digests)
    online, last = config.online, []
    alone = locate(config.dataset._target_) is Nothing or (online.steps and algorithm.begins_online)
    offline = [] if alone else algorithm.phases
    if online.steps:
        goes_on = not alone or "policy" in algorithm.given
        last = [algorithm.online_phase((online.steps - online.start) * online.updates, goes_on)]

    def given(phase: Phase) -> bool:
        """Whether all that a phase trains is given, and it is no joint one, which is what goes on from that."""
        known = phase.trains and phase.trains.keys() <= algorithm.given
        return bool(known and (phase.depends or online.steps))

    algorithm.phases = [*(phase for phase in offline if not given(phase)), *last]
    for phase in algorithm.phases:  # whatever depends on the updates takes it from here
        phase.steps = max(1, round(config.budget * phase.steps))
    return algorithm


def choose_device(name: str, compile: str = "none") -> torch.device:
    """The device of that name; `auto` is a GPU if torch finds one.

    compile: how updates are compiled there. Raises `UserError` if that or the name needs a GPU, and there is none.
    """
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise UserError("device=cuda: torch finds no GPU here; use device=cpu or device=auto")
    if name == "auto":
        name = "cuda" if found else "cpu"
    if compile == CUDA_GRAPHS and name == "cpu":
        raise UserError("compile=cudagraphs: goes with a GPU, not with the CPU; use compile=none or compile=default")
    torch.backends.cuda.matmul.allow_tf32 = False  # but in `precision.arithmetic`; NVIDIA's containers begin with it
    return torch.device(name)
