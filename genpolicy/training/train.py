"""Training a run, and evaluating the policy of one: what `mode=train` and `mode=eval` do."""

import contextlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from genpolicy.algo.algorithm import Algorithm, assemble
from genpolicy.config.run_settings import TrainSettings
from genpolicy.config.schema import TARGET, build, check
from genpolicy.dataset.transitions import Transitions
from genpolicy.env.task import Task
from genpolicy.errors import UserError
from genpolicy.evaluation.evaluator import Assessor
from genpolicy.evaluation.table import behaviour_metrics, print_table
from genpolicy.runs import checkpoint, provenance
from genpolicy.runs.evaluations import CHOSEN, Evaluation, pending
from genpolicy.runs.identity import identity
from genpolicy.runs.journal import Journal
from genpolicy.runs.run import POLICY, Run, claim_run, load_run
from genpolicy.system.progress import Progress
from genpolicy.system.signals import Signals
from genpolicy.tracking import follower
from genpolicy.training.trainer import Trainer, Turns, draw_steps, steps_name

FINISHED = "{}: finished already; overwrite=true redoes it"


def train(run: Run, followed: bool = False) -> None:
    """Carry the run to its end, from its last checkpoint if there is one, and print its results.

    A finished run is evaluated as was asked, or left as it is. `followed` says that somebody ships the run to a store
    in a file. On SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 saves a checkpoint and raises `Interrupted`.
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
        if not run.finished:
            yield from _to_its_end(run, signals, progress, followed, transitions)
        elif run.asked is None:
            print(FINISHED.format(run.directory))
        if waiting := list(pending(run)):
            with follower.Tracker(run, followed) as tracker:
                for asked in waiting:
                    progress.say(f"evaluating the trained policy: {asked.title(run)}")
                    path = run.path("last.pt")
                    if error := _evaluate(run, asked, path, run.config.device, signals.check, transitions):
                        progress.say(f"no video: {error}")
                tracker.start()
        if run.asked is not None and run.asked not in waiting:
            _show(run, run.asked)


def _to_its_end(
    run: Run, signals: Signals, progress: Progress, followed: bool, transitions: Transitions | None
) -> Turns:
    device = choose_device(run.config.device)
    with follower.Tracker(run, followed) as tracker:
        with run.recorded(device=str(device)):
            tracker.start()
            print(f"{run.name}: {run.directory}", flush=True)
            task = build(run.config.env)
            now = provenance.stamp(run.config)
            if transitions is None:
                transitions = load(run.config, task, device)
            provenance.keep(run.directory, transitions, now)
            algorithm = fresh_algorithm(run.config, task, device)
            run.note(data=data_facts(run, task, transitions))
            trainer = Trainer(run, task, transitions, algorithm, signals, progress)
            results = yield from trainer.fit()
        print_table(run.name, results)


def evaluate_run(reference: str, config: DictConfig, choices: Mapping[str, str]) -> None:
    """Evaluate the policy of an existing run again; print the result, keep it as `evaluation-*.json` there.

    `reference` is a run directory, one of its checkpoints or an MLflow run id. The run's own configuration
    holds but for what `config` says about this machine (device, threads, paths.data), about the size of the
    evaluation and, if it does, about solvers and the selection among candidates, whose options `choices` tell: none of
    it may be what training depends on. The episodes are
    those of the run's own final evaluation, as far as there are as many. What has been evaluated so before is answered
    from its record. Where the video of `eval.video` cannot be made, raises `UserError` when all else is done.
    """
    run, path = find_run(reference, config)
    wanted = run.config.copy()
    wanted.eval = config.eval
    chosen = dict(run.choices)
    for group in (group for group in CHOSEN if group in config):
        if TARGET in config[group]:
            wanted[group], chosen[group] = config[group], choices[group]
        else:
            wanted[group] = OmegaConf.merge(wanted[group], config[group])
    wanted = check(wanted, chosen, root=TrainSettings)
    if identity(wanted) != identity(run.config):
        raise UserError(
            f"solver: the updates of {run.directory} sample with it, and another one makes another run; leave it out, "
            "or give other numbers of its steps as in eval.steps=[1,2,5]"
        )
    trained = run.finished and path.name in ("last.pt", POLICY)
    stage = "" if trained else f"{path.stem}-{_updates(path, checkpoint.load(path))}-"
    asked = Evaluation.of(run.directory, wanted, chosen, stage)
    provenance.verify(run.directory, run.config)
    if asked.record() is not None and asked.path(".mp4").exists() >= config.eval.video:
        _show(run, asked)
        return
    owned = claim_run(run.directory, 1.0) if trained else run  # as the journal goes on
    with contextlib.closing(owned):
        if error := _evaluate(run, asked, path, config.device):
            raise error


def _evaluate(
    run: Run,
    asked: Evaluation,
    path: Path,
    device: str,
    check: Callable[[], None] = lambda: None,
    transitions: Transitions | None = None,
) -> UserError | None:
    """Makes an evaluation of the policy in a checkpoint, keeps and shows it; what is wrong with its video, if anything.

    check: called at each step, as that of `Assessor`. transitions: as for `carry_out`. Of the trained policy, the run's
    journal has its metrics, too.
    """
    config, device = asked.configuration(run), choose_device(device)
    task, now = build(config.env), provenance.stamp(config)
    if transitions is None:
        transitions = load(config, task, device)
    provenance.compare(run.directory, transitions, now)
    algorithm = fresh_algorithm(config, task, device)
    updates = restore(algorithm, path)
    assessor, episodes = Assessor(task, transitions, algorithm, config, check), config.eval.final_episodes
    by_steps = {count: assessor.with_steps(count, episodes) for count in config.eval.steps}
    metrics, returns = assessor.final(algorithm.policy, episodes)
    results = {"behaviour data": behaviour_metrics(transitions.behaviour, task)}
    results |= {"policy" if asked.stage else "final": metrics | assessor.latency(algorithm.policy)}
    results |= {steps_name(count): values for count, (values, _) in by_steps.items()}
    kept = asked.path(".json")
    if not asked.stage:
        with contextlib.closing(Journal(run.path("journal.jsonl"))) as journal:
            journal.log(updates, {f"{kept.stem}/{key}": value for key, value in metrics.items()}, returns)
            for count, (values, earned) in by_steps.items():
                journal.log(count, {f"{kept.stem}/steps/{key}": value for key, value in values.items()}, earned)
            journal.sync()
    asked.keep(run, checkpoint=path.name, updates=updates, metrics=metrics, returns=returns, results=results)
    draw_steps(results, config.eval.steps, asked.path(".png"))
    _show(run, asked)
    try:
        if config.eval.video:
            assessor.film(asked.path(".mp4"))
            print(asked.path(".mp4"))
    except UserError as error:
        return error
    return None


def _show(run: Run, asked: Evaluation) -> None:
    """Prints what an evaluation has found, and where it is kept."""
    record = asked.record()
    at = f"{record['checkpoint']} after {record['updates']:,} updates"
    print_table(f"{run.name}: {at}, {asked.title(run)}", record["results"])
    print(asked.path(".json"))


def find_run(reference: str, config: DictConfig) -> tuple[Run, Path]:
    """The run of a run directory, a checkpoint in it or an MLflow run id, as of this machine, and the checkpoint."""
    path = Path(reference).expanduser().absolute()
    if not path.exists() and re.fullmatch("[0-9a-f]{32}", reference):
        path = follower.find_directory(reference, config)
    elif not path.exists():
        raise UserError(f"{reference}: no run directory, checkpoint or MLflow run id")
    path = path / "last.pt" if path.is_dir() else path
    path = path.parent.resolve() / path.name  # a link that the user names is followed; one in a run is not
    run = load_run(path.parent)
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint")
    run.config.threads, run.config.paths.data = config.threads, config.paths.data
    return run, path


def restore(algorithm: Algorithm, path: Path) -> int:
    """Gives an algorithm the weights of a checkpoint, and returns after how many updates they were saved."""
    saved = checkpoint.load(path)
    try:
        if path.name == POLICY:
            algorithm.actor().load_state_dict(saved["algorithm"])
        else:
            algorithm.load_state_dict(saved["algorithm"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise checkpoint.mismatch(path, error) from error
    return _updates(path, saved)


def _updates(path: Path, saved: dict) -> int:
    try:
        return saved["state"]["updates"]
    except (KeyError, TypeError) as error:
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
