"""Returns planned along the data's episodes, and their regression (Chen et al. 2023, SfBC, section 3.2)."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genpolicy.config.legal import refuse_unused
from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.critic.critic import Critic, Metrics, q_of_each
from genpolicy.dataset.transitions import Transitions
from genpolicy.network.activation import ACTIVATIONS
from genpolicy.objective.objective import Draws

LEAST_STD = 0.1  # that returns are divided by


@component
class PlannedReturns(Critic):
    """Q regresses standardised returns in rounds, each beginning with the same weights.

    The first round's are the data's own. Later ones are R_i = max(r_i + gamma R_{i+1}, V(s_i)) along an episode, V
    being the softmax mean of the last round's Q, here Q^-, over behaviour actions. (In the paper R_i is
    r_i + gamma max(R_{i+1}, V(s_{i+1})); this is its code.)
    """

    next_actions = "returns"
    single_steps = offline_only = "as its returns are planned along the rows"

    activation: str = setting("silu", choices=list(ACTIVATIONS), doc="activation after each hidden layer")
    ensemble: int = setting(1, ge=1, le=100, doc="number of Q functions E; their minimum is used")
    lr: float = setting(1e-3, gt=0.0, le=1e30, doc="Adam's learning rate of Q")
    alpha: float = setting(20.0, gt=0.0, le=1e6, doc="inverse temperature of V, in standard deviations of the returns")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """The target is the last round's Q, and there is no V; a `target_rate` may be that of a whole sweep."""
        refuse_unused(config, "critic", ("lagged_target",), "this critic's target is its last round's Q")
        refuse_unused(config, "critic", ("expectile",), "this critic learns no V")

    def __post_init__(self, observation_size: int, action_size: int, *more: Any) -> None:
        super().__post_init__(observation_size, action_size, *more)
        self.initial = copy.deepcopy(self.q_target)
        self.register_buffer("moments", torch.tensor([[0.0, 1.0], [0.0, 1.0]]))  # mean and std, last round's and this

    def loss(self, batch: Transitions, draws: Draws | None = None) -> tuple[Tensor, Metrics]:
        """The squared errors of Q_j(s, a) [B] for the column `planned` of standardised returns R, and metrics."""
        q = self.q(batch.observation, batch.action)
        return self.squared_error(q, batch["planned"]), {"q": q.detach().mean()}

    def update_target(self) -> None:
        """Nothing: Q^- is the last round's."""

    def restart(self) -> None:
        """Begin the next round."""
        self.q_target.load_state_dict(self.q_network.state_dict())
        self.q_network.load_state_dict(self.initial.state_dict())
        self.moments[0].copy_(self.moments[1])

    @torch.no_grad()
    def value(self, observation: Tensor, action: Tensor) -> Tensor:
        """V(s) [B] of the last round, in the data's unit, from behaviour actions [B, K, A]."""
        q = q_of_each(self, observation, action, target=True)
        mean, std = self.moments[0]
        return (torch.softmax(self.alpha * q, -1) * q).sum(-1) * std + mean

    def planned(self, transitions: Transitions, value: Tensor | None) -> Tensor:
        """The standardised returns [N] of transitions in the order of their episodes. value: V(s) [N], or none."""
        goes_on = transitions.followed().tolist()
        reward, least = transitions.reward.tolist(), None if value is None else value.tolist()
        returns, total = np.empty(len(reward)), 0.0
        for i in range(len(reward) - 1, -1, -1):
            total = reward[i] + (self.discount * total if goes_on[i] else 0.0)
            if least is not None:
                total = max(total, least[i])
            returns[i] = total
        mean, std = returns.mean(), max(returns.std(), LEAST_STD)
        self.moments[1].copy_(torch.tensor([mean, std]))
        return torch.from_numpy((returns - mean) / std).to(transitions.table)
