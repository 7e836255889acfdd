"""Implicit Diffusion Q-learning (Hansen-Estruch et al. 2023), and what differs from it in critic and selection only."""

from __future__ import annotations

import copy

from genpolicy.algo.algorithm import Algorithm
from genpolicy.algo.phase import Phase
from genpolicy.algo.settings import BehaviourSettings, CriticSettings
from genpolicy.config.schema import component, setting
from genpolicy.model.policy import Policy


@component
class IDQL(BehaviourSettings, CriticSettings, Algorithm):
    """A behaviour model and a critic; the policy is the critic's choice among several actions of the model.

    With a flow it is IFQL (Park et al. 2025).
    """

    uses_samples = False

    average: bool = setting(
        False, doc="act with the moving average of the behaviour model; false: with the model itself"
    )

    def policies(self, model: Policy) -> tuple[Policy, Policy]:
        if not self.average:
            return copy.copy(model), model  # one network: the first is evaluated with the selection, the second without
        model.keep_average()
        return model.target, model

    def plan(self) -> list[Phase]:
        critic = self.critic_phase()
        critic.policy = self.policy
        return [self.behaviour_phase(), critic]
