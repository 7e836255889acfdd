"""Implicit Q-learning."""

from __future__ import annotations

import copy
from dataclasses import InitVar, dataclass

import torch
from torch import Tensor

from genpolicy.config.schema import setting
from genpolicy.critic.critic import Critic, expectile_loss
from genpolicy.dataset.transitions import Transitions
from genpolicy.network.ensemble import EnsembleMLP, value_network


@dataclass(kw_only=True, eq=False, repr=False)
class IQL(Critic):
    """Q and V learned from data-set actions alone (Kostrikov et al. 2022).

    V is the tau-expectile of min_j Q_j^-(s, a) over the data's actions (eq. 5), Q_j regresses r + gamma V(s') (eq. 6),
    and Q^- follows Q by Polyak averaging.
    """

    next_actions = None

    hidden: list[int] = setting([256, 256], ge=1, le=2**14, doc="units of each hidden layer of Q and V (ReLU)")
    layer_norm: bool = setting(False, doc="normalise the units of each hidden layer")
    ensemble: int = setting(2, ge=1, le=100, doc="number of Q functions E; their minimum is used")
    expectile: float = setting(0.7, gt=0.0, lt=1.0, doc="tau of the value's expectile regression")
    discount: float = setting(0.99, ge=0.0, le=1.0, doc="gamma")
    target_rate: float = setting(0.005, gt=0.0, le=1.0, doc="share of Q that enters the target Q at every update")
    lr: float = setting(3e-4, gt=0.0, le=1e30, doc="Adam's learning rate of Q and V")
    observation_size: InitVar[int]
    action_size: InitVar[int]

    def __post_init__(self, observation_size, action_size):
        super().__init__()
        shape = {"hidden": self.hidden, "layer_norm": self.layer_norm}
        self.q_network = EnsembleMLP(self.ensemble, observation_size + action_size, **shape)
        self.q_target = copy.deepcopy(self.q_network).requires_grad_(False)
        self.v_network = value_network(observation_size, **shape)

    def advantage(self, observation: Tensor, action: Tensor) -> Tensor:
        """min_j Q_j(s, a) - V(s) [B]."""
        return self.q_min(observation, action) - self.v(observation)

    def loss(self, batch: Transitions, next_action: None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of value and Q losses, one a sample [B], and metrics."""
        pairs = torch.cat([batch.observation, batch.action], -1)
        value = self.v(batch.observation)
        with torch.no_grad():
            q_target = self.q_target(pairs).amin(0)
            bootstrap = torch.where(batch.terminated, 0.0, self.v(batch.next_observation))
            target = batch.reward + self.discount * bootstrap
        v_loss = expectile_loss(q_target - value, self.expectile)
        q = self.q_network(pairs)
        q_loss = (target - q).square().sum(0)
        metrics = {"v_loss": v_loss, "q_loss": q_loss, "q": q, "v": value}
        return v_loss + q_loss, {name: metric.detach().mean() for name, metric in metrics.items()}
