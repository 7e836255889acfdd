"""What a critic is: several Q functions, their minimum, their slowly moving target, and V."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genpolicy.config.legal import legal_options
from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.network.activation import ACTIVATIONS, INITIALISATIONS
from genpolicy.network.averaging import polyak_update
from genpolicy.network.ensemble import EnsembleMLP, Members, value_network
from genpolicy.objective.objective import Draws

Metrics = dict[str, Tensor]


@component
class Critic(nn.Module, ABC):
    """Q functions, their slowly moving target and, where `expectile` is given, V.

    horizon: transitions that one of a batch stands for, whose rewards it has the discounted sum of. observation_parts:
    sizes of the parts of observations, if each network encodes them first (`EnsembleEncoder`).

    A subclass says what its `loss` is, whose actions at the next states that takes, and whether V is learned.
    """

    # "policy" or "behaviour"; None: none, the data's alone. "chain", "anchored", "returns": what one algorithm gives.
    next_actions: ClassVar[str | None]
    uses_next_action_of_data: ClassVar[bool] = False  # whether a batch must have `next_action` and `followed`
    offline_only: ClassVar[str] = ""  # why it cannot go on learning from data that grow, if it cannot
    single_steps: ClassVar[str] = ""  # why it learns of single actions and rewards only, if it does

    hidden: list[int] = setting([256, 256], ge=1, le=2**14, doc="units of each hidden layer of Q and V")
    activation: str = setting("relu", choices=list(ACTIVATIONS), doc="activation after each hidden layer")
    layer_norm: bool = setting(False, doc="layer normalisation of each hidden layer")
    layer_norm_first: bool = setting(
        False, doc="normalise before the activation, as in DTQL's and EDP's code; false: after it"
    )
    v_layer_norm: bool = setting(True, doc="whether V has layer normalisation too, if Q has")
    v_input_norm: bool = setting(False, doc="layer normalisation of V's observations, as in IDQL's code")
    layer_norm_eps: float = setting(1e-5, ge=0.0, le=1.0, doc="epsilon of the layer normalisation")
    init: str = setting(
        "pytorch",
        choices=list(INITIALISATIONS),
        doc="initialisation of the weights: that of nn.Linear, or one with zero biases",
    )
    ensemble: int = setting(2, ge=1, le=100, doc="number of Q functions E; their minimum is used")
    discount: float = setting(0.99, ge=0.0, le=1.0, doc="discount factor gamma")
    steps: int = setting(1, ge=1, le=10**4, doc="rewards that are summed before the value of the state after them")
    target_rate: float = setting(0.005, gt=0.0, le=1.0, doc="Polyak rate tau of the target Q at every update")
    q_loss_mean: bool = setting(
        False, doc="average the loss over the Q functions (matters to Adam's eps only); false: sum it"
    )
    lagged_target: bool = setting(
        False,
        doc="update the target Q before each update of Q, as in FQL's code, and always where one optimiser has it and "
        "the policy, as QAM's; false: after it",
    )
    lr: float = setting(3e-4, gt=0.0, le=1e30, doc="Adam's learning rate of Q and V")
    expectile: float | None = setting(
        None, gt=0.0, lt=1.0, doc="learn V(s) too, as this expectile of min_j Q_j^- over the data's actions; null: no V"
    )
    observation_size: InitVar[int]
    action_size: InitVar[int]
    horizon: InitVar[int] = 1
    observation_parts: InitVar[Sequence[int]] = ()

    @classmethod
    def without_effect(cls, config: Node) -> dict[str, str]:
        """How layers are normalised that are not, or are not there (`remark_unused`)."""
        found = {}
        if not config.critic.layer_norm:
            found |= dict.fromkeys(("critic.layer_norm_first", "critic.v_layer_norm"), "without critic.layer_norm")
        if config.critic.expectile is None:
            found |= dict.fromkeys(("critic.v_layer_norm", "critic.v_input_norm"), "where a critic learns no V")
        return found

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if not hasattr(cls, "next_actions"):
            raise TypeError(f"{cls.__name__} must say whose next_actions its loss takes")

    def __post_init__(
        self, observation_size: int, action_size: int, horizon: int, observation_parts: Sequence[int]
    ) -> None:
        nn.Module.__init__(self)
        self.horizon, self.parts = horizon, tuple(observation_parts)
        shape = self.shape
        self.q_network = EnsembleMLP(self.ensemble, self.input_size(observation_size, action_size), **shape)
        self.q_target = copy.deepcopy(self.q_network).requires_grad_(False)
        if self.expectile is not None:
            own = {"layer_norm": self.layer_norm and self.v_layer_norm, "input_norm": self.v_input_norm}
            self.v_network = value_network(observation_size, **shape | own)

    @property
    def shape(self) -> dict[str, Any]:
        """The settings of the networks, as `EnsembleMLP` takes them."""
        names = ("hidden", "activation", "layer_norm", "layer_norm_eps", "layer_norm_first", "init", "parts")
        return {name: getattr(self, name) for name in names}

    def input_size(self, observation_size: int, action_size: int) -> int:
        """The size of what the Q functions are given."""
        return observation_size + action_size

    def draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """What is random in the losses beside the actions at the next states: nothing."""
        return {}

    @abstractmethod
    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """One loss a sample [B], and metrics [].

        draws: what `draw` gives, and from the algorithm actions `next_action` [B, candidates, A] at the next states, if
        the loss takes some.
        """

    def losses(self) -> dict[str, tuple[nn.Module, Callable[..., tuple[Tensor, Metrics]]]]:
        """What is trained by which loss, one update after the other; the target Q follows after the last.

        The names are prefixes of metrics. Here one update of all, without a prefix.
        """
        return {"": (self, self.loss)}

    def q(self, observation: Tensor, action: Tensor, members: Members = None) -> Tensor:
        """Q_j(s, a) [E, B] of observation [B, O] and action [B, A]; members: of these Q functions only."""
        return self.q_network(torch.cat([observation, action], -1), members)

    def v(self, observation: Tensor) -> Tensor:
        """V(s) [B], if it is learned."""
        return self.v_network(observation)[0]

    def q_min(self, observation: Tensor, action: Tensor) -> Tensor:
        """min_j Q_j(s, a) [B]."""
        return self.q(observation, action).amin(0)

    def q_of_target(self, observation: Tensor, action: Tensor, members: Members = None) -> Tensor:
        """Q_j^-(s, a) [E, B]; members: of these Q functions only."""
        return self.q_target(torch.cat([observation, action], -1), members)

    def q_target_min(self, observation: Tensor, action: Tensor) -> Tensor:
        """min_j Q_j^-(s, a) [B]."""
        return self.q_of_target(observation, action).amin(0)

    def q_of_data(self, batch: Transitions) -> Tensor:
        """min_j Q_j^-(s, a) [B] of a batch's own actions; its column of this name, if it has one."""
        if "q_of_data" in batch.shapes:
            return batch["q_of_data"]
        return self.q_target_min(batch.observation, batch.action)

    def advantage(self, observation: Tensor, action: Tensor) -> Tensor:
        """min_j Q_j(s, a) - V(s) [B], if V is learned."""
        return self.q_min(observation, action) - self.v(observation)

    def backed_up(self, batch: Transitions, value_next: Tensor) -> Tensor:
        """The target [B]: the reward and, unless the episode terminated, gamma^horizon V(s') of the next states."""
        bootstrap = torch.where(batch.terminated, 0.0, value_next)
        return batch.reward + self.discount**self.horizon * bootstrap

    def inside(self, batch: Transitions, loss: Tensor) -> Tensor:
        """A loss [B] without the samples that go over the end of an episode, if the batch has any."""
        return loss * batch["valid"] if "valid" in batch.shapes else loss

    def squared_error(self, q: Tensor, target: Tensor) -> Tensor:
        """(Q_j - target)^2 [B] of q [E, B] and target [B], summed over the Q functions or their mean."""
        return self.total((q - target).square())

    def total(self, loss: Tensor) -> Tensor:
        """The loss [B] that is one of each Q function [E, B]: their sum or their mean."""
        return loss.mean(0) if self.q_loss_mean else loss.sum(0)

    def aggregated(self, q: Tensor) -> Tensor:
        """What Q functions say together, [...] of q [E, ...]: their minimum."""
        return q.amin(0)

    def update_target(self) -> None:
        """One step of Polyak averaging of the target Q."""
        polyak_update(self.q_target.parameters(), self.q_network.parameters(), self.target_rate)


def q_of_each(
    critic: Critic, observation: Tensor, action: Tensor, target: bool = False, aggregate: bool = False
) -> Tensor:
    """min_j Q_j(s, a_k) [B, K] of K actions [B, K, A] at each observation [B, O].

    target: of the target Q functions. aggregate: what the critic takes of them in place of the minimum.
    """
    pairs = observation.repeat_interleave(action.shape[1], 0), action.flatten(0, 1)
    if aggregate:
        values = critic.aggregated((critic.q_of_target if target else critic.q)(*pairs))
    else:
        values = (critic.q_target_min if target else critic.q_min)(*pairs)
    return values.unflatten(0, action.shape[:2])


def value_and_slope(function: Callable[[Tensor], Tensor], action: Tensor) -> tuple[Tensor, Tensor]:
    """f(a) [B] and its gradients [B, A] at actions [B, A], as numbers, for a function that takes each row by itself."""

    def total(action: Tensor) -> tuple[Tensor, Tensor]:
        value = function(action)
        return value.sum(), value

    with torch.no_grad():
        slope, value = torch.func.grad(total, has_aux=True)(action.detach())
        return value, slope


def maximised(function: Callable[[Tensor], Tensor], action: Tensor) -> Tensor:
    """f(a) [B] as `value_and_slope` has it, whose gradient reaches the actions [B, A], but not what f is made of.

    So in one loss a critic can be trained, and maximised as it is.
    """
    value, slope = value_and_slope(function, action)
    return value + (slope * (action - action.detach())).sum(-1)


def require_value(config: Node) -> None:
    """Refuse a critic that learns no V."""

    def learns_value(critic: Mapping) -> bool:
        return critic.get("expectile") is not None

    if not learns_value(config.critic):
        legal = legal_options("critic", having=learns_value)
        raise UserError(f"critic: must learn V; legal: {legal}, or critic.expectile=0.7")


def expectile_loss(gap: Tensor, expectile: float) -> Tensor:
    """|tau - 1(gap < 0)| gap^2 [B], least where the value is the tau-expectile (Kostrikov et al. 2022, eq. 4)."""
    return torch.where(gap > 0, expectile, 1 - expectile) * gap.square()
