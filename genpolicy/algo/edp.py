"""Efficient Diffusion Policies (Kang et al. 2023)."""

from __future__ import annotations

from torch import Tensor

from genpolicy.algo.compatibility import require_denoiser
from genpolicy.algo.phase import Phase
from genpolicy.algo.q_guided import QGuided
from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.transitions import Transitions
from genpolicy.objective.objective import Draws


@component
class EDP(QGuided):
    """Diffusion-QL whose value is that of the data predicted from the noisy data action, in place of a sample (eq. 7).

    So an update takes one evaluation of the network, where the gradient through the sampler takes as many as steps.
    """

    uses_samples = False

    simultaneous: bool = setting(False, doc="update the actor with the critic from before its update, as in EDP's code")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)
        require_denoiser(config)

    def plan(self) -> list[Phase]:
        [phase] = super().plan()
        if not self.simultaneous:
            return [phase]
        phase.updates["actor"].after = self.update_average  # the target Q follows after the critic's step
        return [self.from_the_same_parameters(phase)]

    def action(self, batch: Transitions, draws: Draws) -> Tensor:
        x = self.policy.path.perturb(batch.action, draws["noise"], draws["t"])
        return self.policy.data(x, draws["t"], batch.observation)
