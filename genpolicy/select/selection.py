"""Choosing one of several sampled actions by the critic."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
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

    num_averaged: ClassVar[int] = 1  # how many are chosen

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
        self,
        critic: Critic,
        observation: Tensor,
        action: Tensor,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """The chosen actions [B, A] of candidates [B, K, A] at observations [B, O]; of several chosen ones, their mean.

        noise: what `draw_noise` gives, drawn from the generator if it is not given.
        """
        if noise is None:
            noise = self.draw_noise(action.shape[:2], generator, action)
        scores, count = self.scores(critic, observation, action, noise), min(self.num_averaged, action.shape[1])
        index = scores.argmax(-1, keepdim=True) if count == 1 else scores.topk(count, -1).indices
        return action.gather(1, index[..., None].expand(-1, -1, action.shape[-1])).mean(1)

    def values(self, critic: Critic, observation: Tensor, action: Tensor) -> Tensor:
        """What the choice is by, [B, K], of candidates [B, K, A]."""
        return q_of_each(critic, observation, action, self.target, self.aggregate)

    @abstractmethod
    def draw_noise(self, shape: Sequence[int], generator: torch.Generator | None, like: Tensor) -> Tensor | None:
        """What is random in choosing among candidates of a shape [B, K]; None if nothing is."""

    @abstractmethod
    def scores(self, critic: Critic, observation: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        """Numbers [B, K] of candidates [B, K, A], the largest of which are chosen."""


class Greedy(Selection):
    """The candidate of the largest Q."""

    def draw_noise(self, shape: Sequence[int], generator: torch.Generator | None, like: Tensor) -> None:
        return None

    def scores(self, critic: Critic, observation: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return self.values(critic, observation, action)


class RandomSelection(Selection):
    """Candidates with probability in proportion to their `chances`, without replacement.

    As torch.multinomial draws them: chances / noise with exponential noise of rate 1 is largest where it falls.
    """

    @abstractmethod
    def chances(self, critic: Critic, observation: Tensor, action: Tensor) -> Tensor:
        """Weights [B, K], above 0, of candidates [B, K, A]."""

    def draw_noise(self, shape: Sequence[int], generator: torch.Generator | None, like: Tensor) -> Tensor:
        return torch.empty(shape, dtype=like.dtype, device=like.device).exponential_(generator=generator)

    def scores(self, critic: Critic, observation: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return self.chances(critic, observation, action) / noise


@component
class Softmax(RandomSelection):
    """A candidate with probability softmax_K(beta Q): mu exp(beta Q) for many candidates of mu (Chen et al. 2023)."""

    beta: float = setting(
        1.0, gt=0.0, le=1e6, doc="inverse temperature, in units of the data set's (transformed) reward"
    )
    num_averaged: int = setting(
        1, ge=1, le=10**4, doc="candidates chosen, without replacement, whose mean is taken, as SfBC does on locomotion"
    )

    def chances(self, critic: Critic, observation: Tensor, action: Tensor) -> Tensor:
        q = self.beta * self.values(critic, observation, action)
        if self.num_averaged > 1:
            # Limited as in SfBC's code: so many candidates keep a chance above 0.
            least = q.topk(min(self.num_averaged, q.shape[1]), -1).values[:, -1:]
            q = q.minimum(least + 40)
        return torch.softmax(q, -1)


class Expectile(RandomSelection):
    """A candidate with probability in proportion to |tau - 1(Q < V)|, tau the critic's expectile.

    These weights of behaviour actions have V as their mean Q: the policy that is implicit in IQL's expectile value
    (Hansen-Estruch et al. 2023, section 4.1).
    """

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)
        require_value(config)

    def chances(self, critic: Critic, observation: Tensor, action: Tensor) -> Tensor:
        below = self.values(critic, observation, action) < critic.v(observation)[:, None]
        return torch.where(below, 1 - critic.expectile, critic.expectile)
