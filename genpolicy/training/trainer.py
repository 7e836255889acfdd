"""The loop over the phases of one run: updates, evaluations, journal and checkpoints, resumable to the bit."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from genpolicy.algo.algorithm import Algorithm
from genpolicy.algo.compilation import CUDA_GRAPHS
from genpolicy.algo.phase import Phase, stream
from genpolicy.algo.update import Metrics
from genpolicy.config.schema import build
from genpolicy.dataset.dataset import Dataset
from genpolicy.dataset.transitions import Transitions
from genpolicy.env.task import Task
from genpolicy.errors import UserError
from genpolicy.evaluation.evaluator import FINAL, Evaluator
from genpolicy.evaluation.table import behaviour_metrics
from genpolicy.runs import checkpoint
from genpolicy.runs.identity import label
from genpolicy.runs.journal import Journal, read
from genpolicy.runs.run import POLICY, Run, same_command
from genpolicy.system.metrics import Usage
from genpolicy.system.progress import Progress
from genpolicy.system.signals import Interrupted, PhaseTrained, Signals
from genpolicy.system.stopwatch import STOPWATCH
from genpolicy.training import extending, initial
from genpolicy.training.final import FinalEvaluations, note
from genpolicy.training.late import spread
from genpolicy.training.online import Collector, Replay, remark_rewards, require_room
from genpolicy.training.precision import arithmetic, require
from genpolicy.training.sharing import Sharing
from genpolicy.training.state import State, is_of_another_device

T = TypeVar("T")

OFFLINE = "offline"  # the result of the policy before an online phase
LOGGED = 20  # entries of a phase in the journal, at least
UNSAVED = "{}: no checkpoint saved ({}); the last one is resumed"  # by a signal, and why


class Trainer:
    """The training of one run: `fit`, or `session` for one whose updates are made together with those of others."""

    def __init__(
        self,
        *,
        run: Run,
        task: Task,
        transitions: Transitions,
        algorithm: Algorithm,
        signals: Signals,
        progress: Progress,
        together: bool = False,
    ):
        self.run, self.config, self.signals, self.progress = run, run.config, signals, progress
        self.task, self.transitions, self.algorithm, self.together = task, transitions, algorithm, together
        self.device = transitions.device
        self.precision, self.checkpoint_seconds = run.config.precision, run.config.checkpoint_seconds
        require(self.precision, self.device)
        self.generator = torch.Generator(self.device)
        self.state = State()
        self.collector: Collector | None = None  # of an online phase, and what it was saved as
        self.collected: dict[str, Any] | None = None
        self.sharing = Sharing(run, algorithm, transitions.digest(), self.device, together, progress.say, signals.check)
        self.seconds = run.noted("spent", 0.0)  # on the current phase, before `self.begun`
        if run.config.online.steps:
            remark_rewards(task, self._dataset(), transitions)
            require_room(transitions, run.config.online.steps)
        for phase in algorithm.phases:
            phase.compile(run.config.compile)
        self.evaluator = Evaluator(task, transitions, algorithm, run.config, signals.check, progress)
        self.behaviour = behaviour_metrics(transitions.behaviour, task)

    def fit(self, until: str | None = None) -> None:
        """Train to the end, from the last checkpoint if there is one.

        until: a phase, after which it raises `PhaseTrained`, with a checkpoint.
        """
        with self.session():
            for phase in self.phases(until):
                for source in self.updates(phase):
                    with self.arithmetic(phase):
                        batch = source.sample(phase.batch_size, self.generator)
                        metrics = phase.update(batch, self.generator, self.state.step)
                    self.record(metrics)

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Inside, the run is trained, by `phases`, `updates` and `record`; at the end, its policies are evaluated.

        What interrupts it leaves a checkpoint.
        """
        last = self.run.path("last.pt")
        begun = last.exists()
        if begun:
            self._restore(last, checkpoint.load(last))
        made = self.sharing.circumstances()
        self.run.note(made=made if not begun or self.run.noted("made", None) == made else {"sessions": "that differ"})
        self.saved = self.begun = time.monotonic()  # when the last checkpoint was, and when the phase was resumed
        self.usage = Usage(self.device)
        with contextlib.closing(Journal(self.run.path("journal.jsonl"))) as self.journal:
            reward = self.transitions.reward_transform
            self.final = FinalEvaluations(
                self.run,
                self.task,
                self.algorithm,
                reward,
                self.evaluator,
                self.state,
                self.journal,
                self.progress,
                self._save,
            )
            rewards = {f"reward_{name}": value for name, value in reward.items() if isinstance(value, float)}
            self.journal.log(0, {f"data/{name}": value for name, value in (self.behaviour | rewards).items()})
            try:
                with self.signals.deferred(), self.progress:
                    if not begun:
                        self._begin()
                    yield
                    self._finish()
            except Interrupted as error:
                try:
                    self._save()
                    _say(f"{error.signal}: checkpoint saved; {same_command(bool(self.run.replaces))} resumes the run")
                except UserError as failed:  # which must not let a sweep go on that was told to stop
                    _say(UNSAVED.format(error.signal, failed))
                raise
            except UserError as failed:
                if self.signals.received is None:
                    raise
                error = Interrupted(self.signals.received)  # sent to all processes, it ends a compiler at work, too
                _say(UNSAVED.format(error.signal, failed))
                raise error from failed
            finally:
                self.sharing.close()

    def results(self) -> dict[str, dict[str, float]]:
        """The metrics of the data's behaviour and of each policy's final evaluation; after `session` with latency."""
        return {"behaviour data": self.behaviour} | self.final.results()

    def phases(self, until: str | None = None) -> Iterator[Phase]:
        """The phases that are left to train, of which the first may have begun; those that are shared are taken.

        Each has random numbers of its own, which follow from the seed and its name. until: as for `fit`.
        """
        done = self.algorithm.phases[: self.state.phase]
        if until in (phase.name for phase in done):
            raise PhaseTrained(until)
        for phase in self.algorithm.phases[self.state.phase :]:
            if phase.online and phase.goes_on:
                with STOPWATCH.paused():
                    self.final.evaluate(OFFLINE, self.algorithm.policy)
            self.begun = time.monotonic()
            if not self._take(phase):
                if not self.state.begun and self.state.step == 0:
                    own = stream(self.config.seed, phase.name)
                    self.generator.manual_seed(own)
                    self.sharing.begin()
                    torch.manual_seed(own)  # no draw outside the run's generator is meant to be
                    if phase.start is not None:
                        phase.start()
                    self.state.begun = True
                yield phase
                self.seconds += time.monotonic() - self.begun
                self.sharing.give(phase, self._events(phase), self.seconds)
            self.state.phase, self.state.step, self.state.evaluated = self.state.phase + 1, 0, 0
            self.state.begun = False
            self.seconds, self.begun = 0.0, time.monotonic()
            self._save()
            if phase.name == until:
                raise PhaseTrained(until)

    def _begin(self) -> None:
        """What a run begins with that others have trained."""
        initial.put(self.algorithm, self.run)
        shorter = extending.shorter(self.run, self.algorithm, self.generator, self.progress.say)
        if shorter is None:
            return
        self._restore(shorter.directory / "last.pt", shorter.saved)
        state, phase = self.state, self.algorithm.phases[-1]
        state.phase, state.step, state.results = len(self.algorithm.phases) - 1, shorter.steps, {}
        state.evaluated = sum(point <= shorter.steps for point in self._points(phase))
        for event in shorter.events:
            self.journal.log(event["step"], event["metrics"], event.get("returns"))
        if shorter.best is not None:
            checkpoint.save(self.run.path("best.pt"), shorter.best)
        self.sharing.inherit(shorter.directory)
        self.run.note(extends=label(shorter.directory), made=shorter.made)
        self._save()

    @STOPWATCH.paused()
    def _take(self, phase: Phase) -> bool:
        """Whether the phase was trained by another run: then it is as if this one had."""
        taken = self.sharing.take(phase)
        if taken is None:
            return False
        state, (events, evaluated) = self.state, taken
        final = phase.policy is self.algorithm.policy
        begin, points = state.updates - state.step, self._points(phase)
        for event in events:
            own = evaluated and not final
            metrics = {name: value for name, value in event["metrics"].items() if own or not name.startswith("eval/")}
            self.journal.log(begin + event["step"], metrics, event.get("returns") if own else None)
        state.updates, state.step, state.begun = begin + phase.steps, phase.steps, True
        state.sums, state.counts = {}, {}
        before, state.evaluated = state.evaluated, len(points) - final
        state.evaluations += state.evaluated - before
        if final:  # only as it is at the end, as it would be then
            if alone := len(points) > 1:
                self.progress.say(
                    f"the {phase.name} phase is evaluated at its end alone: without evaluations on the way there is no "
                    "best checkpoint of it and no late mean; phases.reuse=false trains it here"
                )
            self._evaluate(phase, alone)
        return True

    def _events(self, phase: Phase) -> Iterator[dict]:
        """The metrics of the phase that has just ended, by steps from its begin on."""
        begin = self.state.updates - phase.steps
        for event, _ in read(self.run.path("journal.jsonl")):
            kept = {
                name: value for name, value in event["metrics"].items() if name.startswith((f"{phase.name}/", "eval/"))
            }
            if event["step"] > begin and kept:
                yield event | {"step": event["step"] - begin, "metrics": kept}

    def _points(self, phase: Phase) -> list[int]:
        """The steps of a phase after which its policy is evaluated."""
        return [] if phase.policy is None else spread(self.config.eval.per_phase, phase.steps)

    def updates(self, phase: Phase) -> Iterator[Transitions]:
        """The updates that are left of a phase: what the batch of each is to be sampled from.

        Between two of them it evaluates and saves what is due, and raises `Interrupted` at a signal.
        """
        state = self.state
        source = self._begin_online() if phase.online else self.transitions
        source = self._prepared(phase, source)
        points = self._points(phase)
        # A short phase of long updates, as GMPG's, is logged more often: at least LOGGED times.
        self.log_every = max(1, min(self.config.log_every, phase.steps // LOGGED))
        self.progress.begin(phase.name, phase.steps, state.step)
        self.mark = state.updates, STOPWATCH.now()  # from where the rate of the updates is taken
        self.compiling = self.config.compile not in ("none", CUDA_GRAPHS)
        if self.compiling:
            self.progress.say(f"compiling the updates of the {phase.name} phase")
        while True:
            if state.evaluated < len(points) and state.step == points[state.evaluated]:
                self._evaluate(phase)
            if state.step == phase.steps:
                return
            self._save_if_due()
            if phase.online:
                source.progress = state.step / phase.steps
                self._play(state.step)
            if phase.refresh and state.step and state.step % phase.refresh == 0:
                phase.start()
                source = self._prepared(phase, self.transitions)
            yield source

    def _prepared(self, phase: Phase, source: Transitions) -> Transitions:
        """What the batches of a phase are sampled from; raises `Interrupted` at a signal."""
        if phase.prepare is None:
            return source

        def watch(what: str, parts: Sequence[T]) -> Iterator[T]:
            for part in self.progress.through(what, parts):
                self.signals.check()
                yield part

        self.algorithm.watch = watch
        try:
            return phase.prepare(source)
        finally:
            del self.algorithm.watch

    def _begin_online(self) -> Replay:
        """The replay buffer of an online phase, as it was when the run was saved last."""
        self.collector = Collector(
            self.task, self._dataset(), self.transitions, self.algorithm, self.config, self.together
        )
        if self.collected is not None:
            self.collector.load_state_dict(self.collected)
            self.collected = None
        return self.collector.replay

    def _dataset(self) -> Dataset:
        return build(self.config.dataset, directory=self.config.paths.data)

    def _play(self, update: int) -> None:
        """The steps in the simulator that come before an update of an online phase."""
        while self.collector.steps < self.collector.due(update):
            self._save_if_due()
            for earned in self.collector.advance(self.generator):
                self.state.accumulate({"episode_return": torch.tensor(earned, device=self.device)})

    def record(self, metrics: Metrics) -> None:
        """Counts an update of the phase, and logs its metrics when that is due."""
        state, phase = self.state, self.algorithm.phases[self.state.phase]
        state.accumulate(metrics)
        if self.compiling:
            self.compiling, self.mark = False, (state.updates + 1, STOPWATCH.now())
            self.progress.pause()
        state.step += 1
        state.updates += 1
        if state.step % self.log_every == 0 or state.step == phase.steps:
            self._read(phase.name)
        self.progress.advance(state.step)

    def arithmetic(self, phase: Phase) -> contextlib.AbstractContextManager:
        """That of the phase's updates."""
        return arithmetic(phase.precision(self.precision), self.device)

    def _read(self, phase: str) -> None:
        """Log the means of the metrics since the last time, and stop if training has diverged."""
        updates, metrics = self.state.updates, self.state.read()
        for name, value in metrics.items():
            if "loss" in name and not math.isfinite(value):
                raise UserError(
                    f"{phase}/{name} is {value} at update {updates}: training has diverged; "
                    "try a smaller learning rate or beta"
                )
        self.progress.metrics(metrics)
        now = STOPWATCH.now()
        if self.collector is not None:
            metrics["environment_steps"] = self.collector.steps
        metrics["updates_per_second"] = (updates - self.mark[0]) / (now - self.mark[1])
        self.mark = updates, now
        self.journal.log(updates, {f"{phase}/{name}": value for name, value in metrics.items()})

    @STOPWATCH.paused()
    def _evaluate(self, phase: Phase, alone: bool = False) -> None:
        """Evaluate the phase's policy; a checkpoint of its own for the best result of the final policy.

        alone: the phase's other evaluations are not made, so that its best result is not known.
        """
        state = self.state
        index = FINAL + 1 + state.evaluations
        metrics, returns = self.evaluator(phase.policy, self.config.eval.episodes, index)
        self.journal.log(state.updates, {f"eval/{name}": value for name, value in metrics.items()}, returns)
        state.evaluated += 1
        state.evaluations += 1
        note(self.run, metrics)
        final = phase.policy is self.algorithm.policy
        if final and not alone and metrics["return_mean"] > state.best.get("return_mean", -math.inf):
            state.best = {"update": state.updates} | metrics
            self._save("best.pt")
        self.progress.pause()

    @STOPWATCH.paused()
    def _finish(self) -> None:
        """The final evaluations, and the trained policy."""
        if self.collector is not None:
            self.collector.close()
            self.collector = None
        self.collected = None
        self.final.make()
        trained = {"algorithm": self.algorithm.actor().state_dict(), "state": {"updates": self.state.updates}}
        checkpoint.save(self.run.path(POLICY), trained)

    def _save_if_due(self) -> None:
        """Raises `Interrupted` at a signal."""
        self.signals.check()
        if time.monotonic() - self.saved >= self.checkpoint_seconds:
            self._save()

    @STOPWATCH.paused()
    def _save(self, name: str = "last.pt") -> None:
        if name == "last.pt":
            self.journal.log(self.state.updates, self.usage())
        self.journal.sync()
        state = {field.name: getattr(self.state, field.name) for field in dataclasses.fields(State)}
        # Draws outside the run's generator, such as dropout's, are not meant to be, but cheap to keep exact.
        generators = {"run": self.generator.get_state(), "torch": torch.get_rng_state()}
        saved = {"algorithm": self.algorithm.state_dict(), "state": state, "generators": generators}
        collected = self.collected if self.collector is None else self.collector.state_dict()
        if collected is not None and name == "last.pt":
            saved["online"] = collected
        checkpoint.save(self.run.path(name), saved)
        if name == "last.pt":
            steps = sum(phase.steps for phase in self.algorithm.phases)
            self.run.note(step=self.state.updates, steps=steps, spent=self.seconds + time.monotonic() - self.begun)
            self.saved = time.monotonic()

    def _restore(self, path: Path, saved: dict) -> None:
        try:
            if is_of_another_device(saved, self.generator):
                raise UserError(
                    f"{path}: saved on another kind of device than {self.device}, with other random numbers; resume it "
                    "there (device=cpu leaves a GPU alone), or overwrite=true trains anew"
                )
            self.algorithm.load_state_dict(saved["algorithm"])
            state = saved["state"]
            if count := state.pop("count", None):  # of an earlier version
                state["counts"] = dict.fromkeys(state["sums"], count)
            for name, value in vars(State(**state)).items():
                setattr(self.state, name, value)
            self.state.sums = {name: value.to(self.device) for name, value in self.state.sums.items()}
            self.generator.set_state(saved["generators"]["run"])
            torch.set_rng_state(saved["generators"]["torch"])
            self.collected = saved.get("online")
        except torch.OutOfMemoryError:
            raise
        except (KeyError, TypeError, RuntimeError) as error:
            raise checkpoint.mismatch(path, error) from error


def _say(text: str) -> None:
    """Prints a line, unless nobody reads on: Ctrl-C at `genpolicy ... | tee log` ends tee, too."""
    with contextlib.suppress(BrokenPipeError):
        print(text, flush=True)
