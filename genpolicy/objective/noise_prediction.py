"""Noise prediction."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from genpolicy.model.policy import GenerativePolicy
from genpolicy.objective.regression import Regression, network_output


@dataclass(kw_only=True, eq=False)
class NoisePrediction(Regression):
    """|eps(x_t, t) - eps|^2, the simple loss of Ho et al. 2020, eq. 14."""

    regressed = "noise"

    prediction: str = network_output("noise")

    def weight(self, policy: GenerativePolicy, t: Tensor) -> Tensor:
        return t.new_ones(t.shape)
