"""A policy of one network evaluation, trained on a behaviour model and a critic that are learned before it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from genpolicy.algo.algorithm import Algorithm
from genpolicy.algo.compatibility import require_denoiser, require_independent_noise
from genpolicy.algo.phase import Phase
from genpolicy.algo.settings import BehaviourSettings, CriticSettings, PolicySettings
from genpolicy.algo.update import Metrics, Update
from genpolicy.config.legal import legal_options
from genpolicy.config.schema import build, component, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.model.direct import DirectPolicy, OneStepPolicy
from genpolicy.model.flow import standard_normal
from genpolicy.model.policy import Policy
from genpolicy.network.activation import ACTIVATIONS, INITIALISATIONS
from genpolicy.network.mlp import MLP
from genpolicy.objective.objective import Draws


def one_step_policy(
    cls: type[DirectPolicy], model: Policy, algorithm: Algorithm, squash: bool = True, **shape: Any
) -> DirectPolicy:
    """A direct policy beside a model, for the same observations and actions.

    squash: whether a tanh keeps its output inside a bounded action space. shape: settings of its `MLP`.
    """
    bounds = {"action_low": algorithm.action_low, "action_high": algorithm.action_high}
    network = network_beside(model, input_size=None if cls.takes_noise else 0, **shape)
    return cls(network=network, squash=squash, **bounds)


def network_beside(model: Policy, **shape: Any) -> MLP:
    """A perceptron without times for a model's observations and actions. shape: what else an `MLP` takes."""
    sizes = {"action_size": model.action_size, "observation_size": model.network.observation_size}
    return MLP(num_times=0, **sizes, **shape)


def require_noise_at_start(config: Node, what: str) -> None:
    """Refuse a solver that draws noise on the way. what: is done to the flow, and by whom."""

    def fits(solver: Mapping) -> bool:
        return not build(solver).num_noises

    if not fits(config.solver):
        legal = legal_options("solver", having=fits)
        raise UserError(f"solver: {what} that noise enters at its start only; legal: {legal}")


@component
class PerceptronSettings:
    """The settings of algorithms that train a perceptron beside a flow, as their policy or a part of it."""

    policy_hidden: list[int] = setting(
        [256, 256, 256], ge=1, le=2**14, doc="units of each hidden layer of the policy's perceptron"
    )
    policy_activation: str = setting("silu", choices=list(ACTIVATIONS), doc="activation after each of these layers")
    policy_init: str = setting("pytorch", choices=list(INITIALISATIONS), doc="initialisation of its weights")

    @property
    def shape(self) -> dict[str, Any]:
        """These settings as `MLP` takes them."""
        return {"hidden": self.policy_hidden, "activation": self.policy_activation, "init": self.policy_init}


@component
class OneStepSettings(PerceptronSettings):
    """The settings of algorithms that distil a flow, which noise enters at its start only, to a one-step policy."""

    takes_one_step = True

    alpha: float = setting(10.0, ge=0.0, le=1e6, doc="weight of the distillation")
    squash: bool = setting(True, doc="end the one-step policy with a tanh; false: only clip its actions")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """The flow's noise is that of the one-step policy."""
        super().check_compatibility(config)
        require_noise_at_start(config, f"{cls.__name__} distils a flow")

    def one_step(self, model: Policy) -> OneStepPolicy:
        """A one-step policy beside a flow."""
        return one_step_policy(OneStepPolicy, model, self, self.squash, **self.shape)

    def distilled(self, flow: Policy, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The policy's actions [B, A] of noise [B, 1, A], and their mean squared distances [B] from the flow's."""
        with torch.no_grad():
            wanted = self.clip(flow.sample(observation, noise=noise))
        action = self.policy.sample(observation, noise=noise[:, 0])
        return action, (action - wanted).square().mean(-1)


@component
class Distilled(BehaviourSettings, CriticSettings, PolicySettings, Algorithm, ABC):
    """The phases that SRPO and DTQL share: behaviour model, critic, then the policy."""

    uses_samples = False
    takes_one_step = True

    policy_hidden: list[int] = setting([256, 256], ge=1, le=2**14, doc="units of each hidden layer of the policy")
    policy_activation: str = setting(
        "silu", choices=list(ACTIVATIONS), doc="activation after each hidden layer of the policy"
    )

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)
        require_denoiser(config)
        require_independent_noise(config, f"{cls.__name__}'s actions are judged with noise")

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
        """The values [E, B] of actions [B, A] that the policy maximises."""
        return self.critic.q(observation, action)

    @abstractmethod
    def penalty(self, action: Tensor, x: Tensor, t: Tensor, noise: Tensor, observation: Tensor) -> Tensor:
        """What actions [B, A], perturbed by noise [B, A] to x at t [B], pay for leaving the behaviour, [B]."""

    @abstractmethod
    def gain(self, value: Callable[[Tensor], Tensor], action: Tensor) -> tuple[Tensor, Tensor]:
        """The values [E, B] that a function gives actions [B, A], and what they count, [B]."""
