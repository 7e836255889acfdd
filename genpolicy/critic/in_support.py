"""In-support softmax Q-learning."""

from __future__ import annotations

import torch
from torch import Tensor

from genpolicy.config.legal import refuse_unused
from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.critic.double_q import DoubleQ


@component
class InSupport(DoubleQ):
    """Q of the policy that chooses among behaviour actions by softmax (Lu et al. 2023, QGPO, section 4.2).

    The target is r + gamma sum_k softmax_k(beta Q^-(s', a_k)) Q^-(s', a_k) over K actions a_k of the behaviour model,
    drawn once for the whole data set, with Q^- the minimum (or mean) of the target Q functions.
    """

    next_actions = "behaviour"
    offline_only = "as it takes behaviour actions that are drawn for the data beforehand"

    candidates: int = setting(16, ge=2, le=10**4, doc="behaviour actions K at the next state")
    beta: float = setting(
        3.0, gt=0.0, le=1e6, doc="inverse temperature, in units of the data set's (transformed) reward"
    )

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """The candidates' values are combined by softmax."""
        super().check_compatibility(config)
        refuse_unused(config, "critic", ("over_candidates",), "this critic takes a softmax mean over the candidates")

    def backup(self, q: Tensor) -> Tensor:
        value = self.lower_bound(q)
        return (torch.softmax(self.beta * value, -1) * value).sum(-1)
