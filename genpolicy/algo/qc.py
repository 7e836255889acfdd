"""Q-chunking (Li et al. 2025): the best of several chunks of a behaviour flow, acted by and backed up."""

from __future__ import annotations

import copy

from genpolicy.algo.actor_critic import ActorCritic
from genpolicy.algo.compatibility import require_flow
from genpolicy.algo.phase import Phase
from genpolicy.algo.update import Update, imitation
from genpolicy.config.legal import legal_options
from genpolicy.config.schema import component, locate
from genpolicy.config.validation import Node
from genpolicy.errors import UserError
from genpolicy.model.policy import Policy
from genpolicy.select.selection import Selection


@component
class QC(ActorCritic):
    """The policy takes the best of N samples of a flow that is fitted to the data, by Q (section 4.3).

    Q evaluates that policy, with the same choice at the next state. With chunks of actions it is QC, with single ones
    best-of-N sampling (BFN). As in the authors' code, which has one optimiser, both step from the same parameters.
    """

    masks = True
    selects = True
    uses_target = False  # the critic evaluates the choice among the flow's actions as it is

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)
        require_flow(config)

        def fits(select: type) -> bool:
            return issubclass(select, Selection)

        if not fits(locate(config.select._target_)):
            raise UserError(f"select: Q-chunking chooses among several actions; legal: {legal_options('select', fits)}")
        if config.critic.get("candidates", 1) > 1:
            raise UserError("critic.candidates: select.num_candidates is what is chosen from; legal: 1")

    def policies(self, model: Policy) -> tuple[Policy, Policy]:
        return copy.copy(model), model  # one network: the first is evaluated with the selection, the second without

    def plan(self) -> list[Phase]:
        return [self.from_the_same_parameters(phase) for phase in super().plan()]

    def actor_update(self) -> Update:
        more = {"after": self.behaviour.update_target, "clip": self.gradient_norm, "every": self.policy_delay}
        return imitation(self.behaviour, self.objective, self.lr, **more)
