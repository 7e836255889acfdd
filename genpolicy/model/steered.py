"""A policy that chooses the noise of a flow (Wagenmaker et al. 2025, DSRL, arXiv 2506.15799)."""

from __future__ import annotations

from torch import Tensor

from genpolicy.config.schema import component, setting
from genpolicy.model.direct import TanhGaussianPolicy
from genpolicy.model.edited import OfFlow


@component
class SteeredPolicy(OfFlow, TanhGaussianPolicy):
    """The clipped action of a flow for the noise scale tanh(u), u ~ N(m, diag(std^2)) with m and std a network's.

    The network gives m and ln std [B, 2 A] for the observation. action_low, action_high: -1 and 1 [A], the ends of the
    noise before it is scaled. No density: the noise is not known from an action.
    """

    has_density = False

    scale: float = setting(1.0, ge=0.0, le=1e6, doc="largest noise in each dimension")

    def actions(self, noise: Tensor, observation: Tensor) -> Tensor:
        latent = self.scale * super().actions(noise, observation)
        return self.flow.bound(self.flow.actions(latent[:, None], observation))
