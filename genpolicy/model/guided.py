"""A flow's network with the gradient of an intermediate energy added (Lu et al. 2023, QGPO, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genpolicy.errors import UserError
from genpolicy.model.generative import GenerativePolicy


class GuidedNetwork(nn.Module):
    """What a flow's network would output for p_t(x) exp(scale f_t(x)), f_t = log E[exp(beta Q(x_0)) | x_t = x].

    Its score is that of p_t plus scale grad f_t (theorem 3.1). f is the sum of what a network gives (energy: (point
    [B, A], t [B], observation [B, O]) -> [B, ...]) at x itself, as in QGPO's code, or else at the posterior mean that
    x has under N(0, s^2 I) data, u = alpha s^2 x / (alpha^2 s^2 + sigma^2) with s = sigma_data: there its gradient
    vanishes by itself where x tells nothing about the data, and no conversion between predictions is singular.

    model: gives the network and what it predicts. noisy: whether the energy is a function of x.
    """

    def __init__(self, model: GenerativePolicy, energy: nn.Module, scale: float = 1.0, noisy: bool = False):
        super().__init__()
        self.model, self.energy, self.scale, self.noisy = model, energy, scale, noisy
        self.action_size, self.observation_size = energy.action_size, energy.observation_size

    def forward(self, scaled: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            raise UserError("algo=qgpo: takes the gradient of its energy at each step, which torch.export cannot trace")
        path, prediction = self.model.path, self.model.prediction
        skip, out = (factor[..., None] for factor in self.model.preconditioning(t))  # u = skip x
        x = scaled / self.model.input_scale(t)[..., None]
        point = x if self.noisy else skip * x
        slope = self.scale * torch.func.grad(lambda point: self.energy(point, t, observation).sum())(point)
        # A score that changes by g changes the data prediction by sigma^2 / alpha g and the noise prediction by
        # -sigma g. Here g is slope, or skip slope, of which skip / alpha = out^2 / sigma^2.
        sigma = path.sigma(t)[..., None]
        if prediction == "noise":
            change = -sigma * (slope if self.noisy else skip * slope)
        elif self.noisy:
            data = sigma**2 / path.alpha(t)[..., None] * slope
            change = data / out if prediction == "preconditioned" else path.target(prediction, data, -sigma * slope, t)
        elif prediction == "preconditioned":
            change = out * slope
        else:
            change = path.target(prediction, out**2 * slope, -skip * sigma * slope, t)
        return self.model.network(scaled, self.model.network_time(t), observation) + change

    def energies(self, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        """f_t(x) [B] of x [B, A] at t [B] and observations [B, O]."""
        skip, _ = self.model.preconditioning(t)
        return self.energy(x if self.noisy else skip[..., None] * x, t, observation).sum(-1)


class GuidedPolicy(GenerativePolicy):
    """The policy of a `GuidedNetwork`."""

    def network_time(self, t: Tensor) -> Tensor:
        return t  # the guided network applies its model's `network_time`
