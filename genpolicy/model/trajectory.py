"""The solution map of the probability flow as a generative policy (Feng et al. 2025, arXiv 2510.11499).

In noise-to-signal units, sigma = t and alpha = 1, the map and its surrogate are (eqs. 3 and 4)

    Phi(x_t, t, s) = x_t + integral_t^s f dtau = (1 - s/t) phi(x_t, t, s) + (s/t) x_t

and phi(x_t, t, t) = E[x_0 | x_t] is the instantaneous map: the denoiser that every other generative policy has. On a
path with any alpha, Phi(x_t, t, s) = (alpha_s - sigma_s alpha_t / sigma_t) phi + (sigma_s / sigma_t) x_t.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from genpolicy.config.schema import component
from genpolicy.model.flow import Capability, ProbabilityFlow
from genpolicy.model.generative import GenerativePolicy


@component
class TrajectoryPolicy(GenerativePolicy):
    """A policy that has learned where the trajectories of its flow lead, from any time t to any earlier time s.

    Its velocity, score and densities are those of the instantaneous map, s = t.
    """

    num_times = 2
    supports = frozenset({Capability.FIELD, Capability.MAP, Capability.END, Capability.MEAN_VELOCITY})

    def raw(self, x: Tensor, t: Tensor, observation: Tensor, s: Tensor | None = None) -> Tensor:
        """The network's own output [B, A] at times t and s (default t), [B] or []."""
        return self._evaluate(self._scaled(x, t), t, observation, s)

    def _evaluate(self, scaled: Tensor, t: Tensor, observation: Tensor, s: Tensor | None = None) -> Tensor:
        both = torch.stack([self.network_time(time) for time in (t, t if s is None else s)], -1)
        return self.network(scaled, both.expand(*scaled.shape[:-1], 2), observation)

    def surrogate(self, x: Tensor, t: Tensor, s: Tensor, observation: Tensor) -> Tensor:
        """phi(x, t, s) [B, A]: the data that the mean velocity between x at t and s <= t points at."""
        skip, out = self.skip_and_out(t)
        return skip[..., None] * x + out[..., None] * self.raw(x, t, observation, s)

    def skip_and_out(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients of phi = skip x + out F in the network's output F, [B] at t [B].

        A network that predicts the velocity predicts the mean one: phi = x - t F on straight paths.
        """
        if self.prediction == "preconditioned":
            return self.preconditioning(t)
        zero, one = torch.zeros_like(t)[..., None], torch.ones_like(t)[..., None]
        skip, _ = self.path.data_and_noise(self.prediction, zero, one, t)
        out, _ = self.path.data_and_noise(self.prediction, one, zero, t)
        return skip[..., 0], out[..., 0]

    def jump(self, x: Tensor, t: Tensor, s: Tensor, observation: Tensor) -> Tensor:
        """Phi(x, t, s) [B, A]: the point at s <= t of the trajectory through x [B, A] at t; x itself if s = t."""
        return self.move(x, t, s, self.surrogate(x, t, s, observation))

    def to_data(self, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        """Phi(x, t, t_min) [B, A]: the data end of the trajectory through x at t."""
        return self.jump(x, t, torch.full_like(t, self.path.t_min), observation)

    def move(self, x: Tensor, t: Tensor, s: Tensor, data: Tensor) -> Tensor:
        """From x at t to time s on the line towards `data`: a DDIM step if `data` is the denoiser's."""
        ratio = torch.where(s == t, 1.0, self.path.sigma(s) / self.path.sigma(t))  # 1 without noise, too
        return (self.path.alpha(s) - ratio * self.path.alpha(t))[..., None] * data + ratio[..., None] * x

    def flow(self, observation: Tensor) -> ProbabilityFlow:
        def solution(y: Tensor, angles: Sequence[float]) -> Tensor:
            for keep, out, scale, times in self._jumps(tuple(angles), y):
                moved = self.network(scale * y, times.expand(y.shape[0], 2), observation)
                y = torch.add(keep * y, moved, alpha=out)
            return y

        return dataclasses.replace(super().flow(observation), solution=solution)

    def _jumps(self, angles: tuple[float, ...], like: Tensor) -> list[tuple[float, float, float, Tensor]]:
        """`jump` between neighbouring angles in the flow's coordinates: y' = keep y + out network(scale y, times).

        There x_0 and the noise have the weights cos and sin of the angle. Kept, as all that depends on times alone.
        """
        if (key := (angles, like.dtype, like.device)) not in self._kept:
            self._kept[key] = jumps = []
            for begin, end in itertools.pairwise(angles):
                at, ratio = self._at(begin, like), math.sin(end) / math.sin(begin)
                share = math.cos(end) - ratio * math.cos(begin)
                times = self.network_time(torch.stack([at.time, self._at(end, like).time]))
                jumps.append((ratio + share * at.data_y, share * at.data_f, at.scale, times))
        return self._kept[key]
