"""Generative Trajectory Policies (Feng et al. 2025, arXiv 2510.11499)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genpolicy.algo.actor_critic import ActorCritic
from genpolicy.algo.update import Metrics, Update, imitation, limited_exp, weight_metrics
from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.critic.critic import q_of_each
from genpolicy.dataset.transitions import Transitions
from genpolicy.objective.objective import Draws


@component
class GTP(ActorCritic):
    """The actor's generative loss weighted with exp(eta max(0, A) / (std A + eps)), std over the batch (eq. 14).

    The paper does not say what V is in A = min_j Q_j(s, a) - V(s). Here it is the mean of min_j Q_j over
    `value_samples` actions of the actor's moving average, whose value the critic learns; or the critic's own V, if it
    learns one (critic.expectile). Actions of fewer jumps would be cheaper, but their bias is that of V: with one jump
    the policy ends 6 % below its optimum on a bandit of two arms.
    """

    batch_size: int = setting(256, ge=2, le=2**20, doc="transitions an update; one alone has no std A")
    eta: float = setting(0.5, ge=0.0, le=1e6, doc="strength of the guidance; 0 is behaviour cloning")
    weight_clamp: float | None = setting(
        100.0, ge=1.0, le=1e30, doc="largest weight of a sample; null: no limit, as in the paper"
    )
    value_samples: int = setting(1, ge=1, le=10**3, doc="actions whose mean Q is V(s), if the critic learns no V")

    @classmethod
    def without_effect(cls, config: Node) -> dict[str, str]:
        learned = {} if config.critic.expectile is None else {"algo.value_samples": "where the critic learns V"}
        return super().without_effect(config) | learned

    def actor_update(self) -> Update:
        return imitation(
            self.policy,
            self.objective,
            self.lr,
            self.weight,
            weight_draw=self.draw_value,
            after=self.update_targets,
            clip=self.gradient_norm,
            every=self.policy_delay,
        )

    def draw_value(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """What is random in the actions that V is the mean of, if it is."""
        if self.critic.expectile is not None:
            return {}
        return self.draw_target(batch, generator, self.value_samples, "value")

    @torch.no_grad()
    def weight(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """The weights [B] and their metrics."""
        advantage = self.critic.q_min(batch.observation, batch.action) - self._value(batch.observation, draws)
        exponent = self.eta * advantage.clamp(min=0) / (advantage.std() + 1e-6)
        weight = limited_exp(exponent, math.inf if self.weight_clamp is None else self.weight_clamp)
        return weight, weight_metrics(weight) | {"advantage": advantage.mean()}

    def _value(self, observation: Tensor, draws: Draws) -> Tensor:
        if self.critic.expectile is not None:
            return self.critic.v(observation)
        return q_of_each(self.critic, observation, self.target_action(observation, draws, "value")).mean(1)
