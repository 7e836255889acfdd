"""Behaviour cloning with a generative policy."""

from __future__ import annotations

from dataclasses import dataclass

from genpolicy.algo.algorithm import Algorithm, BehaviourSettings


@dataclass(kw_only=True, eq=False, repr=False)
class BC(BehaviourSettings, Algorithm):
    """Fit the policy to the data's actions; needs no critic."""

    learns_critic = False
    uses_samples = False

    def policies(self, model):
        return model, model

    def plan(self):
        return [self.behaviour_phase()]
