"""MeanFlow's objective: the identity between the mean and the instantaneous velocity."""

from __future__ import annotations

import torch
from torch import Tensor

from genpolicy.config.schema import component, setting
from genpolicy.model.trajectory import TrajectoryPolicy
from genpolicy.objective.objective import Draws
from genpolicy.objective.solution_map import SolutionMap, grid_time

OFFSET = 0.01  # c of the adaptive weight 1 / (error^2 + c), Geng et al. 2025, section 4.3, p = 1


@component
class MeanFlow(SolutionMap):
    """The mean velocity u(x_t, t, s) obeys u = v - (t - s) du/dt along the flow (Geng et al. 2025, eq. 6).

    With u = (x - phi) / t in noise-to-signal units and r = s / t, the right-hand side's phi is

        r x_0 + (1 - r) (phi - dphi / dln t)

    the derivative being taken along (x_0, z), of which the mean is v. For s = t that is x_0. Times are uniform in the
    path's t; the paper's logit-normal ones would never train the jump from pure noise.
    """

    instantaneous: float = setting(0.75, ge=0.0, lt=1.0, doc="share of samples with s = t")

    def draw_times(
        self, policy: TrajectoryPolicy, action: Tensor, generator: torch.Generator, progress: float
    ) -> Draws:
        """Times t >= s [B]."""
        kind, *pair = torch.rand(3, len(action), generator=generator, device=action.device, dtype=action.dtype)
        later, earlier = torch.maximum(*pair), torch.minimum(*pair)
        return {
            "t": grid_time(policy, later, 1),
            "s": grid_time(policy, torch.where(kind < self.instantaneous, later, earlier), 1),
        }

    def loss(self, policy: TrajectoryPolicy, observation: Tensor, action: Tensor, draws: Draws) -> Tensor:
        t, s, noise = draws["t"], draws["s"], draws["noise"]
        path = policy.path
        # along the way, per unit of ln(sigma / alpha)
        rate = path.alpha(t) * path.sigma(t) / path.wronskian(t)
        velocity = path.target("velocity", action, noise, t) * rate[:, None]
        x = path.perturb(action, noise, t)
        phi, slope = torch.func.jvp(lambda x, t: policy.surrogate(x, t, s, observation), (x, t), (velocity, rate))
        ratio = (path.sigma(s) * path.alpha(t) / (path.alpha(s) * path.sigma(t)))[:, None]
        target = (ratio * action + (1 - ratio) * (phi - slope)).detach()
        _, out = policy.preconditioning(t)
        error = self.reduce((phi - target).square()) / out**2  # of the network's output
        return error / (error.detach() + OFFSET)
