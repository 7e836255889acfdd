"""What the objectives share that fit a whole solution map."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from genpolicy.config.schema import component
from genpolicy.config.validation import Node
from genpolicy.model.flow import Capability, standard_normal
from genpolicy.model.trajectory import TrajectoryPolicy
from genpolicy.objective.objective import Draws, SquaredError
from genpolicy.objective.regression import refuse_levels


@component
class SolutionMap(SquaredError):
    """An objective of Phi(x_t, t, s) and of the instantaneous map phi(x_t, t, t)."""

    teaches = frozenset({Capability.FIELD, Capability.MAP, Capability.END})
    prediction = "preconditioned"

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """Times are those that the model is to know."""
        refuse_levels(config, "objective: it")

    def draw(
        self,
        policy: TrajectoryPolicy,
        observation: Tensor,
        action: Tensor,
        generator: torch.Generator,
        progress: float = 1.0,
    ) -> Draws:
        """The times of `draw_times`, and noise [B, A], paired with the actions by the path."""
        times = self.draw_times(policy, action, generator, progress)
        noise = standard_normal(action.shape, generator, action)
        return times | {"noise": policy.path.couple(action, noise, observation)}

    @abstractmethod
    def draw_times(
        self, policy: TrajectoryPolicy, action: Tensor, generator: torch.Generator, progress: float
    ) -> Draws:
        """The times [B] of one loss of actions [B, A], by name."""


def doubling(progress: float, first: int, last: int) -> int:
    """The size of a grid that doubles from `first` to `last`, each size for as long (Song and Dhariwal 2024, eq. 9)."""
    sizes = (last // first).bit_length()
    return min(first * 2 ** int(progress * sizes), last)


def grid_time(policy: TrajectoryPolicy, index: Tensor, intervals: int) -> Tensor:
    """Point `index` of `intervals` + 1 from t_min to t_max, evenly spaced in t: on an EDM path, Karras' grid."""
    return policy.path.t_min + (policy.t_max - policy.path.t_min) * index / intervals
