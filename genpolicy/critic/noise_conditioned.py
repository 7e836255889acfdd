"""Values that are conditioned on a noise, of which they are an upper expectile (FAN, arXiv 2605.01663)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.critic.critic import Critic, Metrics, expectile_loss
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.network.activation import ACTIVATIONS
from genpolicy.network.ensemble import EnsembleMLP, Members
from genpolicy.objective.objective import Draws


@component
class NoiseConditionedQ(Critic):
    """Z_j(s, a), the expectile over noise n of mean_k Q_k^-(s, a, n), which is all that others see of it.

    Q_j(s, a, e) regresses r + gamma (Z(s', a') - penalty |anchor|^2), with the noise e that a' was made of, and with
    the error of the behaviour flow on the line from e to a' as the anchor. Z has no target network.
    """

    next_actions = "anchored"

    hidden: list[int] = setting([512, 512, 512, 512], ge=1, le=2**14, doc="units of each hidden layer of Q and Z")
    activation: str = setting("gelu_tanh", choices=list(ACTIVATIONS), doc="activation after each hidden layer")
    expectile: float | None = setting(None, gt=0.0, lt=1.0, doc="null: there is no V")
    noise_expectile: float = setting(0.9, gt=0.0, lt=1.0, doc="Z is this expectile of Q over the noise")
    aggregate: str = setting("mean", choices=["min", "mean"], doc="how the Z functions are combined in the target")
    penalty: float = setting(10.0, ge=0.0, le=1e6, doc="weight of the anchor's squared error at s'")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """There is no V."""
        if config.critic.expectile is not None:
            raise UserError(f"critic.expectile={config.critic.expectile}: this critic learns no V; legal: null")

    def __post_init__(self, observation_size: int, action_size: int, *more: Any) -> None:
        super().__post_init__(observation_size, action_size, *more)
        self.z_network = EnsembleMLP(self.ensemble, observation_size + action_size, **self.shape)

    def input_size(self, observation_size: int, action_size: int) -> int:
        return observation_size + 2 * action_size

    def q(self, observation: Tensor, action: Tensor, members: Members = None) -> Tensor:
        """Z_j(s, a) [E, B] of observation [B, O] and action [B, A]; members: of these only."""
        return self.z_network(torch.cat([observation, action], -1), members)

    def q_of_target(self, observation: Tensor, action: Tensor, members: Members = None) -> Tensor:
        """Z_j(s, a) [E, B], which have no target."""
        return self.q(observation, action, members)

    def q_given(self, observation: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        """Q_j(s, a, n) [E, B] of noise n [B, A]."""
        return self.q_network(torch.cat([observation, action, noise], -1))

    def aggregated(self, q: Tensor) -> Tensor:
        """The minimum or mean over the functions, [...] of q [E, ...]."""
        return q.amin(0) if self.aggregate == "min" else q.mean(0)

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """The losses of Q and Z [B], and metrics.

        draws: the `next_action` [B, A] at s', the `next_noise` [B, A] that it was made of, the squared error of its
        `anchor` [B], and the noise `value_noise` [B, A] at which Z sees Q.
        """
        with torch.no_grad():
            z_next = self.aggregated(self.q(batch.next_observation, draws["next_action"]))
            z_next = z_next - self.penalty * draws["anchor"]
            target = self.backed_up(batch, z_next)
            pairs = torch.cat([batch.observation, batch.action, draws["value_noise"]], -1)
            wanted = self.q_target(pairs).mean(0)
        q = self.q_given(batch.observation, batch.action, draws["next_noise"])
        z = self.q(batch.observation, batch.action)
        loss = self.squared_error(q, target) + self.total(expectile_loss(wanted - z, self.noise_expectile))
        return self.inside(batch, loss), {"q": q.detach().mean(), "z": z.detach().mean(), "target": target.mean()}
