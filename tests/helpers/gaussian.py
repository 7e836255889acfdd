"""Closed forms for Gaussian and Gaussian-mixture data, as independent oracles."""

import contextlib
import math
from unittest import mock

import torch
from torch import Tensor, nn

from genpolicy.model.flow import ProbabilityFlow
from genpolicy.model.generative import GenerativePolicy
from genpolicy.model.path import EDM, GVP, ICFM, OTCFM, VPSDE
from genpolicy.solver.adaptive import Dopri5
from genpolicy.solver.fixed import Midpoint

PATHS = {"vpsde": VPSDE, "gvp": GVP, "icfm": ICFM, "otcfm": OTCFM, "edm": EDM}


class GaussianNetwork(nn.Module):
    """The exact prediction of a path for data N(mean, covariance): what a perfectly trained network outputs."""

    def __init__(self, path, mean: Tensor, covariance: Tensor, prediction="velocity"):
        super().__init__()
        self.path, self.mean, self.covariance, self.prediction = path, mean, covariance, prediction
        self.action_size = len(mean)

    def forward(self, x, t, observation):
        alpha, sigma = self.path.alpha(t)[:, None], self.path.sigma(t)[:, None]
        marginal = alpha[..., None] ** 2 * self.covariance + sigma[..., None] ** 2 * torch.eye(
            self.action_size, dtype=x.dtype
        )
        whitened = torch.linalg.solve(marginal, x - alpha * self.mean)
        data = self.mean + alpha * (whitened @ self.covariance)
        return self.path.target(self.prediction, data, sigma * whitened, t)


class MixtureNetwork(nn.Module):
    """The exact prediction for an isotropic Gaussian mixture with given means [M, A], std and weights [M]."""

    def __init__(self, path, means: Tensor, std: float, weights: Tensor, prediction="velocity"):
        super().__init__()
        self.path, self.means, self.std, self.weights = path, means, std, weights
        self.prediction, self.action_size = prediction, means.shape[-1]

    def forward(self, x, t, observation):
        alpha, sigma = self.path.alpha(t)[:, None], self.path.sigma(t)[:, None]
        variance = (alpha * self.std) ** 2 + sigma**2
        gap = x[:, None] - alpha[..., None] * self.means
        logits = self.weights.log() - 0.5 * gap.square().sum(-1) / variance
        share = torch.softmax(logits, -1)[..., None]
        noise = (share * sigma[..., None] * gap / variance[..., None]).sum(1)
        data = (share * (self.means + alpha[..., None] * self.std**2 * gap / variance[..., None])).sum(1)
        return self.path.target(self.prediction, data, noise, t)


def make_policy(path, network, *, solver=None, likelihood=None, prediction="velocity", divergence="auto"):
    """A policy of float64 around an exact network."""
    return GenerativePolicy(
        path=path,
        sigma_data=0.5,
        divergence=divergence,
        network=network,
        prediction=prediction,
        solver=solver or Midpoint(steps=16),
        likelihood=likelihood or Dopri5(rtol=1e-7, atol=1e-7),
    )


def _end_marginal(path, mean: Tensor, covariance: Tensor):
    """The exact log-density of x at t = 1."""
    one = torch.ones((), dtype=torch.float64)
    alpha, sigma = path.alpha(one), path.sigma(one)
    marginal = alpha**2 * covariance + sigma**2 * torch.eye(len(mean), dtype=torch.float64)
    return torch.distributions.MultivariateNormal(alpha * mean, marginal).log_prob


@contextlib.contextmanager
def exact_end(path, mean: Tensor, covariance: Tensor):
    """Inside, flows on the path begin in the exact marginal at t = 1 of these Gaussian data, not in pure noise."""
    prior = _end_marginal(path, mean, covariance)

    def end_log_prob(flow, y: Tensor) -> Tensor:
        scale = flow.sigma_data * math.sin(flow.end)
        rho = flow.path.sigma(torch.tensor(flow.t_max, dtype=y.dtype)) / scale
        return prior(rho * y) + y.shape[-1] * torch.log(rho)

    with mock.patch.object(ProbabilityFlow, "end_log_prob", end_log_prob):
        yield
