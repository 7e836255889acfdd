"""Flow matching."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from genpolicy.errors import UserError
from genpolicy.model.path import EDM
from genpolicy.model.policy import GenerativePolicy
from genpolicy.objective.objective import Objective


@dataclass(kw_only=True, eq=False)
class FlowMatching(Objective):
    """|v(x_t, t) - (alpha' x_0 + sigma' eps)|^2 (Lipman et al. 2023, eq. 9), weighted to one size over all times."""

    regressed = "velocity"

    def weight(self, policy: GenerativePolicy, t: Tensor) -> Tensor:
        return policy.path.velocity_weight(t)

    @classmethod
    def partners(cls, config) -> None:
        if config.model.path._target_ == f"{EDM.__module__}.{EDM.__qualname__}":
            raise UserError(
                "objective=flow_matching does not go with model=edm, whose velocity grows to hundreds; "
                "it goes with model=vpsde|gvp|icfm|otcfm, and model=edm with objective=edm|noise_prediction"
            )
