"""Slowly moving copies of networks."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def follow(target: nn.Module, source: nn.Module, rate: float) -> None:
    """One step of Polyak averaging: target <- (1 - rate) target + rate source, for all parameters."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), rate)
