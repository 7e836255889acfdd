"""Efficient Diffusion Policies (Kang et al. 2023)."""

from __future__ import annotations

from torch import Tensor

from genpolicy.algo.algorithm import require_denoiser
from genpolicy.algo.q_guided import QGuided
from genpolicy.dataset.transitions import Transitions
from genpolicy.objective.objective import Draws


class EDP(QGuided):
    """Diffusion-QL whose value is that of the data predicted from the noisy data action, in place of a sample (eq. 7).

    So an update takes one evaluation of the network, where the gradient through the sampler takes as many as steps.
    """

    uses_samples = False

    @classmethod
    def check_compatibility(cls, config) -> None:
        super().check_compatibility(config)
        require_denoiser(config)

    def action(self, batch: Transitions, draws: Draws) -> Tensor:
        x = self.policy.path.perturb(batch.action, draws["noise"], draws["t"])
        return self.policy.data(x, draws["t"], batch.observation)
