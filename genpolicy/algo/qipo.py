"""Q-weighted iterative policy optimization (QIPO; Zhang, Zhang and Gu 2025, arXiv 2503.04975)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from genpolicy.algo.gmpo import GMPOSoftmax
from genpolicy.algo.phase import Phase
from genpolicy.config.schema import component, setting
from genpolicy.dataset.transitions import Transitions
from genpolicy.model.policy import Policy
from genpolicy.objective.objective import Draws


@component
class QIPO(GMPOSoftmax):
    """GMPO's softmax form, from the behaviour model on, whose actions are the policy's own, renewed from time to time.

    With support actions of pi_l, the minimum of sum_j softmax_j(beta Q(s, a_j)) loss(a_j | s) is
    pi_{l+1} = pi_l exp(beta Q) / Z. So after l renewals it is mu exp((l + 1) beta Q) / Z (eq. 5.4), by weights that are
    never as uneven as those of (l + 1) beta at once. The data's action is one of the support, too.

    static: the M actions of each state are drawn once after each renewal; otherwise afresh in every update, from the
    policy as it was at the renewal.
    """

    renew_every: int = setting(2_500, ge=1, le=10**9, doc="policy updates K_renew between two renewals of the support")

    @property
    def inverse_temperature(self) -> float:
        *_, phase = self.phases
        return self.beta * -(-phase.steps // self.renew_every)

    @property
    def renewals(self) -> int:
        """How many there have been after the first support. Of the same noise, errors of M actions would add up."""
        phase = self.phases[-1]
        return 0 if phase.refresh is None else phase.updates[""].count // self.renew_every

    def policies(self, model: Policy) -> tuple[Policy, Policy]:
        self.supporting = copy.deepcopy(model).requires_grad_(False)
        return super().policies(model)

    def plan(self) -> list[Phase]:
        *before, phase = super().plan()
        phase.start, phase.refresh = self.renew, self.renew_every
        return [*before, phase]

    def renew(self) -> None:
        """From now on the support is the policy's as it is; before its first update, the behaviour model's."""
        [update] = self.phases[-1].updates.values()
        if not update.count and "policy" not in self.given:
            self.policy.load_state_dict(self.behaviour.state_dict())
        self.supporting.load_state_dict(self.policy.state_dict())

    def source(self) -> Policy:
        return self.supporting

    @property
    def num_weighted(self) -> int:
        return 1 + self.num_actions

    def actions(self, batch: Transitions, draws: Draws) -> Tensor:
        """The data's action and M of the support [B, 1 + M, A], clipped to the action space."""
        return torch.cat([batch.action[:, None], self.clip(super().actions(batch, draws))], 1)
