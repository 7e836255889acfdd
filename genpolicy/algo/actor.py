"""What acts: a policy and, where one of several of its actions is chosen, the critic that chooses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genpolicy.critic.critic import Critic
from genpolicy.model.policy import Policy
from genpolicy.select.selection import NoSelection, Selection


class Actor(nn.Module):
    """A policy as it is evaluated. `state_dict` holds its weights and nothing that only training needs.

    Called with its noise it is a function of tensors, for `torch.export` and the like.

    critic: None if there is none, or none is needed. action_low, action_high: the ends [A] of the action space.
    """

    def __init__(
        self,
        policy: Policy,
        critic: Critic | None,
        selection: NoSelection | Selection,
        action_low: Tensor,
        action_high: Tensor,
    ):
        super().__init__()
        self.register_buffer("action_low", action_low.clone(), persistent=False)
        self.register_buffer("action_high", action_high.clone(), persistent=False)
        self.policy, self.critic, self.selection = policy, critic, selection

    def forward(self, observation: Tensor, noise: Tensor) -> Tensor:
        """Actions [B, A] in the action space at observations [B, O], for what `draw_noise` gives [B, ...]."""
        return self.clip(self.act(observation, noise=noise))

    def act(self, observation: Tensor, generator: torch.Generator | None = None, noise: Tensor | None = None) -> Tensor:
        """Actions [B, A] of the trained policy at observations [B, O]; not clipped to the action space.

        noise: what `draw_noise` gives, drawn from the generator if it is not given.
        """
        with torch.no_grad():
            if noise is not None:
                noise = noise.flatten(0, 1)
            if self.selection.num_candidates == 1:
                return self.policy.act(observation, generator, noise)
            candidates = self.policy.sample(observation, generator, self.selection.num_candidates, noise)
            return self.selection.choose(self.critic, observation, self.clip(candidates), generator)

    def draw_noise(self, size: int, generator: torch.Generator | None = None) -> Tensor:
        """What is random in actions at `size` observations, but for the choice among candidates by softmax or
        expectile: standard normal draws [size, candidates, noises, A]."""
        candidates = self.selection.num_candidates
        return self.policy.draw_noise(size * candidates, generator, self.action_low).unflatten(0, (size, candidates))

    def clip(self, action: Tensor) -> Tensor:
        """Actions [..., A] clipped to the action space, outside of which the critic has seen none."""
        return action.clamp(self.action_low, self.action_high)

    def log_prob(self, observation: Tensor, action: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """log pi(a|s) [B] in nats of the trained policy."""
        with torch.no_grad():
            return self.policy.log_prob(observation, action, generator)
