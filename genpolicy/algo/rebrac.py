"""ReBRAC (Tarasov et al. 2023, arXiv 2305.09836)."""

from __future__ import annotations

from torch import Tensor

from genpolicy.algo.td3_bc import TD3
from genpolicy.algo.update import Metrics, Update
from genpolicy.config.legal import refuse_unused
from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.transitions import Transitions
from genpolicy.objective.objective import Draws


@component
class ReBRAC(TD3):
    """TD3+BC with penalties in actor and critic: -min_j Q_j(s, mu(s)) / mean |min_j Q_j| + alpha |a - mu(s)|^2.

    The critic's is that of `RegularisedQ`. As in their code, the actor's moving average follows what the actor was
    before the update.
    """

    alpha: float = setting(1.0, ge=0.0, le=1e6, doc="weight of the squared distance from the data's action")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)
        why = "the actor's moving average follows at each of its updates, as it was before"
        refuse_unused(config, "algo", ("ema_start", "ema_every"), why)

    def actor_update(self) -> Update:
        update = super().actor_update()
        update.before, update.after = update.after, None
        return update

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """The loss [B], and metrics, `matching` being |a - mu(s)|^2."""
        imitation, value, metrics = self.terms(batch, draws)
        size = self.policy.action_size
        return self.alpha * (size * imitation) - value, metrics | {"matching": size * metrics["matching"]}

    def actor_q(self, observation: Tensor, action: Tensor) -> Tensor:
        return self.critic.q_min(observation, action)
