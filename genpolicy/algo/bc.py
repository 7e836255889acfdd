"""Behaviour cloning with a generative policy."""

from __future__ import annotations

from dataclasses import dataclass

from genpolicy.algo.algorithm import Algorithm, BehaviourSettings


@dataclass(kw_only=True, eq=False, repr=False)
class BC(BehaviourSettings, Algorithm):
    """Fit the policy to the data's actions; needs no critic."""

    def __post_init__(self, policy, objective, critic):
        super().__post_init__(policy, objective, None)
        self.phases = [self.behaviour_phase(policy, objective)]
        object.__setattr__(self, "behaviour", policy)  # the policy itself, not a second module in the state
