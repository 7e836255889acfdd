"""Several seeds of one experiment in one process (`seeds=0,1,2`): runs like any other, but for their updates.

The runs keep step: each waits for its next update (`genpolicy.training.trainer.Turn`), and those that wait for the same
one get it together (`genpolicy.training.vectorised`). After a crash their checkpoints may be some updates apart; then
those behind go first, until all are level. A run that ends or fails leaves the others to go on.
"""

import contextlib
import sys
from collections.abc import Mapping

import numpy as np
import torch
from omegaconf import DictConfig
from rich.console import Console

from genpolicy.config.compose import explain
from genpolicy.config.schema import build
from genpolicy.dataset.transitions import Transitions
from genpolicy.env.task import Task
from genpolicy.errors import UserError
from genpolicy.runs import provenance
from genpolicy.runs.identity import each_seed
from genpolicy.runs.run import Run, open_run
from genpolicy.system.progress import Progress
from genpolicy.system.signals import Interrupted, Signals
from genpolicy.tracking import follower
from genpolicy.training.setup import choose_device, fresh_algorithm, load
from genpolicy.training.train import FINISHED, training_steps
from genpolicy.training.trainer import UpdateRequest, UpdateRequests
from genpolicy.training.vectorised import VectorisedPhase


def train(config: DictConfig, choices: Mapping[str, str], sweep: str | None = None) -> None:
    """Carry out the runs of `config.seeds`, each as `training.train` does. sweep: the multirun they belong to.

    Raises `UserError` at the end if runs have failed, and at once for settings whose updates cannot be vectorised, or
    if another process owns one of the runs.
    """
    task, device = build(config.env), choose_device(config.device)
    _try_out(config, task)
    with contextlib.ExitStack() as stack:
        runs = []
        for single in each_seed(config):
            runs.append(open_run(single, choices, sweep))
            stack.callback(runs[-1].close)
        todo = [run for run in runs if run.asked is not None or not run.finished]
        for run in runs:
            if run not in todo:
                print(FINISHED.format(run.directory))
        if todo:
            now = provenance.stamp(todo[0].config)
            data = load(todo[0].config, task, device)
            for run in todo:
                provenance.compare(run.directory, data, now)
            signals, console = stack.enter_context(Signals()), Console(stderr=True)
            # Many processes never open one SQLite file: then one process ships all runs.
            coroutines = {
                training_steps(run, signals, Progress(console, steps=run is todo[0]), True, data): run for run in todo
            }
            with signals.deferred():
                _Lockstep(coroutines, todo[0].config).run()


class _Lockstep:
    """Runs that are carried out together."""

    def __init__(self, coroutines: dict[UpdateRequests, Run], config: DictConfig):
        self.coroutines, self.config = coroutines, config
        self.waiting: dict[UpdateRequests, UpdateRequest] = {}
        self.failures: list[str] = []
        self._group = self._joint = None

    def run(self) -> None:
        """To the end of all. Whatever stops this process ends each of them in good order."""
        ready = dict.fromkeys(self.coroutines)
        total = len(self.coroutines)
        try:
            while ready:
                self._answer(ready)
                if self._group is None:
                    follower.start_follower(self.config)
                ready = self._update()
        except BaseException as error:
            for coroutine in self.waiting:
                with contextlib.suppress(Exception, Interrupted):
                    coroutine.throw(error)
            raise
        if self.failures:
            raise UserError(f"{len(self.failures)} of {total} runs failed: {'; '.join(self.failures)}")

    def _answer(self, ready: dict) -> None:
        """Gives each run the metrics of its update, and lets it go on to where it waits for the next one."""
        stopped = None
        for coroutine, metrics in ready.items():
            self.waiting.pop(coroutine, None)
            try:
                self.waiting[coroutine] = coroutine.send(metrics)
            except StopIteration:
                pass
            except Interrupted as error:  # the others are level with it only when they have their metrics, too
                stopped = error
            except Exception as error:
                self.failures.append(f"{self.coroutines[coroutine].directory.name}: {explain(error)}")
                print(f"genpolicy: {self.failures[-1]}", file=sys.stderr, flush=True)
        if stopped is not None:
            raise stopped

    def _update(self) -> dict:
        """The next update of those that are furthest behind, as one; what each is to be given."""
        if not self.waiting:
            return {}
        least = min(request.trainer.state.updates for request in self.waiting.values())
        requests = {
            coroutine: request for coroutine, request in self.waiting.items() if request.trainer.state.updates == least
        }
        first = next(iter(requests.values()))
        group = first.trainer.state.phase, *requests
        if group != self._group:
            algorithms = [request.trainer.algorithm for request in requests.values()]
            self._group, self._joint = group, VectorisedPhase(algorithms, first.trainer.state.phase)
        with first.arithmetic():
            batches = [request.batch() for request in requests.values()]
            generators = [request.trainer.generator for request in requests.values()]
            return dict(zip(requests, self._joint(batches, generators, first.progress), strict=True))


def _try_out(config: DictConfig, task: Task) -> None:
    """Raises `UserError` if the updates of a configuration cannot be vectorised: makes each once, of invented data."""
    size = 4
    draw = np.random.default_rng(0).standard_normal
    low, high = task.action_low, task.action_high
    data = Transitions.of(
        {
            "observation": draw((size, task.observation_size)),
            "action": draw((size, len(low))).clip(low, high),
            "reward": draw(size),
            "next_observation": draw((size, task.observation_size)),
            "terminated": np.zeros(size),
        }
    )
    algorithm = fresh_algorithm(config, task, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    for number, phase in enumerate(algorithm.phases):
        source = data if phase.prepare is None else phase.prepare(data)
        try:
            VectorisedPhase([algorithm], number)([source], [generator], 0.0)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:80]
            raise UserError(
                f"seeds: these settings cannot be computed for several seeds at once ({reason}...); "
                f"use -m seed={','.join(map(str, config.seeds))}"
            ) from error
