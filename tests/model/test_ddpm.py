"""Discrete-time diffusion: the noise levels, ancestral sampling, clipping."""

import math

import pytest
import torch
from command_line import tried
from gaussian import GaussianNetwork

from genpolicy.model.ddpm import DDPM, SCHEDULES
from genpolicy.model.generative import GenerativePolicy
from genpolicy.objective.noise_prediction import NoisePrediction
from genpolicy.solver.exponential import Ancestral, SinglestepDPM
from genpolicy.solver.fixed import RK4

DOUBLE = {"dtype": torch.float64}


def policy_of(path, network, steps, **more):
    return GenerativePolicy(
        path=path,
        network=network,
        prediction="noise",
        solver=Ancestral(steps=steps),
        likelihood=RK4(steps=8),
        has_density=False,
        **more,
    )


class Told(torch.nn.Module):
    """Predicts noise of a given size, and keeps the times that it is told."""

    action_size = 2

    def __init__(self, size=1.0):
        super().__init__()
        self.size, self.times = size, []

    def forward(self, x, t, observation):
        self.times.append(t[0].item())
        return self.size * torch.tanh(x + t[:, None])


def test_the_vp_levels_are_those_of_diffusion_ql():
    # alpha_bar_k = prod_i exp(-b / T - .5 (B - b) (2 i - 1) / T^2), b = .1, B = 10
    path, t = DDPM(steps=5), torch.arange(1, 6, **DOUBLE) / 5
    betas = [1 - math.exp(-0.1 / 5 - 0.5 * 9.9 * (2 * k - 1) / 25) for k in range(1, 6)]
    expected = torch.tensor([1 - beta for beta in betas], **DOUBLE).cumprod(0)
    torch.testing.assert_close(path.alpha(t) ** 2, expected)
    torch.testing.assert_close(path.sigma(t) ** 2, 1 - expected)


def test_the_linear_levels_are_those_of_1000_steps_of_ddpm():
    path, t = DDPM(steps=1000, schedule="linear"), torch.arange(1, 1001, **DOUBLE) / 1000
    expected = (1 - torch.linspace(1e-4, 0.02, 1000, **DOUBLE)).cumprod(0)
    torch.testing.assert_close(path.alpha(t) ** 2, expected)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 5, 50])
def test_between_the_levels_it_is_a_path(schedule, steps):
    path, h = DDPM(steps=steps, schedule=schedule), 1e-6
    t = (torch.arange(steps, **DOUBLE)[:, None] + torch.tensor([0.3, 0.7], **DOUBLE)).flatten() / steps
    for function, derivative in [(path.alpha, path.d_alpha), (path.sigma, path.d_sigma)]:
        torch.testing.assert_close(derivative(t), (function(t + h) - function(t - h)) / (2 * h), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(path.wronskian(t), path.alpha(t) * path.d_sigma(t) - path.d_alpha(t) * path.sigma(t))
    torch.testing.assert_close(path.time(path.alpha(t), path.sigma(t)), t)
    assert path.time(torch.zeros(1), torch.ones(1)).item() == 1.0


@pytest.mark.parametrize("order", [1, 2, 3])
def test_levels_beyond_the_noise_that_single_steps_are_limited_to_are_one(order):
    policy = policy_of(DDPM(steps=10, schedule="linear"), Told(), 10)
    policy.solver = SinglestepDPM(steps=12, order=order)
    assert policy.sample(torch.zeros(4, 0)).isfinite().all()


def test_networks_are_trained_at_the_levels_and_told_their_index():
    path = DDPM(steps=4)
    times = path.training_time(torch.linspace(0, 1, 101)[:-1], path.t_max_noise)
    assert times.unique().tolist() == [0.25, 0.5, 0.75, 1.0]
    assert torch.bincount((4 * times).long())[1:].tolist() == [25, 25, 25, 25]
    network = Told()
    policy = policy_of(path, network, 4)
    action, generator = torch.zeros(8, 2), torch.Generator().manual_seed(0)
    objective, nothing = NoisePrediction(reduction="mean"), torch.zeros(8, 0)
    draws = objective.draw(policy, nothing, action, generator)
    draws["t"] = torch.full((8,), 0.75)
    loss = objective.loss(policy, nothing, action, draws)
    assert network.times == [2.0]
    predicted = torch.tanh(path.sigma(torch.tensor(0.75)) * draws["noise"] + 2.0)
    torch.testing.assert_close(loss, (predicted - draws["noise"]).square().mean(-1))
    policy.sample(nothing, generator)
    assert network.times[1:] == pytest.approx([3.0, 2.0, 1.0, 0.0])


@pytest.mark.parametrize("clip_denoised", [False, True])
def test_ancestral_sampling_is_algorithm_2_of_ddpm_with_the_posterior_s_variance(clip_denoised):
    steps, low, high = 6, torch.tensor([-0.3, -0.1], **DOUBLE), torch.tensor([0.2, 0.5], **DOUBLE)
    path, network = DDPM(steps=steps), Told(1.5)
    policy = policy_of(path, network, steps, clip_denoised=clip_denoised, bounds=(low, high)).double()
    noise = torch.randn(16, steps, 2, generator=torch.Generator().manual_seed(0), **DOUBLE)
    levels = torch.arange(steps + 1, **DOUBLE) / steps
    bar = path.alpha(levels) ** 2
    x, clipped = noise[:, 0], 0
    for k in range(steps, 0, -1):
        beta = 1 - bar[k] / bar[k - 1]
        predicted = network.size * torch.tanh(x + k - 1)
        data = (x - (1 - bar[k]).sqrt() * predicted) / bar[k].sqrt()
        if clip_denoised:
            clipped += (data.clamp(low, high) != data).sum()
            data = data.clamp(low, high)
        x = bar[k - 1].sqrt() * beta / (1 - bar[k]) * data + (1 - beta).sqrt() * (1 - bar[k - 1]) / (1 - bar[k]) * x
        if k > 1:
            x = x + ((1 - bar[k - 1]) / (1 - bar[k]) * beta).sqrt() * noise[:, steps - k + 1]
    assert not clip_denoised or 0 < clipped < 16 * steps * 2
    torch.testing.assert_close(policy.sample(torch.zeros(16, 0, **DOUBLE), noise=noise), x)


def test_many_steps_have_the_moments_of_the_data():
    mean, covariance = torch.tensor([0.3, -0.2], **DOUBLE), torch.diag(torch.tensor([0.25, 0.09], **DOUBLE))
    path = DDPM(steps=200, schedule="cosine")
    exact = GaussianNetwork(path, mean, covariance, "noise")
    network = torch.nn.Module()
    network.action_size, network.forward = 2, lambda x, index, observation: exact(x, (index + 1) / 200, observation)
    samples = policy_of(path, network, 200).sample(torch.zeros(4000, 0, **DOUBLE), torch.Generator().manual_seed(0))
    std = covariance.diagonal().sqrt()
    assert ((samples.mean(0) - mean) / std).abs().max() < 0.06
    assert (samples.std(0) / std - 1).abs().max() < 0.05


def test_what_needs_densities_refuses_it():
    result, _ = tried("algo=gmpg", "model=ddpm", "solver=midpoint", "tuned=none")
    assert result.code == 1
    assert "model: this algorithm takes log-densities, of which this model has none; legal: model=edm|" in result.err
