"""Implicit Q-learning (Kostrikov et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from genpolicy.algo.algorithm import Algorithm
from genpolicy.algo.phase import Phase
from genpolicy.algo.update import Metrics, critic_updates, exponential_weight, imitation
from genpolicy.config.legal import legal_options
from genpolicy.config.schema import component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.critic.critic import require_value
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.objective.objective import Draws


@component
class IQL(Algorithm):
    """A policy fitted to the data's actions with weights min(exp(beta (Q^- - V)), weight_clamp) (eq. 7).

    Each batch trains V, the policy and Q in this order, as their code does; Q^- is the least of the target Q functions.
    """

    uses_samples = False

    beta: float = setting(
        3.0, gt=0.0, le=1e6, doc="inverse temperature, in units of the data set's (transformed) reward"
    )
    weight_clamp: float = setting(100.0, gt=0.0, le=1e30, doc="largest weight of a sample")
    steps: int = setting(20_000, ge=1, le=10**9, doc="updates of critic and policy")
    batch_size: int = setting(256, ge=1, le=2**20, doc="transitions an update")
    lr: float = setting(3e-4, gt=0.0, le=1e30, doc="Adam's learning rate of the policy")
    schedule: str = setting(
        "cosine", choices=["constant", "cosine"], doc="schedule of the policy's learning rate; cosine ends at 0"
    )

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """The critic must learn V from the data's actions."""
        require_value(config)

        def fits(critic: type) -> bool:
            return critic.next_actions is None

        if not fits(locate(config.critic._target_)):
            raise UserError(f"critic: needs a policy's actions; legal: {legal_options('critic', fits)}")

    def plan(self) -> list[Phase]:
        policy = imitation(self.policy, self.objective, self.lr, self.weight, schedule=self.schedule)
        first, *rest = ((name or "critic", update) for name, update in critic_updates(self.critic).items())
        updates = dict([first, ("policy", policy), *rest])
        settings = {"steps": self.steps, "batch_size": self.batch_size, "policy": self.policy}
        settings["trains"] = {"policy": self.policy, "critic": self.critic}
        # Before the last update the target Q stays as it is, so that V and the weights take the same value of it.
        extend = self.with_value if rest else None
        return [Phase(name="training", **settings, updates=updates, extend=extend)]

    @torch.no_grad()
    def with_value(self, batch: Transitions) -> Transitions:
        """A batch with the column `q_of_data`."""
        return batch.extended(q_of_data=self.critic.q_of_data(batch))

    @torch.no_grad()
    def weight(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """The weights [B], and their statistics."""
        q = self.critic.q_of_data(batch)
        return exponential_weight(self.beta * (q - self.critic.v(batch.observation)), self.weight_clamp)
