"""Denoising score matching."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from genpolicy.model.policy import GenerativePolicy
from genpolicy.objective.objective import Objective, network_output
from genpolicy.settings import setting


@dataclass(kw_only=True, eq=False)
class ScoreMatching(Objective):
    """Denoising score matching (Song et al. 2021, eq. 7): w(t) |score(x_t, t) + eps / sigma|^2."""

    regressed = "noise"  # sigma times the score's error, finite at every time

    prediction: str = network_output("noise")
    weighting: str = setting(
        "vanilla",
        choices=["vanilla", "maximum_likelihood"],
        doc="w(t) = sigma^2, or g^2, with which the loss bounds the likelihood (Song et al. 2021b, theorem 1)",
    )

    def weight(self, policy: GenerativePolicy, t: Tensor) -> Tensor:
        if self.weighting == "vanilla":
            return t.new_ones(t.shape)
        return policy.path.diffusion_squared(t) / policy.path.sigma(t) ** 2
