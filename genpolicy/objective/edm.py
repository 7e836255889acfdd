"""EDM's denoising objective."""

from __future__ import annotations

import torch
from torch import Tensor

from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.model.flow import standard_normal
from genpolicy.model.generative import GenerativePolicy
from genpolicy.objective.regression import Regression, network_output, refuse_levels


@component
class EDMDenoising(Regression):
    """Denoising with preconditioning (Karras et al. 2022, eq. 2 and table 1), on any path.

    The noise-to-signal ratio sigma/alpha is lognormal, or loglogistic between those of the path's ends; the weight
    makes the network's own target of unit variance: w = ((alpha s)^2 + sigma^2) / (sigma s)^2 with s = sigma_data.
    """

    regressed = "data"

    prediction: str = network_output("preconditioned")
    density: str = setting(
        "lognormal",
        choices=["lognormal", "loglogistic"],
        doc="distribution of the noise level sigma / alpha in training",
    )
    log_ratio_mean: float = setting(-1.2, ge=-100.0, le=100.0, doc="mean of the noise level's logarithm")
    log_ratio_std: float = setting(
        1.2, gt=0.0, le=100.0, doc="standard deviation of the noise level's logarithm; loglogistic: its scale"
    )

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """Times are those that the model is to know."""
        refuse_levels(config, "objective: it")

    def draw_time(self, policy: GenerativePolicy, size: int, generator: torch.Generator, like: Tensor) -> Tensor:
        path = policy.path
        if self.density == "loglogistic":
            ends = torch.stack([like.new_full((), end) for end in (path.t_min, policy.t_max)])  # filled on the device
            low, high = torch.sigmoid(
                ((path.sigma(ends) / path.alpha(ends).clamp(min=0)).log() - self.log_ratio_mean) / self.log_ratio_std
            )
            unit = torch.rand(size, generator=generator, device=like.device, dtype=like.dtype)
            standard = torch.logit(low + (high - low) * unit, eps=torch.finfo(like.dtype).eps)  # finite at the ends
        else:
            standard = standard_normal((size,), generator, like)
        ratio = torch.exp(self.log_ratio_mean + self.log_ratio_std * standard)
        return path.time(torch.ones_like(ratio), ratio).clamp(path.t_min, policy.t_max)

    def weight(self, policy: GenerativePolicy, t: Tensor) -> Tensor:
        signal, noise = policy.path.alpha(t) * policy.sigma_data, policy.path.sigma(t)
        return (signal**2 + noise**2) / (noise * policy.sigma_data) ** 2
