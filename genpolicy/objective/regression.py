"""Regression of one of a policy's predictions at random times."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from genpolicy.config.schema import component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.errors import UserError
from genpolicy.model.flow import standard_normal
from genpolicy.model.generative import GenerativePolicy
from genpolicy.model.path import PREDICTIONS
from genpolicy.network.dropout import draw_kept, dropped
from genpolicy.objective.objective import Draws, SquaredError


def network_output(default: str) -> Any:
    """The setting `prediction`, with the default of an objective."""
    doc = "what the network's output is; auto: velocity, or preconditioned where the velocity is badly scaled"
    return setting(default, choices=["auto", *PREDICTIONS], doc=doc)


def refuse_levels(config: Node, name: str) -> None:
    """Raises `UserError` where a model knows the times of its noise levels alone: `name` draws others."""
    if "path" in config.model and locate(config.model.path._target_).discrete:
        raise UserError(
            f"{name} draws times of its own, and this model knows those of its noise levels alone; legal: "
            "a model of all times, or an objective that draws the model's, as epsilon"
        )


@component
class Regression(SquaredError):
    """weight(t) |prediction(x_t, t) - target|^2; t uniform on [t_min, t_max], or on a path's levels.

    The minimiser is the posterior mean of the target given x_t, whatever the weight.
    """

    masks = True
    regressed: ClassVar[str]  # the prediction whose error is squared

    prediction: str = network_output("auto")

    @classmethod
    def without_effect(cls, config: Node) -> dict[str, str]:
        return {}

    def draw(
        self,
        policy: GenerativePolicy,
        observation: Tensor,
        action: Tensor,
        generator: torch.Generator,
        progress: float = 1.0,
    ) -> Draws:
        """Times t [B], noise [B, A], paired with the actions by the path, and the network's dropout, if it has any."""
        noise = standard_normal(action.shape, generator, action)
        return {
            "t": self.draw_time(policy, len(action), generator, action),
            "noise": policy.path.couple(action, noise, observation),
            **draw_kept(policy.network, len(action), generator, action),
        }

    def draw_time(self, policy: GenerativePolicy, size: int, generator: torch.Generator, like: Tensor) -> Tensor:
        """Times [size] at which the prediction is trained."""
        unit = torch.rand(size, generator=generator, device=like.device, dtype=like.dtype)
        return policy.path.training_time(unit, policy.t_max)

    @abstractmethod
    def weight(self, policy: GenerativePolicy, t: Tensor) -> Tensor:
        """The loss weight [B] at times [B]."""

    def loss(self, policy: GenerativePolicy, observation: Tensor, action: Tensor, draws: Draws) -> Tensor:
        return self.error(policy, self.predicted(policy, observation, action, draws)[1], action, draws)

    def predicted(
        self, policy: GenerativePolicy, observation: Tensor, action: Tensor, draws: Draws
    ) -> tuple[Tensor, Tensor]:
        """The noisy actions x_t [B, A] of a loss, and what is predicted there [B, A]."""
        x = policy.path.perturb(action, draws["noise"], draws["t"])
        with dropped(policy.network, draws.get("kept")):
            return x, policy.predict(self.regressed, x, draws["t"], observation)

    def error(self, policy: GenerativePolicy, predicted: Tensor, action: Tensor, draws: Draws) -> Tensor:
        """The loss [B] of what is predicted [B, A]."""
        error = predicted - policy.path.target(self.regressed, action, draws["noise"], draws["t"])
        return self.weight(policy, draws["t"]) * self.reduce(error.square(), draws.get("valid"))
