"""Training a run, and evaluating the policy of one: what `mode=train` and `mode=eval` do."""

import contextlib
import json
import re
from pathlib import Path

import torch
from omegaconf import DictConfig

from genpolicy import checkpoint, tracking
from genpolicy.algo.algorithm import Algorithm, assemble
from genpolicy.assess import Assessor
from genpolicy.dataset.transitions import Transitions
from genpolicy.env.task import Task
from genpolicy.errors import UserError
from genpolicy.files import write_atomically
from genpolicy.interrupt import Signals
from genpolicy.progress import Progress, behaviour_metrics, print_table
from genpolicy.root import TrainSettings
from genpolicy.run import POLICY, Run, load_run
from genpolicy.settings import build, check, locate
from genpolicy.trainer import Trainer, Turns, draw_steps, steps_name


def train(run: Run, followed: bool = False) -> None:
    """Carry the run to its end, from its last checkpoint if there is one, and print its results.

    A finished run is left as it is. `followed` says that somebody ships the run to a store in a file. On SIGINT,
    SIGTERM, SIGUSR1 and SIGUSR2 saves a checkpoint and raises `Interrupted`.
    """
    with Signals() as signals:
        life, metrics = carry_out(run, signals, Progress(), followed), None
        while True:
            try:
                turn = life.send(metrics)
            except StopIteration:
                return
            try:
                metrics = turn.update()
            except BaseException as error:
                life.throw(error)  # the run says that it has failed


def carry_out(
    run: Run, signals: Signals, progress: Progress, followed: bool = False, transitions: Transitions | None = None
) -> Turns:
    """`train`, but for the updates, for each of which it waits. transitions: the run's, on its device, if loaded."""
    with contextlib.closing(run):
        if run.finished:
            print(f"{run.directory}: finished already; overwrite=true redoes it")
            return
        device = choose_device(run.config.device)
        with tracking.Tracker(run, followed) as tracker:
            with run.recorded(device=str(device)):
                tracker.start()
                print(f"{run.name}: {run.directory}", flush=True)
                task = build(run.config.env)
                if transitions is None:
                    transitions = load(run.config, task, device)
                algorithm = fresh_algorithm(run.config, task, device)
                run.note(data=data_facts(run, task, transitions))
                trainer = Trainer(run, task, transitions, algorithm, signals, progress)
                results = yield from trainer.fit()
            print_table(run.name, results)


def evaluate_run(reference: str, config: DictConfig) -> None:
    """Evaluate the policy of an existing run again; print the result, keep it as `evaluation-*.json` there.

    `reference` is a run directory, one of its checkpoints or an MLflow run id. The run's own configuration
    holds but for what `config` says about this machine (device, threads, paths.data), about the size of the
    evaluation and, if it does, about the selection among candidates. The episodes are those of the run's own
    final evaluation, as far as there are as many. Where the video that `eval.video` asks for cannot be made, raises
    `UserError` when all else is done.
    """
    run, path = find_run(reference, config)
    run.config.eval = config.eval
    chosen = ""
    if "select" in config:
        run.config.select = config.select
        chosen = f"-{locate(config.select._target_).__name__.lower()}{config.select.get('num_candidates', '')}"
    run.config = check(run.config, root=TrainSettings)
    task, transitions, algorithm = set_up(run.config, choose_device(config.device))
    updates = restore(algorithm, path)
    episodes = config.eval.final_episodes
    assessor = Assessor(task, transitions, algorithm, run.config)
    by_steps = {steps_name(count): assessor.with_steps(count, episodes)[0] for count in config.eval.steps}
    metrics, returns = assessor.final(algorithm.policy, episodes)
    data = behaviour_metrics(transitions.behaviour, task)
    results = {"behaviour data": data, "policy": metrics | assessor.latency(algorithm.policy)} | by_steps
    print_table(f"{run.name}: {path.name} after {updates:,} updates", results)
    kept = run.path(f"evaluation-{path.stem}-{updates}-{episodes}{chosen}.json")
    content = {"checkpoint": path.name, "updates": updates, "metrics": metrics, "returns": returns} | by_steps
    write_atomically(kept, json.dumps(content, indent=1).encode())
    draw_steps(by_steps, config.eval.steps, kept.with_suffix(".png"))
    print(kept)
    if config.eval.video:
        assessor.film(kept.with_suffix(".mp4"))
        print(kept.with_suffix(".mp4"))


def find_run(reference: str, config: DictConfig) -> tuple[Run, Path]:
    """The run of a run directory, a checkpoint in it or an MLflow run id, as of this machine, and the checkpoint."""
    path = Path(reference).expanduser().absolute()
    if not path.exists() and re.fullmatch("[0-9a-f]{32}", reference):
        path = tracking.find_directory(reference, config)
    elif not path.exists():
        raise UserError(f"{reference}: no run directory, checkpoint or MLflow run id")
    path = path / "last.pt" if path.is_dir() else path
    path = path.parent.resolve() / path.name  # a link that the user names is followed; one in a run is not
    run = load_run(path.parent)
    run.config.threads, run.config.paths.data = config.threads, config.paths.data
    return run, path


def restore(algorithm: Algorithm, path: Path) -> int:
    """Gives an algorithm the weights of a checkpoint, and returns after how many updates they were saved."""
    saved = checkpoint.load(path)
    try:
        if path.name == POLICY:
            algorithm.load_acting_state(saved["algorithm"])
        else:
            algorithm.load_state_dict(saved["algorithm"])
        return saved["state"]["updates"]
    except (KeyError, TypeError, RuntimeError) as error:
        raise checkpoint.mismatch(path, error) from error


def set_up(config: DictConfig, device: torch.device) -> tuple[Task, Transitions, Algorithm]:
    """The task, its transitions and a fresh algorithm, on the device; the networks follow from the seed."""
    task = build(config.env)
    return task, load(config, task, device), fresh_algorithm(config, task, device)


def load(config: DictConfig, task: Task, device: torch.device) -> Transitions:
    """The transitions of a configuration, on the device."""
    return build(config.dataset, directory=config.paths.data).load(task).to(device)


def data_facts(run: Run, task: Task, transitions: Transitions) -> dict:
    """What the run's status and MLflow say of the data that it is trained on."""
    return {
        "name": f"{run.choices['dataset']} {task.name}",
        "digest": transitions.digest(),
        "source": transitions.source,
        "transitions": transitions.size,
        "episodes": transitions.behaviour.episodes,
        "example": transitions.observation[0].tolist(),
        "shapes": {name: list(shape) for name, shape in transitions.shapes.items()},
    }


def fresh_algorithm(config: DictConfig, task: Task, device: torch.device) -> Algorithm:
    """The algorithm of a run for a task, on the device; the networks follow from the seed."""
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    bounds = torch.from_numpy(task.action_low), torch.from_numpy(task.action_high)
    algorithm = assemble(config, task.observation_size, *bounds).to(device)
    for phase in algorithm.phases:  # whatever depends on the updates takes it from here
        phase.steps = max(1, round(config.budget * phase.steps))
    return algorithm


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` is a GPU if torch finds one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
