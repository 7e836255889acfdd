"""Training a run, and evaluating the policy of one: what `mode=train` and `mode=eval` do."""

import contextlib

from genpolicy.config.schema import build
from genpolicy.dataset.transitions import Transitions
from genpolicy.evaluation.table import print_table
from genpolicy.runs import provenance
from genpolicy.runs.evaluations import pending
from genpolicy.runs.run import Run
from genpolicy.system.progress import Progress
from genpolicy.system.signals import Signals
from genpolicy.tracking import follower
from genpolicy.training.evaluate import evaluate, show
from genpolicy.training.setup import choose_device, data_facts, fresh_algorithm, load
from genpolicy.training.trainer import Trainer, UpdateRequests

FINISHED = "{}: finished already; overwrite=true redoes it"


def train(run: Run, synced_elsewhere: bool = False) -> None:
    """Carry the run to its end, from its last checkpoint if there is one, and print its results.

    A finished run is evaluated as was asked, or left as it is. `followed` says that somebody ships the run to a store
    in a file. On SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 saves a checkpoint and raises `Interrupted`.
    """
    with Signals() as signals:
        coroutine, metrics = training_steps(run, signals, Progress(), synced_elsewhere), None
        while True:
            try:
                request = coroutine.send(metrics)
            except StopIteration:
                return
            try:
                metrics = request.update()
            except BaseException as error:
                coroutine.throw(error)  # the run says that it has failed


def training_steps(
    run: Run,
    signals: Signals,
    progress: Progress,
    synced_elsewhere: bool = False,
    transitions: Transitions | None = None,
) -> UpdateRequests:
    """`train`, but for the updates, for each of which it waits. transitions: the run's, on its device, if loaded."""
    with contextlib.closing(run):
        if not run.finished:
            yield from _to_its_end(run, signals, progress, synced_elsewhere, transitions)
        elif run.asked is None:
            print(FINISHED.format(run.directory))
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


def _to_its_end(
    run: Run, signals: Signals, progress: Progress, synced_elsewhere: bool, transitions: Transitions | None
) -> UpdateRequests:
    device = choose_device(run.config.device)
    with follower.Tracker(run, synced_elsewhere) as tracker:
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
