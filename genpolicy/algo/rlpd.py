"""Soft actor-critic from data and from the simulator alike (RLPD; Ball et al. 2023, arXiv 2302.02948)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genpolicy.algo.actor_critic import ActorCritic
from genpolicy.algo.entropy import entropy_loss
from genpolicy.algo.phase import Phase
from genpolicy.algo.update import Metrics, Update
from genpolicy.config.legal import legal_options
from genpolicy.config.schema import component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.model.direct import TanhGaussianPolicy
from genpolicy.objective.objective import Draws


@component
class RLPD(ActorCritic):
    """A tanh-Gaussian policy that maximises the mean of many Q functions, its entropy held by a learned temperature.

    Backed up is the least of a random subset of the target Q functions (`critic.subset`), which follow Q at every
    update; policy and temperature move at every `policy_delay`-th. There is no term that holds the policy to data.
    """

    uses_target = False

    entropy: float = setting(-0.5, ge=-100.0, le=100.0, doc="entropy of the policy in nats, per dimension of actions")
    backup_entropy: bool = setting(True, doc="whether the entropy at the next states is a part of the values")
    pretrain: bool = setting(
        False, doc="make `steps` updates before online training, too; false: only where there is none"
    )

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)

        def fits(model: type) -> bool:
            return issubclass(model, TanhGaussianPolicy)

        if not fits(locate(config.model._target_)):
            raise UserError(f"model: RLPD needs a tanh-Gaussian policy; legal: {legal_options('model', fits)}")

    @classmethod
    def without_effect(cls, config: Node) -> dict[str, str]:
        return super().without_effect(config) | {"network.dropout": "where no data are fitted"}

    @property
    def begins_online(self) -> bool:
        return not self.pretrain

    def plan(self) -> list[Phase]:
        self.log_temperature = nn.Parameter(torch.zeros(1))
        return super().plan()

    def critic_updates(self, **more: Any) -> dict[str, Update]:
        return super().critic_updates(after=self.critic.update_target, **more)

    def actor_update(self) -> Update:
        return self.maximising_update([*self.policy.parameters(), self.log_temperature])

    def evaluated(self, batch: Transitions, draws: Draws) -> Draws:
        """The actions, and `next_cost` [B, critic.candidates], what their values lose: temperature log pi."""
        noise = draws["next_noise"]
        observation = batch.next_observation.repeat_interleave(noise.shape[1], 0)
        action, log_prob = self.policy.actions_and_density(noise.flatten(0, 1), observation)
        derived = {"next_action": self.clip(action)}
        if self.backup_entropy:
            derived["next_cost"] = self.log_temperature.exp() * log_prob
        return {name: value.unflatten(0, noise.shape[:2]) for name, value in derived.items()}

    def draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """The noise [B, 1, A] of the policy's actions."""
        return {"action_noise": self.policy.draw_noise(batch.size, generator, batch.action)}

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """The losses of policy and temperature [B], and metrics."""
        action, log_prob = self.policy.actions_and_density(draws["action_noise"], batch.observation)
        q = self.critic.q(batch.observation, self.clip(action)).mean(0)
        loss, metrics = entropy_loss(self.log_temperature, log_prob, self.entropy * action.shape[-1])
        return loss - q, metrics | {"q": q.detach().mean()}
