"""What acts: a policy and, where one of several of its actions is chosen, the critic that chooses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genpolicy.config.setting_groups import Chunk, executed
from genpolicy.critic.critic import Critic
from genpolicy.dataset.scaling import Scaling
from genpolicy.model.flow import standard_normal
from genpolicy.model.policy import Policy
from genpolicy.select.selection import NoSelection, Selection


class ActionQueue:
    """Plays chunks of actions: asks for one, plays its first actions, one a call, and asks again.

    choose: (observation [B, O], ...) -> chunks [B, length * A].
    """

    def __init__(self, choose: Callable[..., Tensor], chunk: Chunk):
        self.choose, self.length, self.execute = choose, chunk.length, executed(chunk)
        self.reset()

    def reset(self) -> None:
        """Forget what is left of the chunks: the next call is at the begin of an episode."""
        self.waiting: list[Tensor] = []

    def __call__(self, observation: Tensor, *more: Any) -> Tensor:
        """Actions [B, A] of the same B episodes at each call, whose observations [B, O] a new chunk is chosen by."""
        if not self.waiting:
            chunk = self.choose(observation, *more)
            self.waiting = list(chunk.unflatten(-1, (self.length, -1)).unbind(1)[: self.execute])
        return self.waiting.pop(0)


class Actor(nn.Module):
    """A policy as it is evaluated. `state_dict` holds its weights and nothing that only training needs.

    It takes and gives the environment's units; its policy and its critic know those of the scaling only. Called with
    its noise it is a function of tensors, for `torch.export` and the like.

    critic: None if there is none, or none is needed. explores_by_mean: whether the policy's std is no part of what it
    does, not even in training in the simulator.
    """

    explores_by_mean: ClassVar[bool] = False

    def __init__(self, policy: Policy, critic: Critic | None, selection: NoSelection | Selection, scaling: Scaling):
        super().__init__()
        low, high = scaling.bounds
        self.register_buffer("action_low", low.clone(), persistent=False)
        self.register_buffer("action_high", high.clone(), persistent=False)
        self.policy, self.critic, self.selection, self.scaling = policy, critic, selection, scaling

    @property
    def has_density(self) -> bool:
        """Whether `log_prob` can be asked for."""
        return self.policy.has_density

    def forward(self, observation: Tensor, noise: Tensor, choice: Tensor | None = None) -> Tensor:
        """Actions [B, A] in the action space at observations [B, O], for what `draw_noise` and `draw_choice` give."""
        return self.act(observation, noise=noise, choice=choice)

    def act(
        self,
        observation: Tensor,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
        choice: Tensor | None = None,
    ) -> Tensor:
        """Actions [B, A] in the action space at observations [B, O].

        noise, choice: what `draw_noise` and `draw_choice` give, drawn from the generator if they are not given.
        """
        with torch.no_grad():
            return self.scaling.unscale_action(self._chosen(observation, self.policy.act, generator, noise, choice))

    def explore(self, observation: Tensor, generator: torch.Generator, noise: float = 0.0) -> Tensor:
        """The same for training in the simulator: a policy that acts by its mean is sampled here, if it has a std.

        noise: standard deviation of a Gaussian that is added, in units of half the range of each action; where that has
        no ends, in the algorithm's units.
        """
        with torch.no_grad():
            choose = self.policy.act if self.explores_by_mean else self.policy.sample
            action = self._chosen(observation, choose, generator)
            if noise:
                half = (self.action_high - self.action_low) / 2
                spread = noise * torch.where(half.isfinite(), half, 1.0)
                action = self.clip(action + spread * standard_normal(action.shape, generator, action))
            return self.scaling.unscale_action(action)

    def uniform(self, observation: Tensor, generator: torch.Generator) -> Tensor:
        """Actions [B, A] that are uniform in a bounded action space, as many as observations [B, O]."""
        shape = len(observation), len(self.action_low)
        unit = torch.rand(shape, generator=generator, device=self.action_low.device, dtype=self.action_low.dtype)
        return self.scaling.unscale_action(self.action_low + (self.action_high - self.action_low) * unit)

    def _chosen(
        self,
        observation: Tensor,
        act: Callable[..., Tensor],
        generator: torch.Generator | None,
        noise: Tensor | None = None,
        choice: Tensor | None = None,
    ) -> Tensor:
        """Actions [B, A] in the algorithm's units, clipped to its action space."""
        observation = self.scaling.scale_observation(observation)
        if noise is not None:
            noise = noise.flatten(0, 1)
        if self.selection.num_candidates == 1:
            return self.clip(act(observation, generator, noise=noise))
        candidates = self.clip(self.policy.sample(observation, generator, self.selection.num_candidates, noise))
        return self.selection.choose(self.critic, observation, candidates, generator, choice)

    def sample(self, observation: Tensor, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """`num_samples` actions [B, K, A] of the policy alone: not selected, not clipped."""
        with torch.no_grad():
            action = self.policy.sample(self.scaling.scale_observation(observation), generator, num_samples)
            return self.scaling.unscale_action(action, clip=False)

    def draw_noise(self, size: int, generator: torch.Generator | None = None) -> Tensor:
        """What is random in actions at `size` observations, or their candidates: standard normal draws
        [size, candidates, noises, A]."""
        candidates = self.selection.num_candidates
        return self.policy.draw_noise(size * candidates, generator, self.action_low).unflatten(0, (size, candidates))

    def draw_choice(self, size: int, generator: torch.Generator | None = None) -> Tensor | None:
        """What is random in the choice among candidates at `size` observations: exponential draws of rate 1
        [size, candidates]; None if nothing is."""
        candidates = self.selection.num_candidates
        if candidates == 1:
            return None
        return self.selection.draw_noise((size, candidates), generator, self.action_low)

    def clip(self, action: Tensor) -> Tensor:
        """Actions [..., A], in the scaling's units, clipped to the action space, outside of which the critic has seen
        none."""
        return action.clamp(self.action_low, self.action_high)

    def log_prob(self, observation: Tensor, action: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """log pi(a|s) [B] in nats of actions [B, A] at observations [B, O], before clipping and selection."""
        with torch.no_grad():
            scaled = self.scaling.scale_observation(observation), self.scaling.scale_action(action)
            return self.policy.log_prob(*scaled, generator=generator) - self.scaling.log_volume()

    def q(self, observation: Tensor, action: Tensor) -> Tensor:
        """Q(s, a) [B] of the critic: what its Q functions say together."""
        with torch.no_grad():
            q = self.critic.q(self.scaling.scale_observation(observation), self.scaling.scale_action(action))
            return self.critic.aggregated(q)

    def v(self, observation: Tensor) -> Tensor:
        """V(s) [B] of the critic, if it learns V."""
        with torch.no_grad():
            v = self.critic.v(self.scaling.scale_observation(observation))
        return v.detach()  # without observations it is a view of a parameter
