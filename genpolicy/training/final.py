"""The final evaluations of a run: results, figures, and a video."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from genpolicy.algo.algorithm import Algorithm
from genpolicy.env.task import Task
from genpolicy.errors import UserError, counted
from genpolicy.evaluation import toys
from genpolicy.evaluation.evaluator import Evaluator
from genpolicy.model.policy import Policy
from genpolicy.runs.journal import Journal
from genpolicy.runs.protocol import unscaled
from genpolicy.runs.run import Run
from genpolicy.system.progress import Progress
from genpolicy.training.late import LATE_MEAN, late_mean
from genpolicy.training.state import State


@dataclass
class FinalEvaluations:
    """What is evaluated when a run is trained, each once: `state.results` has it, and is saved after each.

    reward: the constants of its reward transform. save: writes the run's checkpoint.
    """

    run: Run
    task: Task
    algorithm: Algorithm
    reward: Mapping[str, float | str]
    evaluator: Evaluator
    state: State
    journal: Journal
    progress: Progress
    save: Callable[[], None]
    timed: dict[str, dict[str, float]] = field(default_factory=dict)  # the latency of each policy

    def results(self) -> dict[str, dict[str, float]]:
        """The metrics of each evaluation by its name, with the latency of policies that were timed."""
        return {name: metrics | self.timed.get(name, {}) for name, metrics in self.state.results.items()}

    def make(self) -> None:
        """Make all that are left. The headline is the policy as it is now; the best goes by its own name."""
        evaluation, figures = self.run.config.eval, self.run.path("figures")
        for name, policy in self.policies().items():
            played = self.evaluate(name, policy)
            if evaluation.video and policy is self.algorithm.policy:
                self._film(played)
        note(self.run, self.state.results["final"])  # if another process made that evaluation, and was stopped then
        self.journal.sync()
        if late := late_mean(self.journal.path, self.algorithm):
            self.journal.log(self.state.updates, {f"late/{name}": value for name, value in late.items()})
            self.state.results[LATE_MEAN] = late
            self.save()
        for count in evaluation.steps:
            if (name := steps_name(count)) not in self.state.results:
                self.progress.say(f"evaluating the final policy with {name}")
                metrics, returns = self.evaluator.with_steps(count, evaluation.final_episodes)
                self.journal.log(count, {f"steps/{key}": value for key, value in metrics.items()}, returns)
                self.state.results[name] = metrics
                self.save()
        draw_steps(self.state.results, evaluation.steps, figures / "steps.png")
        units = {name: self.reward[name] for name in ("scale", "shift") if name in self.reward}
        measured = toys.draw(
            self.task, self.algorithm, self.run.config.chunk, figures, **units, check=self.evaluator.check
        )
        self.journal.log(self.state.updates, {f"final/{name}": value for name, value in measured.items()})
        # Times are not of the run's state, which is the same to the bit however often it was stopped.
        self.timed = {name: self.evaluator.latency(policy) for name, policy in self.policies().items()}
        timed = {f"{name}/{key}": value for name, times in self.timed.items() for key, value in times.items()}
        self.journal.log(self.state.updates, timed)
        best = {f"best/{name}": value for name, value in self.state.best.items()}
        self.journal.log(self.state.updates, best)

    def evaluate(self, name: str, policy: Policy) -> bool:
        """The final evaluation of a policy, under a name; whether it had not been made before."""
        if name in self.state.results:
            return False
        episodes = self.run.config.eval.final_episodes
        self.progress.say(f"evaluating the {name.removeprefix('final_')} policy, {counted(episodes, 'episode')}")
        metrics, returns = self.evaluator.final(policy, episodes)
        logged = {f"{name}/{key}": value for key, value in metrics.items()}
        self.journal.log(self.state.updates, logged, returns)
        self.state.results[name] = metrics
        note(self.run, metrics)
        self.save()
        return True

    def policies(self) -> dict[str, Policy]:
        """What is evaluated at the end, by the names of the results."""
        behaviour, policy = self.algorithm.behaviour, self.algorithm.policy
        return ({} if behaviour in (None, policy) else {"final_behaviour": behaviour}) | {"final": policy}

    def _film(self, played: bool) -> None:
        """A video of the final evaluation; after its results were saved, which no failure here may cost.

        played: whether this process has made that evaluation, so that there is an episode to draw.
        """
        path = self.run.path("figures") / "episode.mp4"
        if not played:
            if not path.exists():
                self.progress.say(
                    "no video: the run was stopped while it was drawn; "
                    f"mode=eval checkpoint={self.run.directory} eval.video=true draws one"
                )
            return
        self.progress.say("drawing the first episode")
        try:
            self.evaluator.film(path)
        except UserError as error:
            self.progress.say(f"no video: {error}")


def note(run: Run, metrics: dict[str, float]) -> None:
    """What `mode=status` shows of an evaluation."""
    result = {name: metrics[name] for name in ("return_mean", "score_mean") if name in metrics}
    run.note(result=result, unscaled=unscaled(run.config, run.choices) if "score_mean" in result else "")


def steps_name(count: int) -> str:
    """The name of the result of an evaluation with so many solver steps, by which a checkpoint has it."""
    return f"{count} step{'' if count == 1 else 's'}"


def draw_steps(results: dict[str, dict[str, float]], counts: list[int], path: Path) -> None:
    """Draws the results of the evaluations with so many solver steps, if there are any, as a PNG file."""
    if counts:
        from genpolicy.evaluation.figures import draw_trade_off  # matplotlib is slow to import

        draw_trade_off({count: results[steps_name(count)] for count in counts}, path)
