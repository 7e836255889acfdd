"""Selecting from behaviour candidates (Chen et al. 2023)."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from genpolicy.algo.algorithm import Algorithm
from genpolicy.algo.phase import PART, Phase
from genpolicy.algo.settings import BehaviourSettings, require_episodes
from genpolicy.algo.update import critic_updates
from genpolicy.config.legal import legal_options
from genpolicy.config.schema import component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.critic.planned import PlannedReturns
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.model.policy import Policy


@component
class SfBC(BehaviourSettings, Algorithm):
    """A behaviour model, and a critic of planned returns that chooses among several actions of it.

    The critic's updates are made in rounds: before each but the first, the returns are planned anew, from values of the
    last round's critic and K behaviour actions a state, drawn once.
    """

    offline_only = "as its returns are planned along the data"

    critic_steps: int = setting(10_000, ge=1, le=10**9, doc="updates of the critic in each round")
    critic_batch_size: int = setting(512, ge=1, le=2**20, doc="transitions a critic update")
    rounds: int = setting(2, ge=1, le=100, doc="rounds of planning and regression, the first of the data's returns")
    num_actions: int = setting(16, ge=2, le=10**4, doc="behaviour actions K a state that returns are planned with")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """The critic plans returns."""

        def fits(critic: type) -> bool:
            return critic.next_actions == "returns"

        if not fits(locate(config.critic._target_)):
            raise UserError(f"critic: SfBC needs a critic of planned returns; legal: {legal_options('critic', fits)}")

    def policies(self, model: Policy) -> tuple[Policy, Policy]:
        return copy.copy(model), model  # one network: the first is evaluated with the selection, the second without

    def plan(self) -> list[Phase]:
        behaviour = self.behaviour_phase()
        behaviour.prepare = require_episodes
        return [behaviour, *(self.round(number) for number in range(self.rounds))]

    def round(self, number: int) -> Phase:
        """One round of planning and regression."""
        names = ["critic", *(f"critic_{following + 1}" for following in range(1, number + 1))]
        return Phase(
            name=names[-1],
            steps=self.critic_steps,
            batch_size=self.critic_batch_size,
            updates=critic_updates(self.critic),
            policy=self.policy,
            start=self.critic.restart if number else None,
            prepare=self.with_planned_returns(planning=number > 0),
            trains={"critic": self.critic},
            depends=("critic", "solver", "algo.num_actions") if number else ("critic",),
            reads=("behaviour", names[-2]) if number else (),
        )

    def with_planned_returns(self, planning: bool) -> Callable[[Transitions], Transitions]:
        """What extends a data set by the returns `planned` [N]; planning: from values, too."""
        critic: PlannedReturns = self.critic

        def prepare(transitions: Transitions) -> Transitions:
            value, device = None, transitions.device
            if planning:
                supported = self.with_behaviour_actions(self.num_actions)(transitions)
                parts = zip(*(supported[name].split(PART) for name in ("observation", "behaviour_action")), strict=True)
                parts = self.watch("values of these actions", list(parts))
                value = torch.cat([critic.value(*(each.to(device) for each in part)) for part in parts])
            return transitions.extended(planned=critic.planned(transitions, value))

        return prepare
