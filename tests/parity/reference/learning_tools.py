"""What training a reference on a file shares: transitions, what is asked for, stubs, the episodes of evaluation."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np

Act = Callable[[np.ndarray], np.ndarray]
"""Actions [N,A] at observations [N,O]."""

EVALUATION_SEED = 1000


@dataclass
class Data:
    """Transitions [N, ...] as d4rl's `qlearning_dataset` makes them, with the next row's action."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    next_actions: np.ndarray
    terminals: np.ndarray
    episodes: np.ndarray

    @classmethod
    def of(cls, path: str) -> Data:
        with h5py.File(path) as file:
            observations, actions, rewards = (file[key][:] for key in ("observations", "actions", "rewards"))
            terminals, timeouts = (file[key][:].astype(bool) for key in ("terminals", "timeouts"))
        ends = terminals | timeouts
        rows = np.flatnonzero(terminals[:-1] | ~timeouts[:-1])
        return cls(
            observations[rows],
            actions[rows],
            rewards[rows].astype(np.float32),
            observations[rows + 1],
            actions[rows + 1],
            terminals[rows].astype(np.float32),
            (np.cumsum(ends) - ends)[rows],
        )

    @property
    def sizes(self) -> tuple[int, int]:
        return self.observations.shape[1], self.actions.shape[1]

    def scaled(self) -> Data:
        """Rewards such that the returns of the episodes span 1,000, as IQL has it."""
        returns = np.bincount(np.unique(self.episodes, return_inverse=True)[1], weights=self.rewards)
        rewards = (self.rewards * 1000 / (returns.max() - returns.min())).astype(np.float32)
        return replace(self, rewards=rewards)

    def batch(self, draw: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        rows = draw.integers(len(self.rewards), size=size)
        return {key: value[rows] for key, value in vars(self).items()} | {"masks": 1 - self.terminals[rows]}


@dataclass
class Asked:
    checkout: Path
    data: Data
    updates: int
    batch: int
    seed: int

    def scaled(self) -> Asked:
        return replace(self, data=self.data.scaled())

    def batches(self, phase: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Those of a phase of training, each with draws of its own."""
        draw = np.random.default_rng(self.seed + 1000 * phase)
        return (self.data.batch(draw, self.batch) for _ in range(self.updates))


def stubs(*names: str) -> None:
    """Modules that a reference imports and does not need here."""

    class Stub(types.ModuleType):
        __path__ = ()

        def __getattr__(self, name: str):
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

    sys.modules.update({name: Stub(name) for name in names})


def evaluate(act: Act, simulator: str, episodes: int = 20, steps: int | None = None) -> np.ndarray:
    """Returns of episodes that begin alike for every policy, of so many steps at most; actions are clipped."""
    import gymnasium

    gymnasium.logger.min_level = gymnasium.logger.ERROR
    envs = [gymnasium.make(simulator, max_episode_steps=steps) for _ in range(episodes)]
    observation = np.stack([env.reset(seed=EVALUATION_SEED + i)[0] for i, env in enumerate(envs)])
    space, running, returns = envs[0].action_space, np.ones(episodes, bool), np.zeros(episodes)
    while running.any():
        action = np.clip(act(observation.astype(np.float32)), space.low, space.high).astype(np.float32)
        for i in np.flatnonzero(running):
            observation[i], reward, terminated, truncated, _ = envs[i].step(action[i])
            returns[i] += reward
            running[i] = not (terminated or truncated)
    return returns
