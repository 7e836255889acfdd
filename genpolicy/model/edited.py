"""A policy that edits the actions of a flow (Dong et al. 2025, EXPO, arXiv 2507.07986)."""

from __future__ import annotations

from dataclasses import InitVar
from typing import TYPE_CHECKING

from torch import Tensor, nn

from genpolicy.config.schema import component, setting
from genpolicy.model.direct import DirectPolicy, tanh_normal
from genpolicy.model.generative import GenerativePolicy

if TYPE_CHECKING:
    from genpolicy.solver.solver import Solver

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0  # of QAM's code


@component
class OfFlow(DirectPolicy):
    """What policies share that are made of a flow."""

    flow: InitVar[GenerativePolicy]

    def __post_init__(
        self, network: nn.Module, action_low: Tensor, action_high: Tensor, flow: GenerativePolicy
    ) -> None:
        super().__post_init__(network, action_low, action_high)
        self.flow = flow

    @property
    def solver(self) -> Solver:
        """The flow's, which can be replaced."""
        return self.flow.solver

    @solver.setter
    def solver(self, solver: Solver) -> None:
        self.flow.solver = solver


@component
class EditedPolicy(OfFlow):
    """b + scale tanh(u): b the clipped action of a flow, u ~ N(m, diag(std^2)) with m and std those of a network of b.

    The network gives m and ln std [B, 2 A] for b and the observation. No density: b is not known from an action.
    """

    scale: float = setting(0.1, ge=0.0, le=1e6, doc="largest distance of an edit in each dimension")

    @property
    def num_noises(self) -> int:
        return self.flow.num_noises + 1

    def base(self, noise: Tensor, observation: Tensor) -> Tensor:
        """The flow's actions [B, A], clipped to the action space, of all noise [B, noises, A] but the last."""
        return self.flow.bound(self.flow.actions(noise[:, :-1], observation))

    def edit(self, base: Tensor, noise: Tensor, observation: Tensor) -> tuple[Tensor, Tensor]:
        """tanh(u) [B, A] of the last of noise [B, noises, A] at the flow's actions [B, A], and its log-density [B]."""
        mean, log_std = self.network(base, base[:, :0], observation).chunk(2, -1)
        std = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX).exp()
        return tanh_normal(mean, std, noise[:, -1])

    def actions(self, noise: Tensor, observation: Tensor) -> Tensor:
        base = self.base(noise, observation)
        return base + self.scale * self.edit(base, noise, observation)[0]
