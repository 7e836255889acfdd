"""What a policy is: actions drawn given an observation and, if it has one, their density."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import InitVar
from typing import Any, ClassVar

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from genpolicy.config.legal import legal_options
from genpolicy.config.schema import component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.errors import UserError
from genpolicy.model.flow import Capability, standard_normal
from genpolicy.network.averaging import polyak_update


@component
class Policy(nn.Module, ABC):
    """pi(a|s): a network that turns standard normal noise into actions [B, A] at observations [B, O].

    Actions and densities are those of the unbounded model: clipping to the action space is the caller's.

    target: the same policy with the moving average of the weights, from `keep_average` on; None before.
    """

    num_times: ClassVar[int] = 1  # that the network is given
    takes_noise: ClassVar[bool] = True  # whether the network is given an action or its noise
    heads: ClassVar[int] = 1  # outputs of the network, each as long as an action
    supports: ClassVar[frozenset[Capability]]  # what an objective may teach it
    has_density = False  # whether `log_prob` can be asked for
    couples: ClassVar[bool] = False  # whether noise depends on the action it is trained with

    target_rate: float = setting(
        0.005, gt=0.0, le=1.0, doc="Polyak rate of the network's moving average, at every update that needs one"
    )
    network: InitVar[nn.Module]

    def __post_init__(self, network: nn.Module) -> None:
        nn.Module.__init__(self)
        self.network, self.action_size = network, network.action_size
        self.target: Policy | None = None

    def keep_average(self) -> None:
        """Start the moving average, if it is not kept yet."""
        if self.target is None:
            self.target = copy.deepcopy(self).requires_grad_(False)

    def update_target(self) -> None:
        """One step of the moving average, if it is kept."""
        if self.target is not None:
            own = (parameter for name, parameter in self.named_parameters() if not name.startswith("target."))
            polyak_update(self.target.parameters(), own, self.target_rate)

    @classmethod
    @abstractmethod
    def parts(cls, config: DictConfig, action_low: Tensor, action_high: Tensor) -> dict[str, Any]:
        """What a policy takes of a run, beside its settings and its network.

        config: the checked configuration; action_low, action_high: the ends [A] of the action space.
        """

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """The objective must teach what the model has."""

        def fits(objective: type) -> bool:
            return objective.teaches <= cls.supports

        if not fits(locate(config.objective._target_)):
            raise UserError(f"objective: does not fit this model; legal: {legal_options('objective', fits)}")

    @property
    def num_noises(self) -> int:
        """How many standard normal draws [A] an action takes."""
        return 1

    @abstractmethod
    def actions(self, noise: Tensor, observation: Tensor) -> Tensor:
        """Actions [B, A] of noise [B, noises, A] at observations [B, O]; differentiable."""

    def log_prob(self, observation: Tensor, action: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """log pi(a|s) [B] in nats; raises `UserError` where there is none (`has_density`)."""
        raise UserError(f"{type(self).__name__} has no density")

    def coarser_likelihoods(self) -> dict[str, dict[str, Any]]:
        """Other ways to compute log-densities, which tell their error: names, and the arguments of `log_prob`."""
        return {}

    def sample(
        self,
        observation: Tensor,
        generator: torch.Generator | None = None,
        num_samples: int | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Actions [B, A], or [B, K, A] with num_samples = K; differentiable.

        noise: what `draw_noise` gives for as many samples, drawn from the generator if not given; [B, A] will do for a
        policy that takes one draw.
        """
        if num_samples is not None:
            observation = observation.repeat_interleave(num_samples, 0)
        if noise is None:
            noise = self.draw_noise(observation.shape[0], generator, observation)
        else:
            noise = noise.reshape(observation.shape[0], self.num_noises, self.action_size)
        action = self.actions(noise, observation)
        return action if num_samples is None else action.unflatten(0, (-1, num_samples))

    def act(self, observation: Tensor, generator: torch.Generator | None = None, noise: Tensor | None = None) -> Tensor:
        """What the policy does [B, A]: a sample, unless it has something better. noise: as in `sample`."""
        return self.sample(observation, generator, noise=noise)

    def draw_noise(self, size: int, generator: torch.Generator | None, like: Tensor) -> Tensor:
        """All that is random in `size` samples: standard normal draws [size, noises, A]."""
        return standard_normal((size, self.num_noises, self.action_size), generator, like)
