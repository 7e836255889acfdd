"""Slowly moving copies of networks."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def polyak_update(target: Iterable[Tensor], source: Iterable[Tensor], rate: float) -> None:
    """One step of Polyak averaging: target <- (1 - rate) target + rate source, for all parameters."""
    torch._foreach_lerp_(list(target), list(source), rate)
