"""The solution map of the probability flow as a generative policy (Feng et al. 2025, arXiv 2510.11499).

In noise-to-signal units, sigma = t and alpha = 1, the map and its surrogate are (eqs. 3 and 4)

    Phi(x_t, t, s) = x_t + integral_t^s f dtau = (1 - s/t) phi(x_t, t, s) + (s/t) x_t

and phi(x_t, t, t) = E[x_0 | x_t] is the instantaneous map: the denoiser that every other generative policy has. On a
path with any alpha, Phi(x_t, t, s) = (alpha_s - sigma_s alpha_t / sigma_t) phi + (sigma_s / sigma_t) x_t.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genpolicy.model.flow import ProbabilityFlow, time_and_scale
from genpolicy.model.policy import GenerativePolicy


@dataclass(kw_only=True, eq=False, repr=False)
class TrajectoryPolicy(GenerativePolicy):
    """A policy that has learned where the ways of its flow lead, from any time t to any earlier time s.

    Its velocity, score and densities are those of the instantaneous map, s = t.
    """

    times = 2

    def raw(self, x: Tensor, t: Tensor, observation: Tensor, s: Tensor | None = None) -> Tensor:
        """The network's own output [B, A] at times t and s (default t), [B] or []."""
        return self._evaluate(self._input_scale(t)[..., None] * x, t, observation, s)

    def _evaluate(self, scaled: Tensor, t: Tensor, observation: Tensor, s: Tensor | None = None) -> Tensor:
        both = torch.stack([t, t if s is None else s], -1)
        return self.network(scaled, both.expand(*scaled.shape[:-1], 2), observation)

    def surrogate(self, x: Tensor, t: Tensor, s: Tensor, observation: Tensor) -> Tensor:
        """phi(x, t, s) [B, A]: the data that the mean velocity between x at t and s <= t points at."""
        skip, out = self.preconditioning(t)
        return skip[..., None] * x + out[..., None] * self.raw(x, t, observation, s)

    def jump(self, x: Tensor, t: Tensor, s: Tensor, observation: Tensor) -> Tensor:
        """Phi(x, t, s) [B, A]: the point at s <= t of the way through x [B, A] at t; x itself if s = t."""
        return self.move(x, t, s, self.surrogate(x, t, s, observation))

    def move(self, x: Tensor, t: Tensor, s: Tensor, data: Tensor) -> Tensor:
        """From x at t to time s on the line towards `data`: a DDIM step if `data` is the denoiser's."""
        share, ratio = self._move(t, s)
        return share[..., None] * data + ratio[..., None] * x

    def _move(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """The coefficients of data and x in x_s."""
        ratio = self.path.sigma(s) / self.path.sigma(t)
        return self.path.alpha(s) - ratio * self.path.alpha(t), ratio

    def flow(self, observation: Tensor) -> ProbabilityFlow:
        def solution(y: Tensor, angles: Sequence[float]) -> Tensor:
            for keep, out, scale, times in self._jumps(tuple(angles), y.dtype, y.device):
                moved = self.network(scale * y, times.expand(len(y), 2), observation)
                y = torch.add(keep * y, moved, alpha=out)
            return y

        return dataclasses.replace(super().flow(observation), solution=solution)

    def _jumps(self, angles: tuple[float, ...], dtype, device) -> list[tuple[float, float, float, Tensor]]:
        """`jump` between neighbouring angles in the flow's coordinates: y' = keep y + out network(scale y, times).

        Kept, because these few numbers take longer to compute than a small network.
        """
        if (key := (angles, dtype, device)) not in self._kept:
            at = torch.tensor(angles, dtype=torch.float64)
            time, rho = time_and_scale(self.path, self.sigma_data, at)
            t, s, rho_t, rho_s = time[:-1], time[1:], rho[:-1], rho[1:]
            (skip, out), (share, ratio) = self.preconditioning(t), self._move(t, s)
            numbers = ((ratio + share * skip) * rho_t / rho_s, share * out / rho_s, self._input_scale(t) * rho_t)
            times = torch.stack([t, s], -1).to(dtype).to(device)
            self._kept[key] = list(zip(*(number.tolist() for number in numbers), times, strict=True))
        return self._kept[key]
