"""The noise levels of a discrete-time diffusion as a probability path."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genpolicy.config.schema import component, setting
from genpolicy.model.path import ProbabilityPath

SCHEDULES = ("vp", "linear", "cosine")


@component
class DDPM(ProbabilityPath):
    """T noise levels k = 1 ... T at the times k / T, alpha^2 = prod_i (1 - beta_i) (Ho et al. 2020).

    Networks are trained at these times only, and are told k - 1, or k. In between, for other solvers, ln alpha is
    linear (Lu et al. 2022, DPM-Solver, appendix D.1).
    """

    steps: int = setting(5, ge=1, le=10**4, doc="noise levels T")
    schedule: str = setting(
        "vp",
        choices=SCHEDULES,
        doc="beta: vp is VPSDE's alpha, beta_max 10; linear rises from 0.1 / T to 20 / T or .999; cosine is squared",
    )
    first_level: int = setting(0, ge=0, le=1, doc="what networks are told of the least noise level")
    t_min: float = setting(0.0, ge=0.0, lt=0.1, doc="smallest time t of other solvers")

    t_max_noise = 1.0
    auto_prediction = "noise"
    discrete = True

    def __post_init__(self) -> None:
        total, self._tables = 0.0, {}
        self._log_alphas = [total := total + 0.5 * math.log1p(-beta) for beta in self._betas()]
        self._log_alphas.insert(0, 0.0)

    def _betas(self) -> list[float]:
        steps, levels = self.steps, range(1, self.steps + 1)
        if self.schedule == "vp":
            return [-math.expm1(-0.1 / steps - 0.5 * 9.9 * (2 * k - 1) / steps**2) for k in levels]
        if self.schedule == "linear":
            return [min((0.1 + 19.9 * (k - 1) / max(steps - 1, 1)) / steps, 0.999) for k in levels]

        def alpha_bar(t: float) -> float:
            return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

        return [min(1 - alpha_bar(k / steps) / alpha_bar((k - 1) / steps), 0.999) for k in levels]

    def _table(self, like: Tensor) -> Tensor:
        """ln alpha [T + 1] of the data and the levels."""
        key = like.dtype, like.device
        if key not in self._tables:
            self._tables[key] = torch.tensor(self._log_alphas, dtype=like.dtype, device=like.device)
        return self._tables[key]

    def _log_alpha(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """ln alpha and its derivative."""
        table, place = self._table(t), t * self.steps
        index = place.floor().clamp(0, self.steps - 1).long()
        rise = table[index + 1] - table[index]
        return table[index] + (place - index) * rise, rise * self.steps

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(self._log_alpha(t)[0])

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(2 * self._log_alpha(t)[0]))

    def d_alpha(self, t: Tensor) -> Tensor:
        log_alpha, slope = self._log_alpha(t)
        return torch.exp(log_alpha) * slope

    def d_sigma(self, t: Tensor) -> Tensor:
        return -self.alpha(t) * self.d_alpha(t) / self.sigma(t)

    def wronskian(self, t: Tensor) -> Tensor:
        return -self.d_alpha(t) / self.sigma(t)

    def time(self, signal: Tensor, noise: Tensor) -> Tensor:
        fall, wanted = -self._table(signal), 0.5 * torch.log1p((noise / signal) ** 2)
        index = (torch.searchsorted(fall, wanted.clamp(max=fall[-1].item()), right=True) - 1).clamp(0, self.steps - 1)
        place = index + (wanted - fall[index]) / (fall[index + 1] - fall[index])
        return (place / self.steps).clamp(max=1.0)

    def training_time(self, unit: Tensor, t_max: float) -> Tensor:
        return ((unit * self.steps).floor().clamp(max=self.steps - 1) + 1) / self.steps

    def network_time(self, t: Tensor) -> Tensor:
        return t * self.steps - 1 + self.first_level
