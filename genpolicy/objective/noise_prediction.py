"""Noise prediction."""

from __future__ import annotations

from torch import Tensor

from genpolicy.config.schema import component
from genpolicy.model.generative import GenerativePolicy
from genpolicy.objective.regression import Regression


@component
class NoisePrediction(Regression):
    """|eps(x_t, t) - eps|^2, the simple loss of Ho et al. 2020, eq. 14.

    prediction: where alpha is near 0, the data that a noise output implies is a difference of large numbers, which a
    sampler of few steps does not mend; auto has the same loss without that.
    """

    regressed = "noise"

    def weight(self, policy: GenerativePolicy, t: Tensor) -> Tensor:
        return t.new_ones(t.shape)
