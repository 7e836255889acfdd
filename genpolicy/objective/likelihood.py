"""Maximum likelihood, for policies whose density is in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from genpolicy.config.schema import component
from genpolicy.config.validation import Node
from genpolicy.model.direct import GaussianPolicy
from genpolicy.model.flow import Capability
from genpolicy.network.dropout import draw_kept, dropped
from genpolicy.objective.objective import Draws, Objective


@component
class Likelihood(Objective):
    """-log pi(a|s)."""

    teaches = frozenset({Capability.DENSITY})

    @classmethod
    def without_effect(cls, config: Node) -> dict[str, str]:
        return {}

    def draw(
        self,
        policy: GaussianPolicy,
        observation: Tensor,
        action: Tensor,
        generator: torch.Generator,
        progress: float = 1.0,
    ) -> Draws:
        """The network's dropout, if it has any; nothing else is random."""
        return draw_kept(policy.network, len(action), generator, action)

    def loss(self, policy: GaussianPolicy, observation: Tensor, action: Tensor, draws: Draws) -> Tensor:
        with dropped(policy.network, draws.get("kept")):
            return -policy.log_prob(observation, action)


class LeastSquares(Likelihood):
    """|a - mu(s)|^2 / A, TD3+BC's imitation; the std is fitted to what the mean leaves, by maximum likelihood."""

    teaches = frozenset({Capability.DENSITY, Capability.MEAN})

    def loss(self, policy: GaussianPolicy, observation: Tensor, action: Tensor, draws: Draws) -> Tensor:
        with dropped(policy.network, draws.get("kept")):
            mean = draws["mean"] if "mean" in draws else policy.mean(observation)  # which an algorithm may know
        return (action - mean).square().mean(-1) - policy.log_density(action, mean.detach())
