"""Euler steps in the path's own time and coordinates, as the code of flow matching takes them."""

from __future__ import annotations

from torch import Tensor

from genpolicy.config.schema import component, setting
from genpolicy.model.flow import ProbabilityFlow
from genpolicy.solver.solver import Solver


@component
class PathEuler(Solver):
    """x <- x - v(x, t) / steps, from t = 1 to 0 in equal steps (Park et al. 2025, algorithm 1).

    `Euler` takes its steps along the angle between data and noise instead, where other paths than straight ones are
    smoother.
    """

    steps: int = setting(10, ge=1, le=10**5, doc="number of steps, one evaluation each; uniform in t")

    def sample(self, flow: ProbabilityFlow, y: Tensor, noise: Tensor) -> Tensor:
        times = [y.new_full((), flow.t_max * (1 - i / self.steps)) for i in range(self.steps)]  # filled on the device
        x = flow.path.sigma(times[0]) / flow.noise_to_y(1.0) * y
        for t in times:
            x = x - flow.t_max / self.steps * flow.velocity(x, t)
        return flow.data_to_y(x)
