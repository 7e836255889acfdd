"""TD3+BC (Fujimoto and Gu 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

from genpolicy.algo.q_guided import QGuided
from genpolicy.algo.update import Metrics
from genpolicy.config.legal import legal_options
from genpolicy.config.schema import component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.model.direct import GaussianPolicy
from genpolicy.objective.objective import Draws


@component
class TD3BC(QGuided):
    """TD3 with the squared error of the data's actions: -eta Q(s, mu(s)) / mean |Q| + |a - mu(s)|^2 / A (eq. 5).

    Q is the critic's first. Only the mean of the Gaussian is TD3+BC's; its std, which nothing else depends on, is
    fitted to the data beside it, for a log-likelihood.
    """

    num_q = 1
    explores_by_mean = True

    smoothing: float = setting(
        0.2, ge=0.0, le=1e6, doc="standard deviation of the noise on the target's actions, which lie in [-1, 1]"
    )
    smoothing_limit: float = setting(0.5, ge=0.0, le=1e6, doc="largest absolute value of that noise")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)
        if not has_mean(locate(config.model._target_)):
            raise UserError(f"model: TD3+BC needs a policy with a mean; legal: {legal_options('model', has_mean)}")

    def target_action(self, observation: Tensor, generator: torch.Generator, num_samples: int) -> Tensor:
        """The moving average's mean with smoothing noise (Fujimoto et al. 2018, section 5.3)."""
        mean = self.policy.target.mean(observation)[:, None]
        shape = len(mean), num_samples, self.policy.action_size
        noise = torch.randn(shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return self.smoothed(mean, noise)

    def smoothed(self, action: Tensor, noise: Tensor) -> Tensor:
        """Actions [..., A] with limited multiples of standard normal noise [..., A], in the action space."""
        return self.clip(action + (self.smoothing * noise).clamp(-self.smoothing_limit, self.smoothing_limit))

    def draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        return self.objective.draw(self.policy, batch.observation, batch.action, generator, progress)

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        draws = draws | {"mean": self.policy.mean(batch.observation)}  # once for both terms
        loss, metrics = super().loss(batch, draws)
        return loss, metrics | {"matching": self.distance(batch, draws).mean()}

    def distance(self, batch: Transitions, draws: Draws) -> Tensor:
        """|a - mu(s)|^2 / A [B], without a gradient: what the objective has of the std is no part of it."""
        return (batch.action - draws["mean"].detach()).square().mean(-1)

    def action(self, batch: Transitions, draws: Draws) -> Tensor:
        return draws["mean"]

    def value(self, q: Tensor, draws: Draws) -> Tensor:
        return q[0] / q[0].detach().abs().mean() if self.normalize else q[0]


def has_mean(model: type) -> bool:
    """Whether the actions of a model have a mean that it knows."""
    return issubclass(model, GaussianPolicy)
