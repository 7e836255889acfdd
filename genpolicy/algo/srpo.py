"""Score-regularized policy optimization (Chen et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genpolicy.algo.distilled import Distilled, one_step_policy
from genpolicy.config.legal import refuse_unused
from genpolicy.config.schema import component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.model.direct import DeterministicPolicy
from genpolicy.model.policy import Policy


@component
class SRPO(Distilled):
    """A deterministic policy that maximises beta Q and the behaviour's density, whose score is the diffusion model's.

    The density is that of perturbed actions, averaged over times with weight sigma^2; the gradient passes around the
    diffusion model (eqs. 10 and 12).
    """

    beta: float = setting(
        0.1, gt=0.0, le=1e6, doc="weight of the value, in units of the data set's (transformed) reward"
    )
    normalize: bool = setting(False, doc="divide each action's gradient of Q by its root mean square")
    target_value: bool = setting(False, doc="maximise the mean of the target Q functions; false: of the online ones")
    time_margin: float = setting(
        0.0,
        ge=0.0,
        lt=0.5,
        doc="t of the score is uniform in [margin, 1 - margin]; 0: as the behaviour model is trained",
    )

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """Times are those that the behaviour model knows."""
        super().check_compatibility(config)
        if locate(config.model.path._target_).discrete:
            refuse_unused(config, "algo", ("time_margin",), "this model knows the times of its noise levels alone")

    def policies(self, model: Policy) -> tuple[Policy, Policy]:
        shape = {"hidden": self.policy_hidden, "activation": self.policy_activation}
        return one_step_policy(DeterministicPolicy, model, self, **shape), model

    def draw_time(self, size: int, generator: torch.Generator, like: Tensor) -> Tensor:
        if not self.time_margin:
            return super().draw_time(size, generator, like)
        unit = torch.rand(size, generator=generator, device=like.device, dtype=like.dtype)
        return self.time_margin + (1 - 2 * self.time_margin) * unit

    def value(self, observation: Tensor, action: Tensor) -> Tensor:
        q = self.critic.q_of_target if self.target_value else self.critic.q
        return q(observation, action)

    def penalty(self, action: Tensor, x: Tensor, t: Tensor, noise: Tensor, observation: Tensor) -> Tensor:
        with torch.no_grad():
            sigma = self.behaviour.path.sigma(t)[:, None]
            slope = sigma**2 * self.behaviour.noise(x, t, observation)
        return (slope * action).sum(-1)

    def gain(self, value: Callable[[Tensor], Tensor], action: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            q, pull_back = torch.func.vjp(value, action.detach())
            (slope,) = pull_back(torch.ones_like(q) / len(q))  # of their mean
        if self.normalize:
            slope = slope / slope.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-12)
        return q, self.beta * (slope * action).sum(-1)
