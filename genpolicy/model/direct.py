"""Policies without a flow: one evaluation of the network is the action, or the mean of a Gaussian one.

They stand beside the generative ones as references, and as what those are distilled into.
"""

from __future__ import annotations

import math
from dataclasses import InitVar
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from genpolicy.config.legal import legal_options
from genpolicy.config.schema import component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.errors import UserError
from genpolicy.model.flow import Capability
from genpolicy.model.policy import Policy

MARGIN = 1e-3  # DTQL's


@component
class DirectPolicy(Policy):
    """What these policies share: `output` [B, A], inside the action space by a tanh where that is bounded.

    action_low, action_high: the ends [A] of the action space, or infinite.
    """

    num_times = 0
    supports = frozenset({Capability.DENSITY})

    squash: bool = setting(True, doc="keep the output inside a bounded action space by a tanh; false: as it is")
    action_low: InitVar[Tensor]
    action_high: InitVar[Tensor]

    def __post_init__(self, network: nn.Module, action_low: Tensor, action_high: Tensor) -> None:
        super().__post_init__(network)
        bounded = self.squash and (action_low.isfinite() & action_high.isfinite()).all()
        self.register_buffer("centre", (action_low + action_high) / 2 if bounded else None, persistent=False)
        self.register_buffer("reach", (action_high - action_low) / 2 if bounded else None, persistent=False)

    @classmethod
    def parts(cls, config: DictConfig, action_low: Tensor, action_high: Tensor) -> dict[str, Any]:
        return {"action_low": action_low, "action_high": action_high}

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)
        if config.eval.steps:
            raise UserError("eval.steps: this model takes one step; leave eval.steps out")

    def output(self, x: Tensor, observation: Tensor) -> Tensor:
        """The network's output [B, A] for x [B, A], inside the action space."""
        action = self.network(x, x[:, :0], observation)
        return action if self.centre is None else self.centre + self.reach * torch.tanh(action)


class OneStepPolicy(DirectPolicy):
    """a = mu(s, z) with z ~ N(0, I): a sampler without a density (Park et al. 2025)."""

    def actions(self, noise: Tensor, observation: Tensor) -> Tensor:
        return self.output(noise[:, 0], observation)


class DeterministicPolicy(DirectPolicy):
    """a = mu(s)."""

    takes_noise = False

    def mean(self, observation: Tensor) -> Tensor:
        """mu(s) [B, A]."""
        return self.output(observation.new_zeros(observation.shape[0], self.network.input_size), observation)

    def actions(self, noise: Tensor, observation: Tensor) -> Tensor:
        return self.mean(observation)


@component
class GaussianPolicy(DeterministicPolicy):
    """N(mu(s), diag(std^2)) with one std [A] for all states, IQL's policy (Kostrikov et al. 2022).

    It acts with the mean, as IQL and TD3+BC are evaluated.
    """

    supports = frozenset({Capability.DENSITY, Capability.MEAN})
    has_density = True

    log_std_min: float = setting(
        -5.0, ge=-100.0, le=100.0, doc="smallest logarithm of a standard deviation, in action units"
    )
    log_std_max: float = setting(
        2.0, ge=-100.0, le=100.0, doc="largest logarithm of a standard deviation, in action units"
    )

    def __post_init__(self, network: nn.Module, action_low: Tensor, action_high: Tensor) -> None:
        super().__post_init__(network, action_low, action_high)
        self.log_std = nn.Parameter(torch.zeros(self.action_size))

    def std(self) -> Tensor:
        """The standard deviations [A]."""
        return self.log_std.clamp(self.log_std_min, self.log_std_max).exp()

    def actions(self, noise: Tensor, observation: Tensor) -> Tensor:
        return self.mean(observation) + self.std() * noise[:, 0]

    def act(self, observation: Tensor, generator: torch.Generator | None = None, noise: Tensor | None = None) -> Tensor:
        return self.mean(observation)

    def log_prob(self, observation: Tensor, action: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.log_density(action, self.mean(observation))

    def log_density(self, action: Tensor, mean: Tensor) -> Tensor:
        """log N(action; mean, diag(std^2)) [B]."""
        return normal_log_prob(action, mean, self.std())


@component
class TanhGaussianPolicy(DeterministicPolicy):
    """centre + reach tanh(u) with u ~ N(mu(s), diag(std(s)^2)), both the network's, [B, 2 A] (Haarnoja et al. 2018).

    Where the action space is unbounded, u itself. Densities are those of actions stretched by 1 + `MARGIN`, so that
    the ends of the action space have one; outside of that they are 0.
    """

    has_density = True
    heads = 2

    log_std_min: float = setting(-5.0, ge=-100.0, le=100.0, doc="smallest logarithm of a standard deviation of u")
    log_std_max: float = setting(2.0, ge=-100.0, le=100.0, doc="largest logarithm of a standard deviation of u")
    act_by_mean: bool = setting(False, doc="act by the mean of u; false: by a sample")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """The network gives both mean and standard deviation."""
        super().check_compatibility(config)

        def fits(network: type) -> bool:
            return getattr(network, "takes_heads", False)

        if not fits(locate(config.network._target_)):
            legal = legal_options("network", fits)
            raise UserError(f"network: this model takes a mean and a standard deviation from it; legal: {legal}")

    def parameters_at(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """mu and std [B, A] of u."""
        x = observation.new_zeros(observation.shape[0], self.network.input_size)
        mean, log_std = self.network(x, x[:, :0], observation).chunk(2, -1)
        return mean, log_std.clamp(self.log_std_min, self.log_std_max).exp()

    def squashed(self, u: Tensor) -> Tensor:
        """The actions [..., A] of u."""
        return u if self.centre is None else self.centre + self.reach * torch.tanh(u)

    def mean(self, observation: Tensor) -> Tensor:
        """The action [B, A] of the mean of u."""
        return self.squashed(self.parameters_at(observation)[0])

    def actions(self, noise: Tensor, observation: Tensor) -> Tensor:
        mean, std = self.parameters_at(observation)
        return self.squashed(mean + std * noise[:, 0])

    def act(self, observation: Tensor, generator: torch.Generator | None = None, noise: Tensor | None = None) -> Tensor:
        return self.mean(observation) if self.act_by_mean else super().act(observation, generator, noise)

    def actions_and_density(self, noise: Tensor, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [B, A] of noise [B, 1, A], and log-densities [B] of tanh(u), or of u in an unbounded action space."""
        mean, std = self.parameters_at(observation)
        if self.centre is None:
            u = mean + std * noise[:, 0]
            return u, normal_log_prob(u, mean, std)
        share, log_prob = tanh_normal(mean, std, noise[:, 0])
        return self.centre + self.reach * share, log_prob

    def latent_log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """log N(u; mu(s), diag(std(s)^2)) [B] of the u of actions [B, A]; -inf where there is no u."""
        log_prob = normal_log_prob(self._latent(action), *self.parameters_at(observation))
        if self.centre is None:
            return log_prob
        return log_prob.masked_fill((self._share(action).abs() >= 1).any(-1), -math.inf)

    def log_prob(self, observation: Tensor, action: Tensor, generator: torch.Generator | None = None) -> Tensor:
        volume = 0.0
        if self.centre is not None:
            share = torch.tanh(self._latent(action))
            volume = ((1 + MARGIN) * self.reach * (1 - share**2)).log().sum(-1)
        return self.latent_log_prob(observation, action) - volume

    def _share(self, action: Tensor) -> Tensor:
        """Actions [B, A] in shares of the stretched action space, whose ends are -1 and 1."""
        return (action - self.centre) / (self.reach * (1 + MARGIN))

    def _latent(self, action: Tensor) -> Tensor:
        """The u of actions [B, A]; 0, of which gradients are finite, where there is none."""
        if self.centre is None:
            return action
        share = self._share(action)
        return torch.atanh(share.masked_fill(share.abs() >= 1, 0.0))


def tanh_normal(mean: Tensor, std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """tanh(u) [B, A] of u = mean + std noise, each [B, A], and its log-density [B]."""
    u = mean + std * noise
    volume = 2 * (math.log(2) - u - nn.functional.softplus(-2 * u))  # ln(1 - tanh(u)^2)
    return torch.tanh(u), normal_log_prob(u, mean, std) - volume.sum(-1)


def normal_log_prob(value: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """log N(value; mean, diag(std^2)) [B] of value and mean [B, A] and std [A] or [B, A]."""
    whitened = (value - mean) / std
    return -0.5 * whitened.square().sum(-1) - std.log().sum(-1) - 0.5 * value.shape[-1] * math.log(2 * math.pi)
