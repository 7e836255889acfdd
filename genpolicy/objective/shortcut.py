"""Shortcut models' objective: one long step equals two half as long."""

from __future__ import annotations

import torch
from torch import Tensor

from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.errors import UserError
from genpolicy.model.trajectory import TrajectoryPolicy
from genpolicy.objective.objective import Draws
from genpolicy.objective.solution_map import SolutionMap, grid_time


@component
class Shortcut(SolutionMap):
    """|phi(x_t, t, s) - target|^2 (Frans et al. 2025), on a grid of `intervals` in t.

    For most samples s = t and the target is x_0; for the others t - s is 2, 4, ... intervals, and the target is where
    two steps of the moving average's map, half as long, point at. The shortest steps are those of its field.
    """

    uses_target = True

    intervals: int = setting(128, ge=2, le=2**20, doc="number of the shortest steps from noise to data, a power of two")
    bootstrap: float = setting(0.125, gt=0.0, lt=1.0, doc="share of samples whose target is two shorter steps")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """The number of intervals is a power of two."""
        super().check_compatibility(config)
        intervals = config.objective.intervals
        if intervals & (intervals - 1):
            raise UserError(f"objective.intervals={intervals}: must be a power of two, as 64, 128, 256")

    def draw_times(
        self, policy: TrajectoryPolicy, action: Tensor, generator: torch.Generator, progress: float
    ) -> Draws:
        """Times t >= u >= s [B], u being the middle, equal where the target is x_0."""
        size, device = len(action), action.device
        bootstrapped, level_unit, place = torch.rand(3, size, generator=generator, device=device, dtype=action.dtype)
        bootstrapped = bootstrapped < self.bootstrap
        levels = self.intervals.bit_length() - 1
        length = torch.where(bootstrapped, 2.0 ** (1 + (level_unit * levels).floor()), 1.0)  # of a step, in intervals
        index = length * (1 + (place * (self.intervals / length)).floor())
        length = torch.where(bootstrapped, length, 0.0)
        return {
            "t": grid_time(policy, index, self.intervals),
            "u": grid_time(policy, index - length / 2, self.intervals),
            "s": grid_time(policy, index - length, self.intervals),
            "shortest": length <= 2,  # its halves are steps of the field
        }

    def loss(self, policy: TrajectoryPolicy, observation: Tensor, action: Tensor, draws: Draws) -> Tensor:
        t, u, s, shortest = draws["t"], draws["u"], draws["s"], draws["shortest"]
        x = policy.path.perturb(action, draws["noise"], t)
        with torch.no_grad():
            half = policy.target.surrogate(x, t, torch.where(shortest, t, u), observation)
            middle = policy.move(x, t, u, half)
            rest = policy.target.surrogate(middle, u, torch.where(shortest, u, s), observation)
            target = torch.where((s == t)[:, None], action, self._direction(policy, x, t, u, s, half, rest))
        return self.reduce((policy.surrogate(x, t, s, observation) - target).square())

    @staticmethod
    def _direction(
        policy: TrajectoryPolicy, x: Tensor, t: Tensor, u: Tensor, s: Tensor, half: Tensor, rest: Tensor
    ) -> Tensor:
        """The data that the line from x at t points at which two moves, towards `half` and `rest`, end on."""
        path = policy.path
        # x_s / sigma_s = x / sigma_t + (1/sigma_u - 1/sigma_t) half + (1/sigma_s - 1/sigma_u) rest, for alpha = 1;
        # the weights are sigma_s times these, finite where there is no noise at s
        last = path.sigma(s)
        first = last * (path.alpha(u) / path.sigma(u) - path.alpha(t) / path.sigma(t))
        second = path.alpha(s) - last * path.alpha(u) / path.sigma(u)
        return (first[:, None] * half + second[:, None] * rest) / (first + second).clamp(min=1e-12)[:, None]
