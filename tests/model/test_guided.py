"""Energy guidance is exact where data are Gaussian and Q is quadratic."""

import pytest
import torch
from command_line import jobs
from gaussian import PATHS, GaussianNetwork, make_policy
from torch import nn

from genpolicy.algo.algorithm import assemble
from genpolicy.model.guided import GuidedNetwork

MEAN = torch.tensor([0.2, -0.3], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.25, 0.1], [0.1, 0.16]], dtype=torch.float64)
BEST = torch.tensor([0.5, 0.4], dtype=torch.float64)
CURVATURE = torch.tensor([[2.0, 0.4], [0.4, 1.2]], dtype=torch.float64)
BETA, SCALE = 3.0, 0.5  # SCALE is sigma_data of the policies


class ExactEnergy(nn.Module):
    """log E[exp(beta Q(x_0)) | x_t] up to a constant, Q = -(a - best)' P (a - best) / 2, as a function of u."""

    action_size, observation_size = 2, 0

    def __init__(self, path):
        super().__init__()
        self.path = path

    def forward(self, u, t, observation):
        alpha, sigma = self.path.alpha(t)[:, None], self.path.sigma(t)[:, None]
        # u = alpha s^2 / (alpha^2 s^2 + sigma^2) x, and x_0 | x is N(mean, posterior), of which alpha x / sigma^2 in
        # its mean is regular where alpha is 0.
        information = ((alpha * SCALE) ** 2 + sigma**2) / (SCALE * sigma) ** 2 * u
        precision = torch.linalg.inv(COVARIANCE)
        posterior = torch.linalg.inv(precision + (alpha / sigma)[..., None] ** 2 * torch.eye(2, dtype=u.dtype))
        mean = (posterior @ (precision @ MEAN + information)[..., None])[..., 0]
        tilt = torch.linalg.inv(torch.linalg.inv(BETA * CURVATURE) + posterior)
        gap = mean - BEST
        return -0.25 * (gap * (tilt @ gap[..., None])[..., 0]).sum(-1, keepdim=True).expand(-1, 2)


def optimum(beta):
    precision = torch.linalg.inv(COVARIANCE)
    covariance = torch.linalg.inv(precision + beta * CURVATURE)
    return torch.distributions.MultivariateNormal(covariance @ (precision @ MEAN + beta * CURVATURE @ BEST), covariance)


@pytest.mark.slow
@pytest.mark.parametrize("prediction", ["velocity", "noise", "data", "score"])
@pytest.mark.parametrize("path", ["gvp", "icfm", "vpsde", "edm"])
def test_the_guided_density_is_the_known_optimum(path, prediction):
    path = PATHS[path]()
    behaviour = make_policy(path, GaussianNetwork(path, MEAN, COVARIANCE, prediction), prediction=prediction)
    network = GuidedNetwork(behaviour, ExactEnergy(path))
    guided = make_policy(path, network, prediction=prediction)
    action = optimum(BETA).sample((64,))
    found = guided.log_prob(action[:, :0], action)
    # The flows start from N(0, sigma^2 I), which is exact only where alpha is 0 at the end.
    tolerance = 2e-3 if prediction in ("velocity", "data") and path.alpha(torch.ones(())).abs() < 1e-6 else 0.03
    torch.testing.assert_close(found, optimum(BETA).log_prob(action), atol=tolerance, rtol=0)


def test_a_preconditioned_network_is_guided_alike():
    path = PATHS["vpsde"]()
    plain = make_policy(path, GaussianNetwork(path, MEAN, COVARIANCE, "data"), prediction="data")

    class Preconditioned(nn.Module):
        action_size, observation_size = 2, 0

        def forward(self, scaled, t, observation):
            alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
            spread = torch.sqrt((alpha * SCALE) ** 2 + sigma**2)
            skip, out = alpha * SCALE**2 / spread**2, sigma * SCALE / spread
            return (plain.network(scaled * spread, t, observation) - skip * scaled * spread) / out

    other = make_policy(path, Preconditioned(), prediction="preconditioned")
    x, t = torch.randn(16, 2, dtype=torch.float64), torch.rand(16, dtype=torch.float64)
    guided = [
        make_policy(path, GuidedNetwork(model, ExactEnergy(path), 0.7), prediction=model.prediction)
        for model in (plain, other)
    ]
    torch.testing.assert_close(guided[0].data(x, t, x[:, :0]), guided[1].data(x, t, x[:, :0]), atol=1e-8, rtol=1e-8)
    assert not torch.allclose(guided[0].data(x, t, x[:, :0]), plain.data(x, t, x[:, :0]))


def test_energies_are_those_whose_gradient_guides():
    path = PATHS["gvp"]()
    behaviour = make_policy(path, GaussianNetwork(path, MEAN, COVARIANCE, "velocity"))
    network = GuidedNetwork(behaviour, ExactEnergy(path))
    guided = make_policy(path, network)
    x = torch.randn(16, 2, dtype=torch.float64).requires_grad_()
    t = 0.05 + 0.9 * torch.rand(16, dtype=torch.float64)
    (slope,) = torch.autograd.grad(network.energies(x, t, x[:, :0]).sum(), x)
    with torch.no_grad():
        change = guided.score(x, t, x[:, :0]) - behaviour.score(x, t, x[:, :0])
    torch.testing.assert_close(change, slope, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("words", ["model=ddpm solver=ancestral", "model.clip_denoised=true", "model=ddpm_idql"])
def test_a_flow_that_nothing_guides_is_the_behaviours(words):
    """Clipped where that is, and without a density where that has none."""
    words = ["algo=qgpo", "algo.guidance_scale=0", "network=mlp", "env=multi-goal", "tuned=none", *words.split()]
    [(job, _)] = jobs(*words)
    algorithm = assemble(job.config, 2, -torch.ones(2), torch.ones(2), seed=0)
    policy, behaviour, observation = algorithm.policy, algorithm.behaviour, torch.zeros(20, 2)
    assert policy.has_density == behaviour.has_density
    with torch.no_grad():
        for parameter in behaviour.parameters():
            parameter *= 3  # to where it is clipped
        noise = behaviour.draw_noise(20, torch.Generator().manual_seed(0), observation)
        found = [model.sample(observation, noise=noise) for model in (policy, behaviour)]
    torch.testing.assert_close(*found)
