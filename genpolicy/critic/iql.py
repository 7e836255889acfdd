"""Implicit Q-learning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genpolicy.config.schema import setting
from genpolicy.critic.critic import Critic, expectile_loss
from genpolicy.dataset.transitions import Transitions


@dataclass(kw_only=True, eq=False, repr=False)
class IQL(Critic):
    """Q and V learned from data-set actions alone (Kostrikov et al. 2022).

    V is the tau-expectile of min_j Q_j^-(s, a) over the data's actions (eq. 5), Q_j regresses r + gamma V(s') (eq. 6),
    and Q^- follows Q by Polyak averaging.
    """

    next_actions = None

    expectile: float = setting(0.7, gt=0.0, lt=1.0, doc="tau of the value's expectile regression")

    def loss(self, batch: Transitions, next_action: None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of value and Q losses, one a sample [B], and metrics."""
        pairs = torch.cat([batch.observation, batch.action], -1)
        value = self.v(batch.observation)
        with torch.no_grad():
            q_target = self.q_target(pairs).amin(0)
            bootstrap = torch.where(batch.terminated, 0.0, self.v(batch.next_observation))
            target = batch.reward + self.discount * bootstrap
        v_loss = expectile_loss(q_target - value, self.expectile)
        q = self.q_network(pairs)
        q_loss = (target - q).square().sum(0)
        metrics = {"v_loss": v_loss, "q_loss": q_loss, "q": q, "v": value}
        return v_loss + q_loss, {name: metric.detach().mean() for name, metric in metrics.items()}
