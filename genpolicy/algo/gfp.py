"""Guided Flow Policy (Tiofack et al. 2025, arXiv 2512.03973)."""

from __future__ import annotations

import torch
from torch import Tensor

from genpolicy.algo.compatibility import require_independent_noise
from genpolicy.algo.fql import FQL
from genpolicy.algo.update import Metrics
from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.transitions import Transitions
from genpolicy.objective.objective import Draws


@component
class GFP(FQL):
    """FQL whose flow imitates an action of the data the more, the better it is than the policy's in the same state.

    The weight of its loss is the action's share in a softmax over the two of lambda Q / eta, without a gradient:
    g = sigmoid(lambda / eta (Q(s, a) - Q(s, mu(s, z)))), with lambda = 1 / mean |Q(s, mu(s, z))|.
    """

    masks = False  # the weights are of whole actions

    eta: float = setting(
        1e-3, gt=0.0, le=1e6, doc="temperature of the weights, in units of the values' mean absolute value"
    )

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)
        require_independent_noise(config, "GFP weights pairs of action and noise")

    def matching(self, batch: Transitions, draws: Draws, q: Tensor) -> tuple[Tensor, Metrics]:
        matching, metrics = super().matching(batch, draws, q)
        weight = self.weight(batch, q)
        return weight * matching, metrics | {"weight": weight}

    @torch.no_grad()
    def weight(self, batch: Transitions, q: Tensor) -> Tensor:
        """The weight g [B] of the data's actions, beside the policy's with values q [B]."""
        gain = self.critic.q(batch.observation, batch.action).mean(0) - q
        return torch.sigmoid(gain / (self.eta * q.abs().mean()))
