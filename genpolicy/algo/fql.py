"""Flow Q-learning (Park et al. 2025)."""

from __future__ import annotations

from abc import ABC

import torch
from torch import Tensor, nn

from genpolicy.algo.actor_critic import ActorCritic
from genpolicy.algo.compatibility import require_flow
from genpolicy.algo.distilled import OneStepSettings
from genpolicy.algo.phase import Phase
from genpolicy.algo.update import Metrics, Update, valid_parts
from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.transitions import Transitions
from genpolicy.model.policy import Policy
from genpolicy.objective.objective import Draws


@component
class OneStepActor(OneStepSettings, ActorCritic, ABC):
    """A one-step policy that maximises Q while it is held to a behaviour flow: alpha |mu(s, z) - flow(s, z)|^2.

    Both make an action of the same noise, so that this bounds the squared Wasserstein distance of the two policies from
    above. As in FQL's code, which has one optimiser, all networks step from the same parameters.
    """

    uses_target = False  # the critic evaluates the one-step policy as it is: its targets are slow already

    normalize: bool = setting(False, doc="divide Q by its mean absolute value")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)
        require_flow(config)

    def policies(self, model: Policy) -> tuple[Policy, Policy]:
        return self.one_step(model), model

    def plan(self) -> list[Phase]:
        return [self.from_the_same_parameters(phase) for phase in super().plan()]

    def actor_update(self) -> Update:
        return self.maximising_update(self.trained())

    def trained(self) -> list[nn.Parameter]:
        """The parameters that the actor's update moves."""
        return list(self.policy.parameters())

    def draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """The noise that both policies start from."""
        return {"action_noise": self.behaviour.draw_noise(batch.size, generator, batch.action)}

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """The distillation's loss minus the value, [B], and metrics."""
        loss, _, metrics = self.policy_loss(batch, draws)
        return loss, {name: metric.detach().mean() for name, metric in metrics.items()}

    def policy_loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Tensor, Metrics]:
        """The distillation's loss minus the value, [B], the values [B] of the policy's actions, and metrics [B]."""
        observation, noise = batch.observation, draws["action_noise"]
        action, distance = self.distilled(self.behaviour, observation, noise)
        q = self.critic.q(observation, self.clip(action)).mean(0)
        return self.alpha * distance - self.gain(q), q, {"distance": distance, "q": q}

    def gain(self, value: Tensor) -> Tensor:
        """What values [B] count, [B]: in units of their mean absolute value, if so configured."""
        return value / value.detach().abs().mean() if self.normalize else value


@component
class FQL(OneStepActor):
    """A one-step policy that is distilled from a flow, which is fitted beside it (algorithm 1)."""

    masks = True

    def actor_update(self) -> Update:
        update = super().actor_update()
        update.after = self.behaviour.update_target
        return update

    def trained(self) -> list[nn.Parameter]:
        return [*self.behaviour.parameters(), *super().trained()]

    def draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """The flow's draws, and the noise that both policies start from."""
        matching = self.objective.draw(self.behaviour, batch.observation, batch.action, generator, progress)
        return super().draw(batch, generator, progress) | matching | valid_parts(batch)

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """The flow's loss, the distillation's and minus the value, [B], and metrics."""
        loss, q, metrics = self.policy_loss(batch, draws)
        matching, own = self.matching(batch, draws, q)
        return matching + loss, {name: metric.detach().mean() for name, metric in (own | metrics).items()}

    def matching(self, batch: Transitions, draws: Draws, q: Tensor) -> tuple[Tensor, Metrics]:
        """The flow's loss [B], and metrics [B]. q: the values [B] of the policy's actions."""
        matching = self.objective.loss(self.behaviour, batch.observation, batch.action, draws)
        return matching, {"matching": matching}
