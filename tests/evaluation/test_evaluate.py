"""Evaluation: exactly one episode from each simulator, whole and alone; scores; likelihoods."""

import math

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genpolicy.dataset.transitions import Transitions
from genpolicy.env.task import Task
from genpolicy.errors import UserError
from genpolicy.evaluation.rollout import Returns, evaluation_seed, log_likelihood, rollout, summary

LIMIT = 9


class Counting(gymnasium.Env):
    """Simulator i: an episode of `length` steps, of which step j pays (i + 1) j; 10^6 more in later ones."""

    def __init__(self, number: int, length: int, log: list):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 0.5, (2,), np.float32)
        self.number, self.length, self.log = number, length, log
        self.episode, self.step_number = -1, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.episode = -1
        self.episode += 1
        self.step_number = 0
        return self.observe(), {}

    def observe(self):
        return np.array([self.number, self.episode, self.step_number], dtype=np.float64)

    def step(self, action):
        self.log.append((self.number, self.episode, action.copy()))
        self.step_number += 1
        reward = (self.number + 1) * self.step_number + 1e6 * self.episode
        return self.observe(), reward, self.step_number == self.length, False, {}


class CountingTask(Task):
    """Simulators with episodes of the given lengths, in turn."""

    def of(self, lengths):
        self.lengths, self.made, self.log = lengths, 0, []
        return self

    def simulate(self):
        number = self.made % len(self.lengths)
        self.made += 1
        return Counting(number, self.lengths[number], self.log)


def make(lengths, **settings) -> CountingTask:
    known = {"name": "counting", "reference_min": -5.0, "reference_max": 15.0, "url": None}
    made = CountingTask(max_episode_steps=LIMIT, **known | settings).of(list(lengths))
    assert made.action_size == 2  # looks at a simulator, before those that count are made
    made.made = 0
    return made


def still(observation):
    return torch.zeros(len(observation), 2)


@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6), seed=st.integers(0, 2**63))
@settings(max_examples=60, deadline=None)
def test_every_episode_counts_once_and_whole(lengths, seed):
    made = make(lengths)
    result = rollout(made, still, len(lengths), seed)
    steps = np.minimum(lengths, LIMIT)
    np.testing.assert_array_equal(result.lengths, steps)
    expected = [(i + 1) * n * (n + 1) / 2 for i, n in enumerate(steps)]
    np.testing.assert_array_equal(result.returns, expected)


def test_simulators_are_reused_and_start_anew():
    made = make([2, 5])
    first = rollout(made, still, 2, 0)
    second = rollout(made, still, 2, 0)
    np.testing.assert_array_equal(first.returns, second.returns)
    assert made.made == 2


def test_no_simulator_is_stepped_after_the_end_of_its_episode():
    made = make([2, 5, 3])
    rollout(made, still, 3, 0)
    assert [sum(number == each for number, _, _ in made.log) for each in range(3)] == [2, 5, 3]


def test_one_call_for_all_with_float32_observations_and_clipped_actions():
    made = make([3, 3])
    seen = []

    def act(observation):
        assert not torch.is_grad_enabled()
        seen.append(observation)
        return torch.tensor([[7.0, -7.0], [0.25, math.inf]], dtype=torch.float64)

    rollout(made, act, 2, 0)
    assert [observation.shape for observation in seen] == [(2, 3)] * 3
    assert all(observation.dtype == torch.float32 for observation in seen)
    assert [observation[0, 2].item() for observation in seen] == [0, 1, 2]
    for number, _, action in made.log:
        np.testing.assert_array_equal(action, [[0.5, -1.0], [0.25, 0.5]][number])


def test_observations_are_seen_as_they_are_given():
    """Whatever type the space of an environment says."""
    made, seen = make([2]), []

    class Halves(Counting):
        def __init__(self, *known):
            super().__init__(*known)
            self.observation_space = gymnasium.spaces.Box(0, 100, (3,), np.int64)

        def observe(self):
            return super().observe() + 0.5

    made.simulate = lambda: Halves(0, 2, made.log)
    rollout(made, lambda observation: seen.append(observation) or still(observation), 1, seed=0)
    assert torch.cat(seen)[:, 2].tolist() == [0.5, 1.5]


def test_a_diverged_policy_is_an_error_only_while_its_episode_runs():
    with pytest.raises(UserError, match="counting: the policy's action is not a number at step 1"):
        rollout(make([3]), lambda o: torch.full((1, 2), math.nan if o[0, 2] == 1 else 0.0), 1, 0)

    def nan_after_the_end(observation):
        ended = (observation[:, :1] == 0) & (observation[:, 2:] >= 1)  # the first simulator's, of one step
        return torch.where(ended, math.nan, 0.0).expand(-1, 2)

    np.testing.assert_array_equal(rollout(make([1, 6]), nan_after_the_end, 2, 0).lengths, [1, 6])


class Drawn(gymnasium.Env):
    """Pays a number drawn from its own generator, once."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), self.np_random.normal(), True, False, {}


class DrawnTask(Task):
    def simulate(self):
        return Drawn()


def test_seeds_decide_the_episodes():
    made = DrawnTask(name="drawn", max_episode_steps=5, reference_min=None, reference_max=None, url=None)

    def play(seed):
        return rollout(made, lambda o: o, 8, seed).returns

    np.testing.assert_array_equal(play(evaluation_seed(3, 1)), play(evaluation_seed(3, 1)))
    assert len(set(play(0))) == 8
    assert not set(play(evaluation_seed(3, 1))) & set(play(evaluation_seed(3, 2)))
    assert not set(play(evaluation_seed(3, 1))) & set(play(evaluation_seed(4, 1)))


def test_evaluation_seeds_are_distinct():
    seeds = {evaluation_seed(run, index) for run in range(40) for index in range(40)}
    assert len(seeds) == 1600
    assert all(isinstance(seed, int) and 0 <= seed < 2**63 for seed in seeds)
    assert evaluation_seed(2**32 - 1, 10**6) >= 0


def test_scores_shift_means_but_only_scale_deviations():
    made = make([1])  # references -5 and 15
    found = summary(Returns(np.array([-5.0, 5.0, 15.0, 25.0]), np.array([1, 2, 3, 6])), made)
    deviation = math.sqrt(125)
    assert found == pytest.approx(
        {
            "return_mean": 10.0,
            "return_std": deviation,
            "return_min": -5.0,
            "return_max": 25.0,
            "score_mean": 75.0,
            "score_std": deviation * 5,
            "score_min": 0.0,
            "score_max": 150.0,
            "episode_length": 3.0,
        }
    )


class Gaussian:
    """A policy N(observation, 1) on one action dimension, in float32."""

    def log_prob(self, observation, action, generator=None):
        self.sizes = [*getattr(self, "sizes", []), len(action)]
        assert isinstance(generator, torch.Generator)
        return torch.distributions.Normal(observation, 1.0).log_prob(action).sum(-1)


def test_log_likelihood_of_recorded_actions():
    rng = np.random.default_rng(0)
    observation, action = rng.normal(size=(2, 250, 2))
    zero = np.zeros(250)
    arrays = {"observation": observation, "action": action, "reward": zero, "next_observation": observation}
    transitions = Transitions.of(arrays | {"terminated": zero})
    policy = Gaussian()
    found = log_likelihood(policy, transitions, generator=torch.Generator(), chunk=100)
    assert policy.sizes == [100, 100, 50]
    log_prob = (-0.5 * (action - observation) ** 2 - 0.5 * math.log(2 * math.pi)).sum(axis=1)
    assert found["log_prob"] == pytest.approx(log_prob.mean(), rel=1e-5)
    assert found["log_prob_stderr"] == pytest.approx(log_prob.std(ddof=1) / math.sqrt(250), rel=1e-5)
    assert found["bits_per_dim"] == pytest.approx(-log_prob.mean() / (2 * math.log(2)), rel=1e-5)


@pytest.mark.parametrize(
    ("reward", "seen"), [(math.nan, 0.0), (-math.inf, 0.0), (1e39, 0.0), (1.0, math.nan), (1.0, 1e39)]
)
def test_what_is_not_finite_is_the_environments_error_with_step_and_episode(monkeypatch, reward, seen):
    made, play = make([5, 5, 2]), Counting.step

    def poisoned(env, action):
        observation, *rest = play(env, action)
        if (env.number, env.step_number) == (1, 4):
            observation[0], rest[0] = seen, reward
        return observation, *rest

    monkeypatch.setattr(Counting, "step", poisoned)
    with pytest.raises(
        UserError, match=r"counting: the environment gives the .* in step 3 of the episode of seed "
    ) as refusal:
        rollout(made, still, 3, 0)
    assert ("reward" in str(refusal.value).split("gives the ")[1][:6]) == (seen == 0)


def test_what_an_ended_episode_gives_afterwards_does_not_matter(monkeypatch):
    made, begin = make([5, 2]), Counting.reset

    def poisoned(env, **given):
        begin(env, **given)
        return env.observe() * (math.nan if env.episode else 1.0), {}

    monkeypatch.setattr(Counting, "reset", poisoned)
    assert rollout(made, still, 2, 0).lengths.tolist() == [5, 2]
