"""Policy evaluation regularised towards the data's actions."""

from __future__ import annotations

import torch
from torch import Tensor

from genpolicy.config.schema import component, setting
from genpolicy.critic.double_q import DoubleQ
from genpolicy.dataset.transitions import Transitions
from genpolicy.objective.objective import Draws


@component
class RegularisedQ(DoubleQ):
    """r + gamma (min_j Q_j^-(s', a') - penalty |a' - a'_D|^2), a'_D the data's action (Tarasov et al. 2023, eq. 4).

    Where the data do not have it, at the end of an episode that a time limit cuts, there is no penalty.
    """

    uses_next_action_of_data = True
    single_steps = offline_only = "as its penalty needs the data's action at the next state"

    penalty: float = setting(1.0, ge=0.0, le=1e6, doc="weight of the squared distance from the data's action at s'")

    def cost(self, batch: Transitions, draws: Draws) -> Tensor:
        distance = (draws["next_action"] - batch["next_action"][:, None]).square().sum(-1)
        penalty = torch.where(batch["followed"][:, None] != 0, self.penalty * distance, 0.0)
        return penalty + super().cost(batch, draws)
