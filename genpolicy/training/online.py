"""Training in the simulator: a replay buffer that grows, and the episodes of the policy that fill it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from genpolicy.algo.actor import ActionQueue
from genpolicy.algo.algorithm import Algorithm
from genpolicy.dataset.dataset import Dataset
from genpolicy.dataset.sequences import Sequences
from genpolicy.dataset.transitions import Transitions
from genpolicy.env.task import Task
from genpolicy.errors import UserError
from genpolicy.evaluation.rollout import evaluation_seed

EPISODES = 2**31  # the first index of the seeds of training episodes: those of evaluations are below


class Replay:
    """The transitions of a data set and behind them up to `capacity` others, which are added one by one.

    mix: "union": batches are drawn from all alike; "half": half of each is from the added ones (Ball et al. 2023).
    """

    def __init__(self, transitions: Transitions, capacity: int, mix: str):
        self.offline, self.added, self.mix = transitions.size, 0, mix
        table = torch.cat([transitions.table, transitions.table.new_empty(capacity, transitions.table.shape[1])])
        self.length, known = 1, {"table": table}
        starts = torch.arange(self.offline, device=table.device)
        if isinstance(transitions, Sequences):
            self.length, starts = transitions.length, transitions.starts
            known["ends"] = torch.cat([transitions.ends, transitions.ends.new_zeros(capacity)])
        self.transitions = replace(transitions, **known)
        # Where batches begin: those of the data, and after them those of added transitions.
        self.starts, self.offline_starts = torch.cat([starts, starts.new_empty(capacity)]), len(starts)
        self.added_starts, self.episode = 0, self.offline  # the row at which the episode began that is being added

    def add(self, row: dict[str, Any], ended: bool) -> None:
        """Add a transition, its fields by their names. ended: whether it is the last one of its episode."""
        number, fields = self.offline + self.added, self.transitions.shapes
        parts = [torch.as_tensor(row[name], dtype=torch.float32).flatten() for name in fields]
        self.transitions.table[number] = torch.cat(parts).to(self.transitions.table)
        self.added += 1
        whole = number - self.length + 1
        new = [whole] if whole >= (self.offline if self._masked else self.episode) else []
        if self.length > 1:
            self.transitions.ends[number] = ended
            if row["terminated"] and not self._masked:  # which ends the sequences that it cuts short
                new += range(max(self.episode, whole + 1), number + 1)
        for start in new:
            self.starts[self.offline_starts + self.added_starts] = start
            self.added_starts += 1
        if ended:
            self.episode = number + 1

    @property
    def _masked(self) -> bool:
        return self.length > 1 and self.transitions.masked

    def sample(self, batch_size: int, generator: torch.Generator) -> Transitions:
        """`batch_size` transitions, or sequences of them, drawn uniformly with replacement."""

        def draw(size: int, begin: int, end: int) -> Tensor:
            return torch.randint(begin, end, (size,), generator=generator, device=self.transitions.device)

        middle, end = self.offline_starts, self.offline_starts + self.added_starts
        if self.mix == "half" and 0 < middle < end:
            half = batch_size // 2
            number = torch.cat([draw(half, middle, end), draw(batch_size - half, 0, middle)])
        else:
            number = draw(batch_size, 0, end)
        return self.transitions.rows(self.starts.index_select(0, number.to(self.starts.device)))

    def state_dict(self) -> dict[str, Any]:
        """What has been added."""
        added = slice(self.offline, self.offline + self.added)
        starts = self.starts[self.offline_starts : self.offline_starts + self.added_starts]
        state = {"rows": self.transitions.table[added].clone(), "starts": starts.clone(), "episode": self.episode}
        return state | ({"ends": self.transitions.ends[added].clone()} if self.length > 1 else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.added, self.added_starts, self.episode = len(state["rows"]), len(state["starts"]), state["episode"]
        added = slice(self.offline, self.offline + self.added)
        self.transitions.table[added] = state["rows"].to(self.transitions.table)
        self.starts[self.offline_starts : self.offline_starts + self.added_starts] = state["starts"].to(self.starts)
        if self.length > 1:
            self.transitions.ends[added] = state["ends"].to(self.transitions.ends)


class Collector:
    """Plays episodes with the policy as it is, one after the other, and adds each step to a replay buffer.

    An episode is told by its seed and its actions: after a restart these bring a fresh simulator to where it was, to
    the bit as far as the simulator repeats itself.
    """

    def __init__(
        self, task: Task, dataset: Dataset, transitions: Transitions, algorithm: Algorithm, config: DictConfig
    ):
        self.task, self.dataset, self.transitions, self.seed = task, dataset, transitions, config.seed
        self.queue = ActionQueue(self._choose, config.chunk.length, config.chunk.execute)
        self.algorithm, self.noise, self.device = algorithm, config.online.noise, transitions.device
        self.random = config.online.random
        if self.random and not np.isfinite([task.action_low, task.action_high]).all():
            raise UserError(f"online.random={self.random}: the action space of {task.name} has no ends; legal: 0")
        self.unit = algorithm.scaling.single(config.chunk.length)
        self.env = gymnasium.wrappers.TimeLimit(dataset.simulate(task), task.max_episode_steps)
        self.replay = Replay(transitions, config.online.steps, config.online.mix)
        self.episode = 0
        self._begin()

    @property
    def steps(self) -> int:
        """How many have been made in the simulator."""
        return self.replay.added

    def _begin(self) -> None:
        """Begin an episode."""
        seed = evaluation_seed(self.seed, EPISODES + self.episode) % 2**32
        self.observation, _ = self.env.reset(seed=seed)
        self.actions: list[np.ndarray] = []
        self.earned = 0.0
        self.queue.reset()

    def advance(self, generator: torch.Generator) -> float | None:
        """Make a step; what its episode has earned if that has ended, else None. Raises `UserError` for a NaN."""
        action = self.queue(self._seen(self.observation)[None], generator)[0].cpu().numpy()
        if not np.isfinite(action).all():
            raise UserError(
                f"{self.task.name}: the policy's action is not a number at step {self.steps}: training has diverged; "
                "a smaller learning rate may help"
            )
        action = np.clip(action, self.task.action_low, self.task.action_high)
        before = self.observation
        terminated, truncated, reward = self._step(action)
        transform = self.transitions.reward_transform
        row = {
            "observation": self.unit.scale_observation(self._seen(before)),
            "action": self.unit.scale_action(torch.from_numpy(action).to(self.device)),
            "reward": self.dataset.given(reward) * transform.get("scale", 1.0) + transform.get("shift", 0.0),
            "next_observation": self.unit.scale_observation(self._seen(self.observation)),
            "terminated": float(terminated),
        }
        self.replay.add(row, terminated or truncated)
        if not (terminated or truncated):
            return None
        earned = self.earned
        self.episode += 1
        self._begin()
        return earned

    def _choose(self, observation: Tensor, generator: torch.Generator) -> Tensor:
        if self.steps < self.random:
            return self.algorithm.uniform(observation, generator)
        return self.algorithm.explore(observation, generator, self.noise)

    def _step(self, action: np.ndarray) -> tuple[bool, bool, float]:
        self.observation, reward, terminated, truncated, _ = self.env.step(action)
        self.actions.append(action)
        self.earned += float(reward)
        return bool(terminated), bool(truncated), float(reward)

    def _seen(self, observation: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(observation, dtype=np.float32)).to(self.device)

    def state_dict(self) -> dict[str, Any]:
        """All that a restart needs."""
        actions = torch.from_numpy(np.array(self.actions, dtype=np.float32))
        waiting = torch.stack(self.queue.waiting).cpu() if self.queue.waiting else torch.zeros(0)
        return {"replay": self.replay.state_dict(), "episode": self.episode, "actions": actions, "waiting": waiting}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.replay.load_state_dict(state["replay"])
        self.episode = state["episode"]
        self._begin()
        for action in state["actions"].numpy():
            self._step(action)
        self.queue.waiting = list(state["waiting"].to(self.device))

    def close(self) -> None:
        """Free the simulator."""
        self.env.close()
