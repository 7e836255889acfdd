"""A policy of one network evaluation, trained on a behaviour model and a critic that are learned before it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genpolicy.algo.algorithm import (
    Algorithm,
    BehaviourSettings,
    CriticSettings,
    Phase,
    PolicySettings,
    require_denoiser,
)
from genpolicy.algo.update import Metrics, Update
from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.transitions import Transitions
from genpolicy.model.direct import DirectPolicy
from genpolicy.model.flow import standard_normal
from genpolicy.model.policy import Policy
from genpolicy.network.activation import ACTIVATIONS
from genpolicy.network.mlp import MLP
from genpolicy.objective.objective import Draws


def one_step_policy(
    cls: type[DirectPolicy], model: Policy, algorithm: Algorithm, squash: bool = True, **shape: Any
) -> DirectPolicy:
    """A direct policy beside a model, for the same observations and actions.

    squash: whether a tanh keeps its output inside a bounded action space. shape: settings of its `MLP`.
    """
    sizes = {"action_size": model.action_size, "observation_size": model.network.observation_size}
    bounds = {"action_low": algorithm.action_low, "action_high": algorithm.action_high}
    network = MLP(num_times=0, input_size=None if cls.takes_noise else 0, **sizes, **shape)
    return cls(network=network, squash=squash, **bounds)


@component
class Distilled(BehaviourSettings, CriticSettings, PolicySettings, Algorithm, ABC):
    """The phases that SRPO and DTQL share: behaviour model, critic, then the policy."""

    uses_samples = False

    policy_hidden: list[int] = setting([256, 256], ge=1, le=2**14, doc="units of each hidden layer of the policy")
    policy_activation: str = setting(
        "silu", choices=list(ACTIVATIONS), doc="activation after each hidden layer of the policy"
    )

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)
        require_denoiser(config)

    def plan(self) -> list[Phase]:
        frozen_modules = [self.behaviour, self.critic]
        more = {"frozen_modules": frozen_modules, "schedule": self.policy_schedule}
        update = Update(self.policy.parameters(), self.policy_lr, self.loss, self.draw, **more)
        return [self.behaviour_phase(), self.critic_phase(), self.policy_phase(update)]

    def draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """The noise [B, A] of the action, and the time [B] and noise [B, A] at which the behaviour model judges it."""
        size, like = batch.size, batch.action
        return {
            "action_noise": self.policy.draw_noise(size, generator, like),
            "t": self.draw_time(size, generator, like),
            "noise": standard_normal(like.shape, generator, like),
        }

    def draw_time(self, size: int, generator: torch.Generator, like: Tensor) -> Tensor:
        """The times [size]: as the behaviour model is trained."""
        return self.objective.draw_time(self.behaviour, size, generator, like)

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """The penalty of leaving the behaviour minus the gain in value, [B], and metrics."""
        observation = batch.observation
        action = self.policy.sample(observation, noise=draws["action_noise"])
        x = self.behaviour.path.perturb(action, draws["noise"], draws["t"])
        penalty = self.penalty(action, x, draws["t"], draws["noise"], observation)
        q, gain = self.gain(lambda action: self.value(observation, self.clip(action)), action)
        return penalty - gain, {"penalty": penalty.detach().mean(), "q": q.detach().mean()}

    def value(self, observation: Tensor, action: Tensor) -> Tensor:
        """The values [E, B] of actions [B, A] that the policy climbs."""
        return self.critic.q(observation, action)

    @abstractmethod
    def penalty(self, action: Tensor, x: Tensor, t: Tensor, noise: Tensor, observation: Tensor) -> Tensor:
        """What actions [B, A], perturbed by noise [B, A] to x at t [B], pay for leaving the behaviour, [B]."""

    @abstractmethod
    def gain(self, value: Callable[[Tensor], Tensor], action: Tensor) -> tuple[Tensor, Tensor]:
        """The values [E, B] that a function gives actions [B, A], and what they count, [B]."""
