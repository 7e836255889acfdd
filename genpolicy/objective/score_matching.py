"""Denoising score matching."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genpolicy.config.schema import build, component, setting
from genpolicy.config.validation import Node
from genpolicy.errors import UserError
from genpolicy.model.generative import GenerativePolicy
from genpolicy.model.path import ProbabilityPath
from genpolicy.objective.regression import Regression, network_output, refuse_levels


@component
class ScoreMatching(Regression):
    """Denoising score matching (Song et al. 2021, eq. 7): w(t) |score(x_t, t) + eps / sigma|^2.

    weighting: vanilla is w = sigma^2; maximum_likelihood is w = g^2, with which the loss bounds the likelihood (Song
    et al. 2021b, theorem 1). The latter's times are drawn in proportion to g^2 / sigma^2 = 2 d ln(sigma / alpha) / dt,
    that is uniformly in the log of the noise-to-signal ratio (importance sampling, their section 5.1).
    """

    regressed = "noise"  # sigma times the score's error, finite at every time

    prediction: str = network_output("noise")
    weighting: str = setting(
        "vanilla", choices=["vanilla", "maximum_likelihood"], doc="weight w(t) of the loss, sigma^2 or g^2"
    )

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """Where times are by the logarithm of the noise, there must be some at the first of them."""
        if config.objective.weighting == "vanilla" or "path" not in config.model:
            return
        refuse_levels(config, "objective.weighting=maximum_likelihood")
        path = build(config.model.path)
        if not path.sigma(torch.tensor(path.t_min)) > 0:
            raise UserError(
                f"model.path.t_min={path.t_min:g}: there is no noise then, by whose logarithm "
                "objective.weighting=maximum_likelihood draws times; legal: above 0"
            )

    def draw_time(self, policy: GenerativePolicy, size: int, generator: torch.Generator, like: Tensor) -> Tensor:
        if self.weighting == "vanilla":
            return super().draw_time(policy, size, generator, like)
        low, high = self._log_ratios(policy.path)
        unit = torch.rand(size, generator=generator, device=like.device, dtype=like.dtype)
        ratio = torch.exp(low + (high - low) * unit)
        return policy.path.time(torch.ones_like(ratio), ratio).clamp(policy.path.t_min, policy.path.t_max_noise)

    def weight(self, policy: GenerativePolicy, t: Tensor) -> Tensor:
        if self.weighting == "vanilla":
            return t.new_ones(t.shape)
        low, high = self._log_ratios(policy.path)
        return t.new_full(t.shape, 2 * (high - low) / (policy.path.t_max_noise - policy.path.t_min))

    @staticmethod
    def _log_ratios(path: ProbabilityPath) -> tuple[float, float]:
        ends = torch.tensor([path.t_min, path.t_max_noise], dtype=torch.float64)
        low, high = (path.sigma(ends) / path.alpha(ends)).tolist()
        return math.log(low), math.log(high)
