"""The simulators of an evaluation, one an episode: in this process or, where a step is dear, in copies of it.

Both give the same to the bit: a copy begins with the very simulators, and each is reset with the same seed.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection

import gymnasium
import numpy as np

from genpolicy.env.task import Task
from genpolicy.system.forked import cores, forked, receive

AT_ONCE = 16  # episodes of dear simulators that are played side by side; one of these may take 110 MB

Steps = list[tuple[np.ndarray, float, bool, bool]]  # observation, reward, terminated, truncated of each simulator


class Simulators(ABC):
    """As many simulators as episodes."""

    @abstractmethod
    def reset(self, seeds: Sequence[int]) -> list[np.ndarray]:
        """The observations at the start of the episodes of these seeds."""

    @abstractmethod
    def step(self, which: np.ndarray, action: np.ndarray) -> Steps:
        """Takes actions [n,A] in the simulators of numbers `which` [n], which ascend."""


class Here(Simulators):
    """In this process, one after the other."""

    def __init__(self, envs: list[gymnasium.Env]):
        self.envs = envs

    def reset(self, seeds: Sequence[int]) -> list[np.ndarray]:
        return [env.reset(seed=seed)[0] for env, seed in zip(self.envs, seeds, strict=True)]

    def step(self, which: np.ndarray, action: np.ndarray) -> Steps:
        return [self.envs[number].step(own)[:4] for number, own in zip(which, action, strict=True)]


class Beside(Simulators):
    """Simulator i in copy i modulo their number, so that each has as many of those that still run as the others."""

    def __init__(self, connections: list[Connection]):
        self.connections = connections

    def reset(self, seeds: Sequence[int]) -> list[np.ndarray]:
        count, found = len(self.connections), [None] * len(seeds)
        for number, connection in enumerate(self.connections):
            connection.send(seeds[number::count])
        for number, connection in enumerate(self.connections):
            found[number::count] = receive(connection)
        return found

    def step(self, which: np.ndarray, action: np.ndarray) -> Steps:
        count, found = len(self.connections), [None] * len(which)
        places = [np.flatnonzero(which % count == number) for number in range(count)]
        for connection, at in zip(self.connections, places, strict=True):
            if len(at):
                connection.send((which[at] // count, action[at]))
        for connection, at in zip(self.connections, places, strict=True):
            for place, step in zip(at, receive(connection) if len(at) else (), strict=True):
                found[place] = step
        return found


@contextlib.contextmanager
def simulators(task: Task, episodes: int, here: bool = False) -> Iterator[Simulators]:
    """The task's simulators for an evaluation; here: they must be in this process, because others look into them."""
    envs = task.make(episodes)
    count = min(cores(), episodes)
    if here or count < 2 or not task.dear:
        yield Here(envs)
        return

    def work(number: int, connection: Connection) -> None:
        own = Here(envs[number::count])
        connection.send(own.reset(connection.recv()))
        while True:
            connection.send(own.step(*connection.recv()))

    with forked(work, count) as connections:
        yield Beside(connections)
