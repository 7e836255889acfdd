"""Consistency training: the map to the data end alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genpolicy.config.schema import component, setting
from genpolicy.model.flow import Capability
from genpolicy.model.trajectory import TrajectoryPolicy
from genpolicy.objective.objective import Draws
from genpolicy.objective.solution_map import SolutionMap, doubling, grid_time

HUBER = 0.00054  # Song and Dhariwal 2024, section 3.4: c = 0.00054 sqrt(A)


@component
class Consistency(SolutionMap):
    """|f(x_t, t) - f^-(x_u, u)|^2 with x_u = x_0 + u z, t and u neighbours on a grid (Song et al. 2023).

    improved: false is consistency training as first proposed: the grid grows from 2 to 150 points, all neighbours are
    as likely, f^- is the moving average. true is Song and Dhariwal 2024: the grid doubles from 10 to 1280 intervals,
    noise levels are lognormal, f^- is the network itself, the error is measured by a pseudo-Huber distance. Both are
    Consistency-AC's (Ding and Jin 2024).
    """

    teaches = frozenset({Capability.END})
    uses_target = True
    scheduled = True

    improved: bool = setting(False, doc="improved consistency training (2024); false: that of 2023")
    scaled: bool = setting(False, doc="multiply the loss by 100 / (t - u), in noise levels")
    cycles: int = setting(
        1,
        ge=1,
        le=10**6,
        doc="number of times the grid grows during training; in Consistency-AC's code every 50,000 updates",
    )

    def draw_times(
        self, policy: TrajectoryPolicy, action: Tensor, generator: torch.Generator, progress: float
    ) -> Draws:
        """Neighbouring times t > u [B]."""
        size, device = len(action), action.device
        if progress < 1:
            progress = progress * self.cycles % 1
        if self.improved:
            intervals = doubling(progress, 10, 1280)
            share = self._lognormal(policy, intervals, action)
            index = torch.multinomial(share, size, replacement=True, generator=generator)
        else:
            intervals = math.ceil(math.sqrt(progress * (150**2 - 2**2) + 2**2) - 1)
            index = torch.randint(intervals, (size,), generator=generator, device=device)
        return {
            "t": grid_time(policy, index + 1, intervals).to(action.dtype),
            "u": grid_time(policy, index, intervals).to(action.dtype),
        }

    def loss(self, policy: TrajectoryPolicy, observation: Tensor, action: Tensor, draws: Draws) -> Tensor:
        t, u, noise = draws["t"], draws["u"], draws["noise"]
        with torch.no_grad():
            teacher = policy if self.improved else policy.target
            target = teacher.to_data(policy.path.perturb(action, noise, u), u, observation)
        error = policy.to_data(policy.path.perturb(action, noise, t), t, observation) - target
        if self.improved:
            huber = HUBER * math.sqrt(policy.action_size)
            loss = self.reduce(torch.sqrt(error**2 + huber**2) - huber)
        else:
            loss = self.reduce(error.square())
        if self.scaled:
            loss = loss * 100 / (policy.path.sigma(t) - policy.path.sigma(u))
        return loss

    @staticmethod
    def _lognormal(policy: TrajectoryPolicy, intervals: int, like: Tensor) -> Tensor:
        """The chance [intervals] of each pair of neighbours: that of ln sigma ~ N(-1.1, 2^2) between them."""
        points = grid_time(policy, torch.arange(intervals + 1, dtype=torch.float64, device=like.device), intervals)
        return torch.erf((policy.path.sigma(points).log() + 1.1) / (2.0 * math.sqrt(2))).diff()
