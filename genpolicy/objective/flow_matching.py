"""Flow matching."""

from __future__ import annotations

from torch import Tensor

from genpolicy.config.schema import component
from genpolicy.model.generative import GenerativePolicy
from genpolicy.objective.regression import Regression, network_output


@component
class FlowMatching(Regression):
    """|v(x_t, t) - (alpha' x_0 + sigma' eps)|^2 (Lipman et al. 2023, eq. 9).

    prediction: auto is the velocity itself on the paths whose velocity has the data's size (gvp, icfm, otcfm), and a
    preconditioned network elsewhere (vpsde, edm), whose error counts alike at every time: a velocity error there is
    D / sigma c_out times the network's and would be weighed by five orders of magnitude between the ends.
    """

    regressed = "velocity"

    prediction: str = network_output("auto")

    def weight(self, policy: GenerativePolicy, t: Tensor) -> Tensor:
        if policy.prediction != "preconditioned":
            return t.new_ones(t.shape)
        # (sigma / (D c_out))^2, which would be 0 / 0 without noise
        return policy.variance(t) / (policy.path.wronskian(t) * policy.sigma_data) ** 2
