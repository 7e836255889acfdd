"""Judging the policies of a run: during training, at its end, and afterwards by `mode=eval`."""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from genpolicy.algo.actor import ActionQueue
from genpolicy.algo.algorithm import Algorithm
from genpolicy.config.setting_groups import Chunk, executed
from genpolicy.dataset.transitions import Transitions
from genpolicy.env.task import Task
from genpolicy.errors import counted
from genpolicy.evaluation.rollout import evaluation_seed, log_likelihood, parts, rollout, summary
from genpolicy.model.policy import Policy
from genpolicy.system.progress import Progress

TIMED = 100  # actions whose time is taken
FINAL = 0  # the index of final evaluations: the same start states for every policy, and again in mode=eval


class Evaluator:
    """Evaluates policies with random draws of its own: the run's generator is never touched.

    The episodes follow from the run's seed and the evaluation's index; the actions whose likelihood is taken follow
    from the data set alone, whose transitions are in the algorithm's units. `check` is called at each step of the
    simulators and may raise, to end a long evaluation; `progress` shows how far one is.
    """

    def __init__(
        self,
        task: Task,
        transitions: Transitions,
        algorithm: Algorithm,
        config: DictConfig,
        check: Callable[[], None] = lambda: None,
        progress: Progress | None = None,
    ):
        self.task, self.algorithm, self.check, self.progress = task, algorithm, check, progress or Progress(steps=False)
        self.seed, self.device, self.chunk = config.seed, transitions.device, config.chunk
        draw = torch.Generator(self.device).manual_seed(0)
        count = config.eval.log_prob_actions
        self.recorded = transitions.whole().sample(count, draw) if transitions.size else None
        self.held_out = None
        if (held_out := transitions.held_out) is not None:
            self.held_out = held_out.whole().subset(count, draw)

    def __call__(self, policy: Policy, episodes: int, index: int) -> tuple[dict, list[float]]:
        """Metrics of evaluation number `index` of the policy, and the return of each episode."""
        seed = evaluation_seed(self.seed, index)
        generator = torch.Generator(self.device).manual_seed(seed)
        queue, made = ActionQueue(self.algorithm.actor(policy).act, self.chunk), itertools.count(1)
        most = self.task.max_episode_steps * parts(self.task, episodes)
        with self.progress.work(f"{counted(episodes, 'episode')}, steps", most) as advance:

            def act(observation: torch.Tensor) -> torch.Tensor:
                self.check()
                advance(next(made))
                return queue(observation.to(self.device), generator)

            played = rollout(self.task, act, episodes, seed, begin=queue.reset)
        self._last = played.first
        metrics = summary(played, self.task)
        if policy.has_density and self.recorded is not None:
            metrics |= self._log_likelihood(policy, self.recorded)
            if self.held_out is not None:
                held_out = self._log_likelihood(policy, self.held_out)
                metrics |= {f"held_out_{name}": value for name, value in held_out.items()}
        return metrics, played.returns.tolist()

    def final(self, policy: Policy, episodes: int) -> tuple[dict, list[float]]:
        """The final evaluation of a policy.

        It has `log_prob_halved`, too: what `log_prob` would be with half the solver's steps. The difference is at
        least the solver's error, unless both are far too coarse. And `log_prob_hutchinson` with its standard error:
        what it would be with Hutchinson's estimate of the divergence, one probe an action, unless it is that already.
        """
        metrics, returns = self(policy, episodes, FINAL)
        for name, how in policy.coarser_likelihoods().items() if "log_prob" in metrics else ():
            estimate = self._log_likelihood(policy, self.recorded, **how)
            metrics[f"log_prob_{name}"] = estimate["log_prob"]
            if name == "hutchinson":
                metrics["log_prob_hutchinson_stderr"] = estimate["log_prob_stderr"]
        return metrics, returns

    def film(self, path: Path) -> None:
        """Writes the first episode of the last evaluation as a video. Raises `UserError` if that cannot be done."""
        from genpolicy.evaluation.video import film  # brings a video encoder, which is needed only here

        film(self.task, self._last, path)

    def _log_likelihood(self, policy: Policy, transitions: Transitions, **how: Any) -> dict[str, float]:
        volume = float(self.algorithm.scaling.log_volume())
        found = log_likelihood(policy, transitions, volume, torch.Generator(self.device).manual_seed(0), **how)
        if self.chunk.length > 1:  # the density of a chunk is that of all its actions together
            found["log_prob_per_action"] = found["log_prob"] / self.chunk.length
        return found

    def with_steps(self, count: int, episodes: int) -> tuple[dict, list[float]]:
        """The final evaluation of the trained policy with another number of solver steps, and its latency."""
        policy = self.algorithm.policy
        solver = policy.solver
        policy.solver = dataclasses.replace(solver, steps=count)
        try:
            metrics, returns = self(policy, episodes, FINAL)
            return metrics | self.latency(policy), returns
        finally:
            policy.solver = solver

    def latency(self, policy: Policy) -> dict[str, float]:
        """The median time of one action at one observation, in milliseconds; a chunk's counts for all it plays."""
        choose = self.algorithm.actor(policy).act
        seen = torch.zeros(1, self.task.observation_size, device=self.device)
        seen = seen if self.recorded is None else self.recorded.observation[:1]
        observation = self.algorithm.scaling.unscale_observation(seen)
        generator = torch.Generator(self.device).manual_seed(0)
        return {"ms_per_action": milliseconds(lambda: choose(observation, generator).cpu(), self.chunk)}


@torch.no_grad()
def milliseconds(act: Callable[[], Any], chunk: Chunk) -> float:
    """The median time of an action, of which `act` chooses one or a chunk, and waits for the device."""
    times = []
    for _ in range(TIMED):
        begin = time.perf_counter()
        act()
        times.append(time.perf_counter() - begin)
    return 1000 * statistics.median(times) / executed(chunk)
