"""Several seeds of one experiment in one process (`seeds=0,1,2`): runs like any other, but for their updates.

The runs keep step: those that wait for the same update get it together (`genpolicy.training.vectorised`). After a crash
their checkpoints may be some updates apart; then those behind go first, until all are level. A run that ends or fails
leaves the others to go on.
"""

import contextlib
import sys
from collections.abc import Mapping

import numpy as np
import torch
from omegaconf import DictConfig

from genpolicy.algo.algorithm import horizon
from genpolicy.algo.update import Metrics
from genpolicy.config.schema import build
from genpolicy.dataset.scaling import Scaling
from genpolicy.dataset.transitions import Transitions
from genpolicy.env.task import Task
from genpolicy.errors import UserError, message, one_line
from genpolicy.runs import provenance
from genpolicy.runs.evaluations import is_pending
from genpolicy.runs.identity import directory_of, each_seed
from genpolicy.runs.run import Run, open_run, require_free
from genpolicy.system.progress import Progress, Stderr
from genpolicy.system.signals import Interrupted, Signals
from genpolicy.system.stopwatch import STOPWATCH
from genpolicy.tracking import sync
from genpolicy.training.setup import bounds, choose_device, fresh_algorithm, load, sequences
from genpolicy.training.train import FINISHED, evaluate_pending, training, withdrawing
from genpolicy.training.vectorised import VectorisedPhase


def train(config: DictConfig, choices: Mapping[str, str], sweep: str | None = None) -> None:
    """Train the runs of `config.seeds`, each as `training.train` does. sweep: the multirun they belong to.

    Raises `UserError` at the end if runs have failed, and at once for settings whose updates cannot be vectorised, or
    if another process owns one of the runs.
    """
    task, device = build(config.env), choose_device(config.device, config.compile)
    _try_out(config, task)
    with contextlib.ExitStack() as stack:
        runs = []
        for single in each_seed(config):  # before one is opened, and with `overwrite` deleted
            require_free(directory_of(single, choices))
        for single in each_seed(config):
            runs.append(open_run(single, choices, sweep))
            stack.callback(runs[-1].close)
        todo = [run for run in runs if run.asked is not None or not run.finished or is_pending(run.directory)]
        for run in runs:
            if run not in todo:
                print(FINISHED.format(run.directory))
        if todo:
            now = provenance.stamp(todo[0].config)
            data = load(todo[0].config, task, device)
            for run in todo:
                provenance.compare(run.directory, data, now)
            signals, console = stack.enter_context(Signals()), Stderr()
            fresh = [run for run in todo if not run.finished]
            shown = [Progress(console, steps=run is fresh[0]) for run in fresh]
            members = [
                _Member(run, signals, progress, (task, data)) for run, progress in zip(fresh, shown, strict=True)
            ]
            with signals.deferred(), withdrawing(todo):
                _Lockstep(members, config).run()
                for run in todo:
                    if run.finished:
                        evaluate_pending(run, signals, True, data)


class _Member:
    """One of the runs; between calls of `advance` it waits for an update of its `phase`, sampled from its `source`.

    common: the task, with the simulators of all, which are evaluated in turn, and the data. It is synced elsewhere:
    many processes never open one SQLite file.
    """

    def __init__(self, run: Run, signals: Signals, progress: Progress, common: tuple[Task, Transitions]):
        self.run, self.trainer = run, None
        self._stack, self._training = contextlib.ExitStack(), training(run, signals, progress, True, common)

    def advance(self, metrics: Metrics | None) -> bool:
        """Takes the metrics of the update that it waited for, if it did, and goes on to the next one, if there is one.

        Raises what ends the run, which then has been ended by it (`stop`).
        """
        try:
            if metrics is None:
                with STOPWATCH.paused():
                    self.trainer = self._stack.enter_context(self._training)
                    self._stack.enter_context(self.trainer.session())
                self._due = (
                    (phase, source) for phase in self.trainer.phases() for source in self.trainer.updates(phase)
                )
            else:
                self.trainer.record(metrics)
            due = next(self._due, None)
            if due is None:
                self._stack.close()
                return False
        except BaseException as error:
            self.stop(error)
            raise
        self.phase, self.source = due
        return True

    def stop(self, error: BaseException) -> None:
        """Ends the run for an exception, of which its status tells; an interruption leaves a checkpoint."""
        with contextlib.suppress(Exception, Interrupted):
            self._stack.__exit__(type(error), error, error.__traceback__)


class _Lockstep:
    """Runs that are trained together."""

    def __init__(self, members: list[_Member], config: DictConfig):
        self.members, self.config = members, config
        self.waiting: dict[_Member, None] = {}  # for an update
        self.failures: list[str] = []
        self._group = self._joint = None

    def run(self) -> None:
        """To the end of all. Whatever stops this process ends each of them cleanly."""
        ready = dict.fromkeys(self.members)
        try:
            while ready:
                self._advance(ready)
                if self._group is None:
                    sync.start_follower(self.config)
                ready = self._update()
        except BaseException as error:
            for member in self.waiting:
                member.stop(error)
            if isinstance(error, UserError):
                self.members[0].trainer.signals.check()  # as in a session of its own
            raise
        if self.failures:
            raise UserError(f"{len(self.failures)} of {len(self.members)} runs failed: {'; '.join(self.failures)}")

    def _advance(self, ready: dict[_Member, Metrics | None]) -> None:
        """Gives each run the metrics of its update, and lets it go on to where it waits for the next one."""
        stopped = None
        for member, metrics in ready.items():
            self.waiting.pop(member, None)
            try:
                if member.advance(metrics):
                    self.waiting[member] = None
            except Interrupted as error:  # the others are level with it only when they have their metrics, too
                stopped = error
            except Exception as error:
                self.failures.append(f"{member.run.directory.name}: {one_line(error)}")
                print(f"genpolicy: {self.failures[-1]}", file=sys.stderr, flush=True)
        if stopped is not None:
            raise stopped

    def _update(self) -> dict[_Member, Metrics]:
        """The next update of those that are furthest behind, as one; the metrics of each."""
        if not self.waiting:
            return {}
        least = min(member.trainer.state.updates for member in self.waiting)
        members = [member for member in self.waiting if member.trainer.state.updates == least]
        first = members[0].trainer
        group = first.state.phase, *members
        if group != self._group:
            algorithms = [member.trainer.algorithm for member in members]
            self._group, self._joint = group, VectorisedPhase(algorithms, first.state.phase)
        with first.arithmetic(members[0].phase):
            generators = [member.trainer.generator for member in members]
            sources = [member.source for member in members]
            size = members[0].phase.batch_size
            batches = [source.sample(size, own) for source, own in zip(sources, generators, strict=True)]
            metrics = self._joint(batches, generators, first.state.step)
        return dict(zip(members, metrics, strict=True))


def _try_out(config: DictConfig, task: Task) -> None:
    """Raises `UserError` if the updates of a configuration cannot be vectorised: makes each once, of invented data."""
    size = 4 + horizon(config)
    draw = np.random.default_rng(0).standard_normal
    low, high = task.action_low, task.action_high
    data = Transitions.of(
        {
            "observation": draw((size, task.observation_size)),
            "action": draw((size, len(low))).clip(low, high),
            "reward": draw(size),
            "next_observation": draw((size, task.observation_size)),
            "terminated": np.zeros(size),
        },
        ends=torch.arange(size) == size - 1,
        scaling=Scaling(task.observation_size, *bounds(task)),
    )
    data = sequences(data, config)
    algorithm = fresh_algorithm(config, task, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    for number, phase in enumerate(algorithm.phases):
        source = data if phase.prepare is None else phase.prepare(data)
        try:
            step = max(update.every for update in phase.updates.values()) - 1
            VectorisedPhase([algorithm], number)([source.sample(size, generator)], [generator], step)
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"seeds: these settings cannot be computed for several seeds at once ({message(error, 80)}...); "
                f"use -m seed={','.join(map(str, config.seeds))}"
            ) from error
