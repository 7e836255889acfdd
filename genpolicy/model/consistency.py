"""Policies that know where trajectories end: consistency models (Song et al. 2023; Ding and Jin 2024), MeanFlowQL's."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from genpolicy.config.schema import build, component
from genpolicy.config.validation import Node
from genpolicy.errors import UserError
from genpolicy.model.flow import Capability, ProbabilityFlow
from genpolicy.model.generative import GenerativePolicy


@component
class ConsistencyPolicy(GenerativePolicy):
    """A policy that has learned the data end f(x, t) of the trajectory through x at t, and nothing in between.

    In noise-to-signal units, r = sigma / alpha and z = x / alpha, f = c_skip z + c_out F(z, t) with s = sigma_data,
    c_skip = s^2 / ((r - r_0)^2 + s^2) and c_out = s (r - r_0) / sqrt(r^2 + s^2), so that f(x, t_min) = x.
    """

    supports = frozenset({Capability.END})
    divides_by_signal = True  # so that there must be some of it at every time

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)
        path = build(config.model.path)
        if cls.divides_by_signal and not path.alpha(torch.tensor(path.t_max)) > 0:
            raise UserError(
                "model.path: nothing is left of the action at t = 1, in units of which consistency models are; "
                "legal: a path that leaves some, as EDM"
            )

    def to_data(self, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        """f(x, t) [B, A] of x [B, A] at t [B]."""
        alpha, end = self.path.alpha(t)[..., None], torch.full_like(t, self.path.t_min)[..., None]
        ratio, last = self.path.sigma(t)[..., None] / alpha, self.path.sigma(end) / self.path.alpha(end)
        scale, z = self.sigma_data, x / alpha
        skip = scale**2 / ((ratio - last) ** 2 + scale**2)
        out = scale * (ratio - last) * torch.rsqrt(ratio**2 + scale**2)
        return skip * z + out * self._evaluate(z, t, observation)

    def flow(self, observation: Tensor) -> ProbabilityFlow:
        def solution(y: Tensor, angles: Sequence[float]) -> Tensor:
            """From any angle to the data end, the last."""
            t = self._at(angles[0], y).time.expand(y.shape[0])
            scale = torch.sqrt(self.path.alpha(t) ** 2 + (self.path.sigma(t) / self.sigma_data) ** 2)
            return math.cos(angles[-1]) * self.to_data(scale[:, None] * y, t, observation)

        return dataclasses.replace(super().flow(observation), solution=solution)


class EndPolicy(ConsistencyPolicy):
    """f(x, t) = alpha x + sigma F(x, t): at pure noise, F is the action.

    On straight paths f = x - t u with the mean velocity u = x - F (MeanFlowQL, arXiv 2511.13035). The network is told
    1 - t, so that a scalar time embedding, which counts from noise on, is t, as in their code.
    """

    supports = frozenset({Capability.END, Capability.MEAN_VELOCITY})
    divides_by_signal = False

    def network_time(self, t: Tensor) -> Tensor:
        return 1 - t

    def raw(self, x: Tensor, t: Tensor, observation: Tensor, s: Tensor | None = None) -> Tensor:
        """The network's output F [B, A] of x [B, A] at t [B]; s is not used."""
        return self._evaluate(x, t, observation)

    def skip_and_out(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The coefficients [B] of x and F at t [B]."""
        return self.path.alpha(t), self.path.sigma(t)

    def to_data(self, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        skip, out = self.skip_and_out(t)
        return skip[..., None] * x + out[..., None] * self.raw(x, t, observation)
