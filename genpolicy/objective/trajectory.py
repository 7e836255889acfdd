"""Generative Trajectory Policies' objective: trajectory consistency and the instantaneous flow."""

from __future__ import annotations

import torch
from torch import Tensor

from genpolicy.config.legal import refuse_unused
from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.errors import UserError
from genpolicy.model.trajectory import TrajectoryPolicy
from genpolicy.objective.objective import Draws
from genpolicy.objective.solution_map import SolutionMap, doubling, grid_time


@component
class Trajectory(SolutionMap):
    """|Phi(x_t, t, s) - Phi^-(x_u, u, s)|^2 + flow_weight |x_0 - phi(x_t, t, t)|^2 (Feng et al. 2025, eqs. 17 to 19).

    Phi^- is the moving average's map, t and u are neighbours on a grid that doubles over the training, and s is any
    point of it from the data end up to u. target: closed_form takes x_u = x_0 + u z with the noise z of x_t (their
    score approximation), whose bias falls only slowly as the grid is refined; euler and heun take x_u by solver steps
    of the moving average's field (their ablation without it).
    """

    uses_target = True
    scheduled = True

    target: str = setting("closed_form", choices=["closed_form", "euler", "heun"], doc="where x_u comes from")
    target_steps: int = setting(1, ge=1, le=3, doc="solver steps from t to u of the targets euler and heun")
    flow_weight: float = setting(1.0, ge=0.0, le=1e6, doc="lambda_Flow, the weight of the instantaneous map's error")
    first_intervals: int = setting(10, ge=1, le=2**20, doc="intervals of the grid when training begins")
    last_intervals: int = setting(1280, ge=1, le=2**20, doc="intervals of the grid when training ends")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """A target in closed form takes no steps; others take those of the instantaneous map."""
        super().check_compatibility(config)
        if config.objective.target == "closed_form":
            refuse_unused(config, "objective", ("target_steps",), "objective.target=closed_form takes no steps")
        elif not config.objective.flow_weight:
            raise UserError(
                f"objective.flow_weight=0: objective.target={config.objective.target} takes steps of the instantaneous "
                "map, which is then not learned; legal: above 0, or objective.target=closed_form"
            )

    def draw_times(
        self, policy: TrajectoryPolicy, action: Tensor, generator: torch.Generator, progress: float
    ) -> Draws:
        """Times t > u >= s [B] of the grid."""
        intervals = doubling(progress, self.first_intervals, self.last_intervals)
        size, device = len(action), action.device
        index = torch.randint(intervals, (size,), generator=generator, device=device)
        unit = torch.rand(size, generator=generator, device=device, dtype=action.dtype)
        return {
            "t": grid_time(policy, index + 1, intervals).to(action.dtype),
            "u": grid_time(policy, index, intervals).to(action.dtype),
            "s": grid_time(policy, (unit * (index + 1)).floor(), intervals).to(action.dtype),
        }

    def loss(self, policy: TrajectoryPolicy, observation: Tensor, action: Tensor, draws: Draws) -> Tensor:
        t, u, s, noise = draws["t"], draws["u"], draws["s"], draws["noise"]
        x = policy.path.perturb(action, noise, t)
        with torch.no_grad():
            earlier = self._earlier(policy, action, noise, x, t, u, observation)
            target = policy.target.jump(earlier, u, s, observation)
        # phi(x, t, s) and phi(x, t, t) in one pass
        twice = (value.repeat(2, *[1] * (value.dim() - 1)) for value in (x, t, observation))
        points, times, observations = twice
        mean, instantaneous = policy.surrogate(points, times, torch.cat([s, t]), observations).chunk(2)
        consistency = self.reduce((policy.move(x, t, s, mean) - target).square())
        return consistency + self.flow_weight * self.reduce((instantaneous - action).square())

    def _earlier(
        self,
        policy: TrajectoryPolicy,
        action: Tensor,
        noise: Tensor,
        x: Tensor,
        t: Tensor,
        u: Tensor,
        observation: Tensor,
    ) -> Tensor:
        """x_u [B, A], on the trajectory through x at t."""
        if self.target == "closed_form":
            return policy.path.perturb(action, noise, u)
        for step in range(self.target_steps):
            begin = t + (u - t) * (step / self.target_steps)
            end = t + (u - t) * ((step + 1) / self.target_steps)
            data = policy.target.data(x, begin, observation)
            reached = policy.move(x, begin, end, data)
            if self.target == "heun":
                # Heun's step of d(x / sigma) = data d(alpha / sigma), in which only the denoiser varies
                data = 0.5 * (data + policy.target.data(reached, end, observation))
                reached = policy.move(x, begin, end, data)
            x = reached
        return x
