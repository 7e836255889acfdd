"""What critics share: several Q functions, their minimum, their slowly moving target, and V."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from genpolicy.errors import UserError
from genpolicy.network.averaging import polyak_update


class Critic(nn.Module):
    """Subclasses make `q_network`, its copy `q_target` and `v_network`, and have a setting `target_rate`."""

    next_actions: ClassVar[str | None]  # whose actions at the next states its loss takes: "policy", "behaviour"
    expectile: float | None  # that V is of min_j Q_j over the data's actions; None if no V is learned

    def q(self, observation: Tensor, action: Tensor) -> Tensor:
        """Q_j(s, a) [E, B] of observation [B, O] and action [B, A]."""
        return self.q_network(torch.cat([observation, action], -1))

    def v(self, observation: Tensor) -> Tensor:
        """V(s) [B], if it is learned."""
        return self.v_network(observation)[0]

    def q_min(self, observation: Tensor, action: Tensor) -> Tensor:
        """min_j Q_j(s, a) [B]."""
        return self.q(observation, action).amin(0)

    def aggregated(self, q: Tensor) -> Tensor:
        """What Q functions say together, [...] of q [E, ...]: their minimum."""
        return q.amin(0)

    def update_target(self) -> None:
        """One step of Polyak averaging of the target Q."""
        polyak_update(self.q_target.parameters(), self.q_network.parameters(), self.target_rate)


def q_min_of_each(critic: Critic, observation: Tensor, action: Tensor) -> Tensor:
    """min_j Q_j(s, a_k) [B, K] of K actions [B, K, A] at each observation [B, O]."""
    repeated = observation.repeat_interleave(action.shape[1], 0)
    return critic.q_min(repeated, action.flatten(0, 1)).unflatten(0, action.shape[:2])


def require_value(config) -> None:
    """Refuse a critic that learns no V."""
    if config.critic.get("expectile") is None:
        raise UserError("critic: must learn V; legal: critic=iql, or critic.expectile=0.7")


def expectile_loss(gap: Tensor, expectile: float) -> Tensor:
    """|tau - 1(gap < 0)| gap^2 [B], least where the value is the tau-expectile (Kostrikov et al. 2022, eq. 4)."""
    return torch.where(gap > 0, expectile, 1 - expectile) * gap.square()
