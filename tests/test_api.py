"""From Python: training, and trained policies."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny import SMALL, words

import genpolicy
from genpolicy import api
from genpolicy.errors import UserError
from genpolicy.run import load_run
from genpolicy.settings import build
from genpolicy.train import fresh_algorithm, restore

GOALS = ("env=multi-goal", "algo.policy_steps=60", "eval.per_phase=1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return api.train(*words(tmp_path_factory.mktemp("outputs"), *GOALS))


@pytest.fixture(scope="module")
def policy(trained):
    return genpolicy.load_policy(trained.directory)


@pytest.fixture(scope="module")
def algorithm(trained):
    config = load_run(trained.directory).config
    algorithm = fresh_algorithm(config, build(config.env), torch.device("cpu"))
    restore(algorithm, trained.directory / "last.pt")
    return algorithm


SEEN = np.random.default_rng(0).standard_normal((3, 4, 2)).astype(np.float32)


def test_training_returns_what_the_table_says(trained):
    assert (trained.directory / "last.pt").exists()
    assert np.isfinite(trained.results["final"]["return_mean"])
    assert api.train(*words(trained.directory.parents[3], *GOALS)) == trained  # finished: left alone


def test_actions_are_those_of_evaluations(policy, algorithm):
    expected = algorithm.clip(algorithm.act(torch.from_numpy(SEEN).reshape(12, 2), torch.Generator().manual_seed(3)))
    action = policy.act(SEEN, seed=3)
    assert action.dtype == np.float32
    np.testing.assert_array_equal(action, expected.reshape(3, 4, 2).numpy())
    assert torch.equal(policy.act(torch.from_numpy(SEEN), seed=3), torch.from_numpy(action))
    one = policy.act(SEEN[0, 0], seed=1)
    assert one.shape == (2,)
    np.testing.assert_array_equal(one, policy.act(SEEN[0, :1], seed=1)[0])
    assert not np.array_equal(policy.act(SEEN), policy.act(SEEN))


def test_samples_and_densities_are_those_of_the_model(policy, algorithm):
    samples = policy.sample(SEEN[0], 5, seed=2)
    assert samples.shape == (4, 5, 2)
    rows = torch.from_numpy(SEEN[0])
    with torch.no_grad():
        expected = algorithm.policy.sample(rows, torch.Generator().manual_seed(2), 5)
    np.testing.assert_array_equal(samples, expected.numpy())
    assert policy.has_density
    log_prob = policy.log_prob(SEEN[0], samples[:, 0])
    np.testing.assert_array_equal(log_prob, algorithm.log_prob(expected[:, 0], rows).numpy())
    assert policy.log_prob(SEEN[0, 0], samples[0, 0]).shape == ()


def test_the_package_gives_both_by_itself():
    command = "import genpolicy, sys; assert 'torch' not in sys.modules; genpolicy.api.train; genpolicy.load_policy"
    subprocess.run([sys.executable, "-c", command], check=True)


def test_loading_leaves_the_callers_draws_alone(trained):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    genpolicy.load_policy(trained.directory)
    assert torch.equal(torch.rand(3), expected)


def test_a_problem_without_observations(tmp_path):
    run = api.train(*words(tmp_path, "algo.critic_steps=3", "algo.policy_steps=3", "eval.per_phase=1"))
    policy = genpolicy.load_policy(run.directory)
    assert policy.act(np.zeros((4, 0))).shape == (4, 2)
    assert policy.sample(np.zeros(0), 5).shape == (5, 2)


def test_what_does_not_fit_is_said(policy, tmp_path):
    with pytest.raises(UserError, match=r"observation: the last dimension of \(3,\) must be 2"):
        policy.act(np.zeros(3))
    with pytest.raises(UserError, match="do not go with observations"):
        policy.log_prob(np.zeros((4, 2)), np.zeros((3, 2)))
    with pytest.raises(UserError, match="no run directory"):
        genpolicy.load_policy(tmp_path / "nothing")
    with pytest.raises(UserError, match="leave mode out"):
        api.train("mode=tasks")
    with pytest.raises(UserError, match="several values are a sweep"):
        api.train(*SMALL, "seed=0,1")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        genpolicy.nothing  # noqa: B018, the attribute is the test
