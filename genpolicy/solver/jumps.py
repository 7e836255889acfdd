"""Sampling by a learned solution map, one evaluation a step."""

from __future__ import annotations

import math

from torch import Tensor

from genpolicy.config.schema import component, setting
from genpolicy.model.flow import Capability, ProbabilityFlow
from genpolicy.solver.exponential import HIGHEST_RATIO
from genpolicy.solver.solver import FixedGrid, Solver

PURE = 1e6  # sigma / alpha, beyond which there is noise alone


@component
class Jumps(FixedGrid, Solver):
    """x_{i+1} = Phi(x_i, t_i, t_{i+1}) from noise to data: deterministic after the first draw (GTP's eq. 15).

    The default grid has its points where the modes of actions separate, at noise of about the actions' scale.
    """

    requires = Capability.MAP

    steps: int = setting(5, ge=1, le=10**5, doc="jumps K, each one evaluation of the network")

    def sample(self, flow: ProbabilityFlow, y: Tensor, noise: Tensor) -> Tensor:
        return flow.solution(y, self.grid(flow.end, flow.start))


@component
class Renoise(Solver):
    """Jump to the data end, add noise again, jump: multistep consistency sampling (Song et al. 2023, algorithm 1).

    The noise levels, sigma / alpha, fall linearly to `lowest`, as in Consistency-AC (Ding and Jin 2024); after a first
    one of pure noise as after theirs of 80.
    """

    requires = Capability.END

    steps: int = setting(2, ge=1, le=10**5, doc="jumps K, each one evaluation of the network")
    lowest: float = setting(2.0, gt=0.0, le=1e6, doc="noise before the last jump, sigma / alpha in action units")

    @property
    def num_noises(self) -> int:
        return self.steps - 1

    def sample(self, flow: ProbabilityFlow, y: Tensor, noise: Tensor) -> Tensor:
        highest = flow.sigma_data * math.tan(flow.end)
        highest = highest if highest <= PURE else HIGHEST_RATIO
        fall = (highest - min(self.lowest, highest)) / max(self.steps - 1, 1)
        for i in range(self.steps):
            angle = math.atan2(highest - i * fall, flow.sigma_data) if i else flow.end
            if i:
                # the data have noise already
                spread = math.sqrt(max(math.tan(angle) ** 2 - math.tan(flow.start) ** 2, 0.0))
                y = math.cos(angle) * (flow.y_to_data(y) + flow.sigma_data * spread * noise[:, i - 1])
            y = flow.solution(y, (angle, flow.start))
        return y
