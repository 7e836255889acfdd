"""Implicit Q-learning."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from genpolicy.config.schema import component, setting
from genpolicy.critic.critic import Critic, Metrics, expectile_loss
from genpolicy.dataset.transitions import Transitions
from genpolicy.objective.objective import Draws


@component
class IQL(Critic):
    """Q and V learned from data-set actions alone (Kostrikov et al. 2022).

    V is the tau-expectile of min_j Q_j^-(s, a) over the data's actions (eq. 5), Q_j regresses r + gamma V(s') (eq. 6),
    and Q^- follows Q by Polyak averaging. The code of GenerativeRL and of SRPO takes both steps from the same V.
    """

    next_actions = None

    expectile: float = setting(0.7, gt=0.0, lt=1.0, doc="tau of the value's expectile regression")
    value_first: bool = setting(
        False, doc="update V before Q, whose target uses the new V, as in IQL's code; false: both at once"
    )

    v_of_target: bool = setting(True, doc="V regresses on the target Q; false: on Q itself, as in DTQL's code")

    def losses(self) -> dict[str, tuple[nn.Module, Callable[..., tuple[Tensor, Metrics]]]]:
        if self.value_first:
            return {"v": (self.v_network, self.v_loss), "q": (self.q_network, self.q_loss)}
        return super().losses()

    def loss(self, batch: Transitions, draws: Draws | None = None) -> tuple[Tensor, Metrics]:
        """The sum of value and Q losses, one a sample [B], and metrics."""
        (v_loss, v_metrics), (q_loss, q_metrics) = self.v_loss(batch), self.q_loss(batch)
        losses = {"v_loss": v_loss.detach().mean(), "q_loss": q_loss.detach().mean()}
        return v_loss + q_loss, losses | {"q": q_metrics["mean"], "v": v_metrics["mean"]}

    def v_loss(self, batch: Transitions, draws: Draws | None = None) -> tuple[Tensor, Metrics]:
        """The expectile regression of V [B], and metrics."""
        value = self.v(batch.observation)
        with torch.no_grad():
            wanted = self.q_of_data(batch) if self.v_of_target else self.q_min(batch.observation, batch.action)
        return self.inside(batch, expectile_loss(wanted - value, self.expectile)), {"mean": value.detach().mean()}

    def q_loss(self, batch: Transitions, draws: Draws | None = None) -> tuple[Tensor, Metrics]:
        """sum_j (Q_j(s, a) - r - gamma V(s'))^2 [B], and metrics."""
        with torch.no_grad():
            target = self.backed_up(batch, self.v(batch.next_observation))
        q = self.q(batch.observation, batch.action)
        return self.inside(batch, self.squared_error(q, target)), {"mean": q.detach().mean()}
