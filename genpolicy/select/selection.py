"""Choosing one of several sampled actions by the critic."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from genpolicy.config.legal import legal_options
from genpolicy.config.schema import component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.critic.critic import Critic, q_of_each, require_value
from genpolicy.errors import UserError


@component
class NoSelection:
    """The policy's own action."""

    num_candidates: ClassVar[int] = 1


@component
class Selection(ABC):
    """One of `num_candidates` actions of the policy, clipped to the action space, by their values.

    Log-likelihoods stay those of the policy that the candidates are drawn from.
    """

    num_candidates: int = setting(32, ge=1, le=10**4, doc="actions drawn, of which one is taken")
    target: bool = setting(False, doc="choose by the target Q functions; false: by the online ones")
    aggregate: bool = setting(
        False, doc="by what the critic's targets take of its Q functions, which may be their mean; false: their minimum"
    )

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """The algorithm must learn a critic."""
        if not locate(config.algo._target_).learns_critic:
            without = legal_options("select", lambda select: not issubclass(select, Selection))
            raise UserError(f"select: chooses by a critic, which this algorithm does not learn; legal: {without}")

    def choose(
        self, critic: Critic, observation: Tensor, action: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """The chosen actions [B, A] of candidates [B, K, A] at observations [B, O]."""
        q = self.values(critic, observation, action)
        index = self.index(q, critic, observation, generator)
        return action[torch.arange(action.shape[0], device=action.device), index]

    def values(self, critic: Critic, observation: Tensor, action: Tensor) -> Tensor:
        """What the choice is by, [B, K], of candidates [B, K, A]."""
        return q_of_each(critic, observation, action, self.target, self.aggregate)

    @abstractmethod
    def index(self, q: Tensor, critic: Critic, observation: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Which candidate [B] is chosen, for their values q [B, K]."""


class Greedy(Selection):
    """The candidate of the largest Q."""

    def index(self, q: Tensor, critic: Critic, observation: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return q.argmax(-1)


@component
class Softmax(Selection):
    """A candidate with probability softmax_K(beta Q): mu exp(beta Q) for many candidates of mu (Chen et al. 2023)."""

    beta: float = setting(
        1.0, gt=0.0, le=1e6, doc="inverse temperature, in units of the data set's (transformed) reward"
    )
    num_averaged: int = setting(
        1, ge=1, le=10**4, doc="candidates chosen, without replacement, whose mean is taken, as SfBC does on locomotion"
    )

    def choose(
        self, critic: Critic, observation: Tensor, action: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        if self.num_averaged == 1:
            return super().choose(critic, observation, action, generator)
        q = self.beta * self.values(critic, observation, action)
        count = min(self.num_averaged, q.shape[1])
        least = q.topk(count, -1).values[:, -1:]
        # Limited as in SfBC's code: so many candidates keep a chance above 0.
        index = torch.multinomial(torch.softmax(q.minimum(least + 40), -1), count, generator=generator)
        return action.gather(1, index[..., None].expand(-1, -1, action.shape[-1])).mean(1)

    def index(self, q: Tensor, critic: Critic, observation: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return torch.multinomial(torch.softmax(self.beta * q, -1), 1, generator=generator)[:, 0]


@component
class Expectile(Selection):
    """A candidate with probability in proportion to |tau - 1(Q < V)|, tau the critic's expectile.

    These weights of behaviour actions have V as their mean Q: the policy that is implicit in IQL's expectile value
    (Hansen-Estruch et al. 2023, section 4.1).
    """

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)
        require_value(config)

    def index(self, q: Tensor, critic: Critic, observation: Tensor, generator: torch.Generator | None = None) -> Tensor:
        value = critic.v(observation)[:, None]
        weight = torch.where(q < value, 1 - critic.expectile, critic.expectile)
        return torch.multinomial(weight, 1, generator=generator)[:, 0]
