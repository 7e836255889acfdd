"""The units that algorithms compute in: observations of mean 0 and std 1, actions in [-1, 1]."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from genpolicy.dataset.transitions import Transitions

CONSTANT = 1e-6  # a std below this share of the mean is rounding


class Scaling(nn.Module):
    """The affine maps between an environment's units and those of an algorithm; `state_dict` holds their constants.

    action_low, action_high: the ends [A] of the action space, or infinite; observation, action, epsilon: see
    `genpolicy.config.setting_groups.Scaling`. The maps that follow from data are the identity until `fit`.
    """

    def __init__(
        self,
        observation_size: int,
        action_low: Tensor,
        action_high: Tensor,
        observation: str = "none",
        action: str = "none",
        epsilon: float = 0.0,
    ):
        super().__init__()
        self.observation, self.epsilon = observation, epsilon
        bounded = action_low.isfinite() & action_high.isfinite()
        by_space = bounded if action == "space" else torch.zeros_like(bounded)
        by_data = {"none": torch.zeros_like(bounded), "space": ~bounded, "data": torch.ones_like(bounded)}[action]
        one = torch.ones_like(action_low)
        inside = by_space | (by_data if action == "data" else False)
        bound_low, bound_high = torch.where(inside, -one, action_low), torch.where(inside, one, action_high)
        if action == "space":  # an end of what data scale, beside an infinite one, would be in other units
            bound_low, bound_high = bound_low.where(bounded, -torch.inf), bound_high.where(bounded, torch.inf)
        known = {"low": action_low.clone(), "high": action_high.clone(), "by_data": by_data}
        for name, value in (known | {"bound_low": bound_low, "bound_high": bound_high}).items():
            self.register_buffer(name, value, persistent=False)
        self.register_buffer("mean", torch.zeros(observation_size))
        self.register_buffer("std", torch.ones(observation_size))
        self.register_buffer("centre", torch.where(by_space, (action_low + action_high) / 2, 0 * one))
        half = (action_high - action_low) / 2
        self.register_buffer("reach", torch.where(by_space & (half > 0), half, one))  # 0: a part that is fixed

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """The ends [A] of the action space in the algorithm's units, or infinite."""
        return self.bound_low, self.bound_high

    def fit(self, transitions: Transitions) -> None:
        """Take from data what follows from them; of none, nothing."""
        if not transitions.size:
            return
        if self.observation == "standardize":
            mean, std = moments(transitions.observation)
            self.mean.copy_(mean)
            self.std.copy_(torch.where(std > CONSTANT * mean.abs(), std + self.epsilon, 1.0))
        if self.by_data.any():
            low, high = (end.to(self.centre.device) for end in transitions.action.aminmax(dim=0))
            reach = torch.where(high > low, (high - low) / 2, 1.0)
            self.centre.copy_(torch.where(self.by_data, (low + high) / 2, self.centre))
            self.reach.copy_(torch.where(self.by_data, reach, self.reach))

    def scale_observation(self, observation: Tensor) -> Tensor:
        """Observations [..., O] in the algorithm's units."""
        return observation if self.observation == "none" else (observation - self.mean) / self.std

    def unscale_observation(self, observation: Tensor) -> Tensor:
        """Observations [..., O] in the environment's units."""
        return self.mean + self.std * observation

    def scale_action(self, action: Tensor) -> Tensor:
        """Actions [..., A] in the algorithm's units."""
        return (action - self.centre) / self.reach

    def unscale_action(self, action: Tensor, clip: bool = True) -> Tensor:
        """Actions [..., A] in the environment's units, clipped to its action space, as rounding might leave it."""
        action = torch.addcmul(self.centre, self.reach, action)
        return action.clamp(self.low, self.high) if clip else action

    def log_volume(self) -> Tensor:
        """What the log-density [] of an action is smaller by in the environment's units, in nats."""
        return self.reach.log().sum()

    def scale(self, transitions: Transitions) -> Transitions:
        """Transitions in the algorithm's units, of the same table, which is changed; also those that are held out."""
        digest, held_out = transitions.digest(), transitions.held_out and self.scale(transitions.held_out)
        for name in "observation", "next_observation":
            transitions[name].sub_(self.mean).div_(self.std)
        transitions.action.sub_(self.centre).div_(self.reach)
        return replace(transitions, held_out=held_out, loaded_digest=digest, scaling=self)

    def repeated(self, times: int) -> Scaling:
        """The same for actions [..., times * A], which are several one after the other."""
        return self._with_actions(lambda end: end.repeat(times))

    def single(self, times: int) -> Scaling:
        """The same for the first of several actions [..., times * A]."""
        return self._with_actions(lambda end: end[: len(end) // times])

    def _with_actions(self, change: Callable[[Tensor], Tensor]) -> Scaling:
        other = copy.copy(self)
        other._buffers = self._buffers.copy()
        for name in self._buffers.keys() - {"mean", "std"}:
            other.register_buffer(name, change(getattr(self, name)), persistent=name in ("centre", "reach"))
        return other

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *more: Any) -> None:
        for name in ("mean", "std", "centre", "reach"):
            state_dict.setdefault(prefix + name, getattr(self, name))  # runs of an earlier version have none
        super()._load_from_state_dict(state_dict, prefix, *more)


def moments(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and std [O] of rows [N, O] on the host, computed in float64 by parts."""
    parts = columns.split(2**16)
    mean = sum(part.double().sum(0) for part in parts) / len(columns)
    variance = sum((part.double() - mean).square().sum(0) for part in parts) / len(columns)
    return mean.float(), variance.sqrt().float()
