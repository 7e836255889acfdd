"""Simulators in copies of this process: the same to the bit as in it."""

import os

import numpy as np
import pytest
import torch
from composed import task

from genpolicy.errors import UserError
from genpolicy.evaluation import simulators
from genpolicy.evaluation.rollout import rollout, start_seeds, steps

EPISODES = 7


@pytest.fixture
def maze(monkeypatch):
    """A maze whose episodes end after different numbers of steps, and that draws from a generator of its own."""
    found = task("ogbench-pointmaze-teleport-navigate")
    found.max_episode_steps = 30
    monkeypatch.setattr(simulators, "cores", lambda: 3)
    yield found
    found.close()


def played(found, dear, monkeypatch, seed=0):
    """All steps of some episodes; the policy depends on what it sees, and draws."""
    monkeypatch.setattr(type(found), "dear", dear)
    generator = torch.Generator().manual_seed(seed)

    def act(observation):
        return torch.tanh(observation) + torch.randn(observation.shape, generator=generator)

    return list(steps(found, act, start_seeds(seed, EPISODES)))


def test_copies_play_the_same_to_the_bit(maze, monkeypatch):
    """Also after one another, with episodes of different lengths."""
    made = maze.make(EPISODES)
    for number, env in enumerate(made):
        monkeypatch.setattr(env, "_max_episode_steps", 5 + 4 * number)
    pids, forked = set(), simulators.forked
    monkeypatch.setattr(simulators, "forked", lambda work, count: pids.add((os.getpid(), count)) or forked(work, count))
    alone = [played(maze, False, monkeypatch, seed) for seed in (0, 1)]
    assert not pids
    beside = [played(maze, True, monkeypatch, seed) for seed in (0, 1)]
    assert pids == {(os.getpid(), 3)}
    for ours, theirs in zip(alone, beside, strict=True):
        assert len(ours) == len(theirs) == 5 + 4 * (EPISODES - 1)
        for left, right in zip(ours, theirs, strict=True):
            for name, value in vars(left).items():
                np.testing.assert_array_equal(value, getattr(right, name), err_msg=name)
                assert value.dtype == getattr(right, name).dtype
    again = played(maze, False, monkeypatch, 0)
    np.testing.assert_array_equal(again[-1].observation, alone[0][-1].observation)


def test_what_is_wrong_there_is_said_here(maze, monkeypatch):
    (*_, last) = maze.make(EPISODES)

    def fails(action):
        raise UserError("the arm is broken")

    monkeypatch.setattr(last, "step", fails)
    with pytest.raises(UserError, match="the arm is broken"):
        played(maze, True, monkeypatch)
    monkeypatch.setattr(last, "step", lambda action: (np.full(2, np.nan), 0.0, False, False, {}))
    with pytest.raises(
        UserError, match="gives the observation with a NaN or infinite value in step 0 of the episode of seed"
    ):
        played(maze, True, monkeypatch)


def test_dear_simulators_play_in_parts(maze, monkeypatch):
    """Every episode is what it is where all are side by side, and each part begins anew."""
    monkeypatch.setattr("genpolicy.evaluation.rollout.AT_ONCE", 3)
    seen, begun = [], []

    def act(observation):
        seen.append(observation)
        return torch.tanh(observation)

    def play(dear):
        monkeypatch.setattr(type(maze), "dear", dear)
        seen.clear()
        found = rollout(maze, act, EPISODES, 0, begin=lambda: begun.append(len(seen)))
        return found, list(seen)

    (together, observations), (apart, parts) = play(False), play(True)
    assert begun == [0, 0, 30, 60]
    assert [len(observation) for observation in parts] == [3] * 30 + [2] * 60
    by_step = [torch.cat(parts[step::30]) for step in range(30)]
    torch.testing.assert_close(by_step, observations, rtol=0, atol=0)
    np.testing.assert_array_equal(apart.returns, together.returns)
    np.testing.assert_array_equal(apart.lengths, together.lengths)
    np.testing.assert_array_equal(apart.first.actions, together.first.actions)


def test_one_episode_is_played_here(maze, monkeypatch):
    monkeypatch.setattr(type(maze), "dear", True)
    monkeypatch.setattr(simulators, "forked", None)
    assert rollout(maze, lambda seen: torch.zeros(len(seen), 2), 1, 0).lengths.tolist() == [30]


def test_what_is_dear():
    """Arms, of OGBench and of the kitchen, of which a step takes a millisecond and more."""
    dear = ["ogbench-cube-single-play", "ogbench-scene-noisy", "ogbench-puzzle-4x6-play", "kitchen-mixed-v0"]
    assert all(task(name).dear for name in dear)
    assert not any(task(name).dear for name in ("ogbench-antsoccer-arena-stitch", "hopper-medium-v2", "swiss-roll"))
