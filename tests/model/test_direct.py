"""Policies without a flow."""

import math

import pytest
import torch

from genpolicy.model.direct import MARGIN, DeterministicPolicy, GaussianPolicy, OneStepPolicy, TanhGaussianPolicy
from genpolicy.network.mlp import MLP
from genpolicy.objective.likelihood import LeastSquares, Likelihood

LOW, HIGH = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 4.0])


def make(cls, low=LOW, high=HIGH, **more):
    torch.manual_seed(0)
    network = MLP(hidden=[16], action_size=2, observation_size=3, num_times=0, heads=getattr(cls, "heads", 1))
    return cls(network=network, action_low=low, action_high=high, **more)


def test_the_gaussian_s_density_is_torch_s():
    policy = make(GaussianPolicy)
    with torch.no_grad():
        policy.log_std.copy_(torch.tensor([-1.0, 0.5]))
    observation, action = torch.randn(5, 3), torch.randn(5, 2)
    known = torch.distributions.Normal(policy.mean(observation), policy.log_std.exp())
    torch.testing.assert_close(policy.log_prob(observation, action), known.log_prob(action).sum(-1))
    draws = policy.sample(observation, torch.Generator().manual_seed(0), 20_000)
    torch.testing.assert_close(draws.mean(1), known.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(draws.std(1), known.stddev, atol=0.05, rtol=0)
    torch.testing.assert_close(policy.act(observation), known.mean)


def test_the_standard_deviation_stays_in_its_range():
    policy = make(GaussianPolicy)
    with torch.no_grad():
        policy.log_std.copy_(torch.tensor([-100.0, 100.0]))
    assert policy.std().tolist() == pytest.approx([math.exp(-5), math.exp(2)])


def test_means_lie_inside_the_action_space_and_anywhere_if_that_has_no_ends():
    observation = 100 * torch.randn(1000, 3)
    for cls in (GaussianPolicy, DeterministicPolicy):
        mean = make(cls).act(observation)
        assert ((mean >= LOW) & (mean <= HIGH)).all()
        assert (mean.amax(0) - mean.amin(0) > 0.5 * (HIGH - LOW)).all()
    free = make(DeterministicPolicy, -torch.full((2,), math.inf), torch.full((2,), math.inf))
    assert free.act(observation).abs().max() > 4


def test_the_deterministic_policy_takes_no_notice_of_noise_and_the_one_step_policy_does():
    observation, noise = torch.randn(1, 3).expand(8, 3), torch.randn(8, 2)
    assert make(DeterministicPolicy).sample(observation, noise=noise).std(0).max() == 0
    assert make(OneStepPolicy).sample(observation, noise=noise).std(0).min() > 0


def test_the_moving_average_takes_mean_and_standard_deviation():
    policy = make(GaussianPolicy, target_rate=0.25)
    policy.keep_average()
    with torch.no_grad():
        for parameter in (policy.log_std, policy.network.layers[0].bias):
            parameter += 1
    before = policy.target.network.layers[0].bias.clone()
    policy.update_target()
    torch.testing.assert_close(policy.target.log_std, torch.full((2,), 0.25))
    torch.testing.assert_close(policy.target.network.layers[0].bias, before + 0.25)


def test_least_squares_moves_the_mean_by_its_error_and_the_deviation_by_what_is_left():
    policy = make(GaussianPolicy)
    observation, action = torch.randn(64, 3), torch.randn(64, 2)
    mean = policy.mean(observation).detach()
    squared = LeastSquares().loss(policy, observation, action, {})
    grads = torch.autograd.grad(squared.mean(), [policy.network.layers[0].weight, policy.log_std])
    (expected,) = torch.autograd.grad(
        (action - policy.mean(observation)).square().mean(), [policy.network.layers[0].weight]
    )
    torch.testing.assert_close(grads[0], expected)
    torch.testing.assert_close(grads[1], 1 - (action - mean).square().mean(0))  # of std 1
    likelihood = Likelihood().loss(policy, observation, action, {})
    torch.testing.assert_close(likelihood, -policy.log_prob(observation, action))


def test_a_squashed_gaussian_s_density_is_torch_s_and_0_outside_of_the_action_space():
    policy, observation = make(TanhGaussianPolicy), torch.randn(6, 3)
    action = torch.tensor([[0.3, 1.0], [-1.0, 4.0], [0.0, 0.1], [1.01, 1.0], [0.0, math.inf], [-9.0, -9.0]])
    action.requires_grad_()
    log_prob = policy.log_prob(observation, action)
    assert log_prob[3:].tolist() == 3 * [-math.inf]
    normal = torch.distributions.Normal(*policy.parameters_at(observation[:3]))
    stretch = torch.distributions.AffineTransform((LOW + HIGH) / 2, (HIGH - LOW) / 2 * (1 + MARGIN))
    known = torch.distributions.TransformedDistribution(normal, [torch.distributions.TanhTransform(), stretch])
    torch.testing.assert_close(log_prob[:3], known.log_prob(action[:3]).sum(-1), rtol=1e-4, atol=1e-4)
    grads = torch.autograd.grad(log_prob.sum(), [action, *policy.network.parameters()])
    assert all(grad.isfinite().all() for grad in grads)
    assert grads[0][:3].abs().min() > 0
    assert policy.latent_log_prob(observation, action)[3:].tolist() == 3 * [-math.inf]
    assert policy.log_prob(observation, torch.full((6, 2), math.nan)).isnan().all()
