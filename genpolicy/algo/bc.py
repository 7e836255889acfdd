"""Behaviour cloning with a generative policy."""

from __future__ import annotations

from genpolicy.algo.algorithm import Algorithm
from genpolicy.algo.phase import Phase
from genpolicy.algo.settings import BehaviourSettings
from genpolicy.config.schema import component
from genpolicy.model.policy import Policy


@component
class BC(BehaviourSettings, Algorithm):
    """Fit the policy to the data's actions; needs no critic."""

    learns_critic = False
    uses_samples = False

    def policies(self, model: Policy) -> tuple[Policy, Policy]:
        return model, model

    def plan(self) -> list[Phase]:
        return [self.behaviour_phase()]
