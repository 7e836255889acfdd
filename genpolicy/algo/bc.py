"""Behaviour cloning with a generative policy."""

from __future__ import annotations

from genpolicy.algo.algorithm import Algorithm, BehaviourSettings
from genpolicy.config.schema import component


@component
class BC(BehaviourSettings, Algorithm):
    """Fit the policy to the data's actions; needs no critic."""

    learns_critic = False
    uses_samples = False

    def policies(self, model):
        return model, model

    def plan(self):
        return [self.behaviour_phase()]
