"""A consistency model as a generative policy (Song et al. 2023; Ding and Jin 2024)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from genpolicy.config.schema import component
from genpolicy.model.flow import Capability, ProbabilityFlow
from genpolicy.model.generative import GenerativePolicy


@component
class ConsistencyPolicy(GenerativePolicy):
    """A policy that has learned the data end f(x, t) of the trajectory through x at t, and nothing in between.

    In noise-to-signal units, r = sigma / alpha and z = x / alpha, f = c_skip z + c_out F(z, t) with s = sigma_data,
    c_skip = s^2 / ((r - r_0)^2 + s^2) and c_out = s (r - r_0) / sqrt(r^2 + s^2), so that f(x, t_min) = x.
    """

    supports = frozenset({Capability.END})

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
            """From any angle to the data end, the last; z is y / cos(angle)."""
            t = self._at(angles[0], y).time.expand(y.shape[0])
            x = self.path.alpha(t)[:, None] / math.cos(angles[0]) * y
            return math.cos(angles[-1]) * self.to_data(x, t, observation)

        return dataclasses.replace(super().flow(observation), solution=solution)
