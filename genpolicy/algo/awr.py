"""Advantage-weighted regression on returns (Peng et al. 2019, arXiv 1910.00177)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from genpolicy.algo.algorithm import Algorithm
from genpolicy.algo.phase import Phase
from genpolicy.algo.td3_bc import has_mean
from genpolicy.algo.update import Metrics, Update, limited_exp, weight_metrics
from genpolicy.config.legal import legal_options
from genpolicy.config.schema import component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.network.ensemble import value_network
from genpolicy.objective.objective import Draws

EPS = 1e-5  # added to the standard deviation of the advantages


@component
class AWR(Algorithm):
    """Algorithm 1 with the data as the replay buffer to which nothing is added.

    In each iteration V regresses the TD(lambda) returns R that it gave at the iteration's begin, and the policy the
    actions, weighted with min(exp(A / temperature), weight_clamp), A = R - V standardised over the data. Their code
    trains V, then the policy, with returns computed anew before each; as nothing is added to the data, the policy's are
    those of V's next turn. So after a first turn of V alone both are trained beside each other.
    """

    learns_critic = False
    uses_samples = False
    single_steps = offline_only = "as its returns are summed along the rows"

    steps: int = setting(20_000, ge=1, le=10**9, doc="updates of the policy")
    iteration: int = setting(1_000, ge=1, le=10**9, doc="policy updates between two computations of the returns")
    batch_size: int = setting(256, ge=1, le=2**20, doc="transitions an update")
    lr: float = setting(5e-5, gt=0.0, le=1e30, doc="the policy's learning rate")
    value_lr: float = setting(1e-2, gt=0.0, le=1e30, doc="V's learning rate")
    momentum: float = setting(0.9, ge=0.0, lt=1.0, doc="momentum of SGD, for the policy and V")
    value_every: int = setting(5, ge=1, le=10**6, doc="policy updates per update of V")
    value_hidden: list[int] = setting([128, 64], ge=1, le=2**14, doc="units of each hidden layer of V")
    discount: float = setting(0.99, ge=0.0, lt=1.0, doc="gamma; V's output is in units of 1 / (1 - gamma)")
    td_lambda: float = setting(0.95, ge=0.0, le=1.0, doc="lambda of the returns; 1: no bootstrapping inside episodes")
    temperature: float = setting(1.0, gt=0.0, le=1e6, doc="beta, in standard deviations of the advantages")
    weight_clamp: float = setting(20.0, gt=0.0, le=1e30, doc="largest weight of a sample")
    bound: float = setting(
        10.0, ge=0.0, le=1e6, doc="weight of half the squared distance of the mean from the action space"
    )

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """The policy has a mean, which is kept near the action space."""
        if not has_mean(locate(config.model._target_)):
            raise UserError(f"model: AWR needs a policy with a mean; legal: {legal_options('model', has_mean)}")

    def plan(self) -> list[Phase]:
        self.value = value_network(self.policy.network.observation_size, hidden=self.value_hidden, init="xavier")
        self.begin = copy.deepcopy(self.value).requires_grad_(False)
        more = {"momentum": self.momentum}

        def value_update(every: int = 1) -> Update:
            return Update(self.value.parameters(), self.value_lr, self.value_loss, every=every, **more)

        policy_update = Update(self.policy.parameters(), self.lr, self.loss, self.draw, **more)
        first = max(1, self.iteration // self.value_every)
        shared = {"batch_size": self.batch_size, "start": self.start, "prepare": self.prepare}
        updates = {"value": value_update(self.value_every), "policy": policy_update}
        return [
            Phase(name="value", steps=first, updates={"": value_update()}, **shared),
            Phase(
                name="training",
                steps=self.steps,
                updates=updates,
                policy=self.policy,
                refresh=self.iteration,
                **shared,
            ),
        ]

    def start(self) -> None:
        """Begin an iteration: V is kept as it is now."""
        self.begin.load_state_dict(self.value.state_dict())

    @torch.no_grad()
    def prepare(self, transitions: Transitions) -> Transitions:
        """The data with the columns `value_target`, R (1 - gamma), and `weight`."""
        transitions = transitions.to(transitions.device, extra_columns=2)
        v, v_next = (
            torch.cat([self.begin(part.to(transitions.device))[0].to(part) for part in transitions[name].split(2**16)])
            for name in ("observation", "next_observation")
        )
        reward = (1 - self.discount) * transitions.reward  # in V's units
        v_next = torch.where(transitions.terminated, 0.0, v_next)
        value_target = td_returns(reward, v_next, transitions.followed(), self.discount, self.td_lambda)
        advantage = value_target - v
        standard = (advantage - advantage.mean()) / (advantage.std(correction=0) + EPS * (1 - self.discount))
        weight = limited_exp(standard / self.temperature, self.weight_clamp)
        return transitions.extended(value_target=value_target, weight=weight)

    def value_loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """Half the squared error of V [B], and metrics."""
        value = self.value(batch.observation)[0]
        return 0.5 * (value - batch["value_target"]).square(), {"mean": value.detach().mean() / (1 - self.discount)}

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """The weighted loss of the policy and what it pays for means outside the action space, [B], and metrics."""
        mean = self.policy.mean(batch.observation)
        outside = (mean - self.clip(mean)).square().sum(-1)
        weighted = batch["weight"] * self.objective.loss(self.policy, batch.observation, batch.action, draws)
        return weighted + 0.5 * self.bound * outside, weight_metrics(batch["weight"])


def td_returns(reward: Tensor, value_next: Tensor, followed: Tensor, discount: float, td_lambda: float) -> Tensor:
    """TD(lambda) returns [N]: r + gamma ((1 - lambda) V(s') + lambda R'), or r + gamma V(s') where no row follows.

    value_next [N]: V(s'), 0 where the episode has terminated. followed [N]: whether the next row is of its episode.
    """
    share = torch.where(followed, td_lambda, 0.0).to(reward)
    total, factor = reward + discount * (1 - share) * value_next, discount * share
    length = 1
    while length < len(total) and factor.any():  # a row knows so many after it, and their number doubles
        total = total + factor * torch.nn.functional.pad(total[length:], (0, length))
        factor = factor * torch.nn.functional.pad(factor[length:], (0, length))
        length *= 2
    return total
