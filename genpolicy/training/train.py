"""Training a run to its end."""

import contextlib
from collections.abc import Iterator, Sequence

from genpolicy.config.schema import build
from genpolicy.dataset.transitions import Transitions
from genpolicy.env.task import Task
from genpolicy.evaluation.table import print_table
from genpolicy.runs import provenance
from genpolicy.runs.evaluations import pending
from genpolicy.runs.protocol import unscaled
from genpolicy.runs.run import Run
from genpolicy.system.forecast import duration
from genpolicy.system.progress import Progress
from genpolicy.system.signals import Interrupted, Signals
from genpolicy.tracking import follower
from genpolicy.training.evaluate import evaluate, show
from genpolicy.training.setup import choose_device, data_facts, fresh_algorithm, load
from genpolicy.training.trainer import Trainer

FINISHED = "{}: finished already; overwrite=true redoes it"


def train(run: Run, synced_elsewhere: bool = False, until: str | None = None) -> None:
    """Train the run to its end, from its last checkpoint if there is one, and print its results.

    until: a phase, after which it raises `PhaseTrained`.
    A finished run is evaluated as was asked, or left as it is. synced_elsewhere: whether another process ships the run
    to a store in a file. On a signal of `Signals.NOTED` saves a checkpoint and raises `Interrupted`.
    """
    with Signals() as signals, contextlib.closing(run), withdrawing([run]):
        if not run.finished:
            with training(run, signals, Progress(), synced_elsewhere) as trainer:
                trainer.fit(until)
        elif run.asked is None:
            print(FINISHED.format(run.directory))
        evaluate_pending(run, signals, synced_elsewhere)


@contextlib.contextmanager
def training(
    run: Run,
    signals: Signals,
    progress: Progress,
    synced_elsewhere: bool = False,
    common: tuple[Task, Transitions] | None = None,
) -> Iterator[Trainer]:
    """The trainer of a run, whose status and tracking go with it; at the end, its results are printed.

    synced_elsewhere: as for `train`. common: of runs that are trained together, their task, with its simulators, and
    their data, on the device.
    """
    device = choose_device(run.config.device, run.config.compile)
    with follower.Tracker(run, synced_elsewhere) as tracker:
        with run.recorded(device=str(device)):
            tracker.start()
            print(f"{run.name}: {run.directory}", flush=True)
            task, transitions = common or (build(run.config.env), None)
            now = provenance.stamp(run.config)
            if transitions is None:
                transitions = load(run.config, task, device)
            provenance.keep(run.directory, transitions, now)
            algorithm = fresh_algorithm(run.config, task, device)
            algorithm.scaling.load_state_dict(transitions.scaling.state_dict())
            run.note(data=data_facts(run, task, transitions), simulator=task.simulator_version)
            trainer = Trainer(
                run=run,
                task=task,
                transitions=transitions,
                algorithm=algorithm,
                signals=signals,
                progress=progress,
                together=common is not None,
            )
            yield trainer
            results = trainer.results()
        print_table(run.name, results, transitions.size > 0, unscaled(run.config, run.choices))
        for name, told in trainer.sharing.told.items():
            if told["reused"]:
                print(f"{name}: trained in {told['run']}, {duration(told['seconds'])} saved", flush=True)


@contextlib.contextmanager
def withdrawing(runs: Sequence[Run]) -> Iterator[None]:
    """Inside, a signal takes back what this command has asked of runs: the next command may not want it."""
    try:
        yield
    except Interrupted as error:
        unanswered = [run.asked for run in runs if run.asked is not None and run.asks and run.asked.record() is None]
        for asked in unanswered:
            asked.withdraw()
        if unanswered:
            print(f"{error.signal}: the evaluation is not kept; the same command makes it", flush=True)
        raise


def evaluate_pending(
    run: Run, signals: Signals, synced_elsewhere: bool = False, transitions: Transitions | None = None
) -> None:
    """Makes the evaluations that a finished run was asked for, and shows the one that the command wants.

    synced_elsewhere: as for `train`. transitions: as for `evaluate`.
    """
    progress = Progress()
    if waiting := list(pending(run)):
        with follower.Tracker(run, synced_elsewhere) as tracker:
            for asked in waiting:
                progress.say(f"evaluating the trained policy: {asked.title(run)}")
                path = run.path("last.pt")
                if error := evaluate(run, asked, path, run.config.device, signals.check, transitions):
                    progress.say(f"no video: {error}")
            tracker.start()
    if run.asked is not None and run.asked not in waiting:
        show(run, run.asked)
