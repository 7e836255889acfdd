"""Values along a denoising chain: of actions, and of noisy actions at each of its levels (BDPO, arXiv 2502.04778)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from genpolicy.config.legal import refuse_unused
from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.critic.critic import Metrics
from genpolicy.critic.double_q import DoubleQ
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.network.activation import ACTIVATIONS, initialise
from genpolicy.network.averaging import polyak_update
from genpolicy.network.embedding import Positional
from genpolicy.network.ensemble import EnsembleLinear, EnsembleMLP
from genpolicy.objective.objective import Draws


class EnsembleLevelMLP(nn.Module):
    """E scalar functions of inputs and a chain's level, [B, in], [B] -> [E, B], the level through two layers."""

    def __init__(self, members: int, size_in: int, time_size: int, activation: str, init: str, **shape: Any):
        super().__init__()
        self.members, self.embed = members, Positional(time_size, 10_000.0)
        size = self.embed.size
        self.time = nn.ModuleList(EnsembleLinear(members, *pair) for pair in ((size, 2 * size), (2 * size, size)))
        self.act = ACTIVATIONS[activation]()
        weights = [list(layer.weight.detach().mT) for layer in self.time]
        initialise(weights, [layer.bias for layer in self.time], init)
        self.layers = EnsembleMLP(members, size_in + size, activation=activation, init=init, **shape)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        time = self.embed(level).expand(self.members, -1, -1)
        for layer in self.time:
            time = self.act(layer(time))
        return self.layers(torch.cat([x.expand(self.members, -1, -1), time], -1))


@component
class ChainValue(DoubleQ):
    """Q_j of the policy, and V_j of noisy actions: of x at level k of its chain, what is expected from there on.

    Q regresses r + gamma (Q^-(s', a') - cost of its chain), V_k(s, x_k) regresses V^-_{k-1}(s, x_{k-1}) - cost of
    the step, V_0 being Q. Both take the mean over several samples (Q may take the best), then the lower bound over the
    functions. The costs are the policy's.
    """

    next_actions = "chain"

    chain_layer_norm: bool = setting(True, doc="layer normalisation of V's hidden layers, before the activation")
    time_size: int = setting(64, ge=4, le=2**14, doc="size of V's embedding of the level")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """V is of noisy actions."""
        super().check_compatibility(config)
        if config.critic.expectile is not None:
            raise UserError(f"critic.expectile={config.critic.expectile}: V is of noisy actions here; legal: null")
        refuse_unused(config, "critic", ("subset", "normalize"), "of Q's targets, and V's would be without")

    def __post_init__(self, observation_size: int, action_size: int, *more: Any) -> None:
        super().__post_init__(observation_size, action_size, *more)
        shape = self.shape | {"layer_norm": self.chain_layer_norm, "layer_norm_first": True}
        self.chain_network = EnsembleLevelMLP(self.ensemble, observation_size + action_size, self.time_size, **shape)
        self.chain_target = copy.deepcopy(self.chain_network).requires_grad_(False)

    def losses(self) -> dict[str, tuple[nn.Module, Any]]:
        return {"q": (self.q_network, self.loss), "v": (self.chain_network, self.chain_loss)}

    def chain_loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """sum_j (V_j - target)^2 [B], and metrics.

        draws: noisy actions `x` [B, A] of the `level` [B], samples `following` [B, samples, A] of the level below, and
        the `cost` [B] of the step.
        """
        level = draws["level"]
        with torch.no_grad():
            target = self.value_below(batch.observation, draws["following"], level) - draws["cost"]
        v = self.chain_network(torch.cat([batch.observation, draws["x"]], -1), level)
        loss = self.inside(batch, self.squared_error(v, target))
        return loss, {"value": v.detach().mean(), "cost": draws["cost"].mean()}

    def value_below(self, observation: Tensor, following: Tensor, level: Tensor) -> Tensor:
        """The value [B] of samples [B, samples, A] at one below the level [B]: of actions, Q's, for level 1.

        Differentiable with respect to the samples.
        """
        repeated = observation.repeat_interleave(following.shape[1], 0)
        below = (level - 1).repeat_interleave(following.shape[1], 0)
        v = self.chain_target(torch.cat([repeated, following.flatten(0, 1)], -1), below)
        q = self.q_of_target(repeated, following.flatten(0, 1))
        v, q = (values.unflatten(1, following.shape[:2]) for values in (v, q))
        return torch.where(level > 1, self.lower_bound(v.mean(2)), self.lower_bound(q.mean(2)))

    def update_target(self) -> None:
        """One step of Polyak averaging of both targets."""
        super().update_target()
        polyak_update(self.chain_target.parameters(), self.chain_network.parameters(), self.target_rate)
