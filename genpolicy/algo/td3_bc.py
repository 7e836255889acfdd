"""TD3+BC (Fujimoto and Gu 2021), and what ReBRAC shares with it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from genpolicy.algo.actor_critic import ActorCritic
from genpolicy.algo.update import Metrics, Update
from genpolicy.config.legal import legal_options
from genpolicy.config.schema import component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.model.direct import GaussianPolicy
from genpolicy.network.dropout import dropped
from genpolicy.objective.objective import Draws


@component
class TD3(ActorCritic, ABC):
    """TD3 (Fujimoto et al. 2018) whose actor imitates the data while it maximises Q.

    Only the mean of the Gaussian is its actor; its std, which nothing else depends on, is fitted to the data beside it,
    for a log-likelihood.
    """

    explores_by_mean = True

    normalize: bool = setting(True, doc="divide Q by its mean absolute value")
    smoothing: float = setting(
        0.2, ge=0.0, le=1e6, doc="standard deviation of the noise on the target's actions, which lie in [-1, 1]"
    )
    smoothing_limit: float = setting(0.5, ge=0.0, le=1e6, doc="largest absolute value of that noise")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)
        if not has_mean(locate(config.model._target_)):
            raise UserError(f"model: TD3+BC needs a policy with a mean; legal: {legal_options('model', has_mean)}")

    def actor_update(self) -> Update:
        return self.maximising_update(self.policy.parameters(), after=self.update_targets)

    def target_action(self, observation: Tensor, draws: Draws, at: str) -> Tensor:
        """The moving average's mean with smoothing noise (Fujimoto et al. 2018, section 5.3)."""
        return self.smoothed(self.policy.target.mean(observation)[:, None], draws[f"{at}_noise"].squeeze(2))

    def smoothed(self, action: Tensor, noise: Tensor) -> Tensor:
        """Actions [..., A] with limited multiples of standard normal noise [..., A], in the action space."""
        return self.clip(action + (self.smoothing * noise).clamp(-self.smoothing_limit, self.smoothing_limit))

    def terms(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Tensor, Metrics]:
        """The loss of imitating the data [B], what Q counts [B], and metrics.

        What the first has of the std is not in the metric `matching`, |a - mu(s)|^2 / A.
        """
        observation = batch.observation
        with dropped(self.policy.network, draws.get("kept")):
            mean = self.policy.mean(observation)
        imitation = self.objective.loss(self.policy, observation, batch.action, draws | {"mean": mean})
        q = self.actor_q(observation, self.clip(mean))
        distance = (batch.action - mean.detach()).square().mean(-1)
        metrics = {"matching": distance.mean(), "q": q.detach().mean()}
        return imitation, q / q.detach().abs().mean() if self.normalize else q, metrics

    @abstractmethod
    def actor_q(self, observation: Tensor, action: Tensor) -> Tensor:
        """The Q [B] that the actor maximises."""


@component
class TD3BC(TD3):
    """TD3 with the squared error of the data's actions: -eta Q(s, mu(s)) / mean |Q| + |a - mu(s)|^2 / A (eq. 5).

    Q is the critic's first.
    """

    eta: float = setting(1.0, ge=0.0, le=1e6, doc="weight of the value, in units of the values' mean absolute value")

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """The loss [B], and metrics."""
        imitation, value, metrics = self.terms(batch, draws)
        return imitation - self.eta * value, metrics

    def actor_q(self, observation: Tensor, action: Tensor) -> Tensor:
        return self.critic.q(observation, action, 1)[0]


def has_mean(model: type) -> bool:
    """Whether the actions of a model have a mean that it knows."""
    return issubclass(model, GaussianPolicy)
