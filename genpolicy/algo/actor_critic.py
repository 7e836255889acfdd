"""Actor-critic algorithms with a generative actor: both are trained on every batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from genpolicy.algo.algorithm import Algorithm, Draws, Metrics, Phase, Update, Updates
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.settings import locate, setting


@dataclass(kw_only=True, eq=False, repr=False)
class ActorCritic(Algorithm, ABC):
    """A critic that evaluates the actor's moving average, and an actor that a subclass improves by the critic."""

    uses_target = True

    steps: int = setting(20_000, ge=1, doc="updates of critic and actor")
    batch_size: int = setting(256, ge=1, doc="transitions an update")
    lr: float = setting(3e-4, gt=0.0, doc="Adam's learning rate of the actor")
    gradient_norm: float | None = setting(
        None, gt=0.0, doc="largest norm of a gradient, of actor and critic each; null: any"
    )

    def __post_init__(self, policy, objective, critic):
        super().__post_init__(policy, objective, critic)
        evaluation = Update(
            critic.parameters(),
            critic.lr,
            self._evaluate,
            self._next_action,
            critic.update_target,
            clip=self.gradient_norm,
        )
        updates = Updates(critic=evaluation, actor=self.improvement())
        self.phases = [Phase("training", self.steps, self.batch_size, updates, policy)]

    @classmethod
    def partners(cls, config) -> None:
        if not locate(config.critic._target_).evaluates_policy:
            raise UserError("critic: must evaluate the policy; legal: critic=double_q")

    @abstractmethod
    def improvement(self) -> Update:
        """The actor's update, after the critic's on the same batch."""

    @torch.no_grad()
    def target_action(self, observation: Tensor, generator: torch.Generator, num_samples: int) -> Tensor:
        """Actions [B, num_samples, A] of the actor's moving average, clipped to the action space."""
        return self.clip(self.policy.target.sample(observation, generator, num_samples))

    def clip(self, action: Tensor) -> Tensor:
        """Actions [..., A] clipped to the action space, outside of which the critic has seen none."""
        return action.clamp(self.action_low, self.action_high)

    def _next_action(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        return {"next_action": self.target_action(batch.next_observation, generator, self.critic.candidates)}

    def _evaluate(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        return self.critic.loss(batch, draws["next_action"])
