"""A flow's network with the gradient of an intermediate energy added (Lu et al. 2023, QGPO, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genpolicy.model.generative import GenerativePolicy


class GuidedNetwork(nn.Module):
    """What a flow's network would output for p_t(x) exp(scale f_t(x)), f_t = log E[exp(beta Q(x_0)) | x_t = x].

    Its score is that of p_t plus scale grad f_t (theorem 3.1). The energy is a function of the posterior mean that
    x has under N(0, s^2 I) data, u = alpha s^2 x / (alpha^2 s^2 + sigma^2) with s = sigma_data: so its gradient
    vanishes by itself where x tells nothing about the data, and no conversion between predictions is singular.

    model: gives the network and what it predicts. energy: (u [B, A], t [B], observation [B, O]) -> [B, A], of which
    the sum is the energy.
    """

    def __init__(self, model: GenerativePolicy, energy: nn.Module, scale: float = 1.0):
        super().__init__()
        self.network, self.energy, self.scale = model.network, energy, scale
        self.path, self.sigma_data, self.prediction = model.path, model.sigma_data, model.prediction
        self.action_size, self.observation_size = energy.action_size, energy.observation_size

    def forward(self, scaled: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        alpha, sigma = self.path.alpha(t)[..., None], self.path.sigma(t)[..., None]
        variance = (alpha * self.sigma_data) ** 2 + sigma**2
        precondition = self.prediction == "preconditioned"
        x = scaled * torch.sqrt(variance) if precondition else scaled
        mean = alpha * self.sigma_data**2 / variance * x
        slope = torch.func.grad(lambda point: self.energy(point, t, observation).sum())(mean)
        # grad_x f = alpha s^2 / variance slope, and a score that changes by g changes the data prediction by
        # sigma^2 / alpha g and the noise prediction by -sigma g.
        data = self.scale * (sigma * self.sigma_data) ** 2 / variance * slope
        noise = -self.scale * alpha * sigma * self.sigma_data**2 / variance * slope
        if precondition:
            change = data * torch.sqrt(variance) / (sigma * self.sigma_data)
        else:
            change = self.path.target(self.prediction, data, noise, t)
        return self.network(scaled, t, observation) + change

    def energies(self, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        """f_t(x) [B] of x [B, A] at t [B] and observations [B, O]."""
        alpha, sigma = self.path.alpha(t)[..., None], self.path.sigma(t)[..., None]
        mean = alpha * self.sigma_data**2 / ((alpha * self.sigma_data) ** 2 + sigma**2) * x
        return self.energy(mean, t, observation).sum(-1)
