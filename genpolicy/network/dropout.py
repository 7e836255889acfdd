"""Dropout whose draws are made before a loss, as all that is random in one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


def draw_kept(network: nn.Module, size: int, generator: torch.Generator, like: Tensor) -> dict[str, Tensor]:
    """The draws `kept` [size, ...] of a network's dropout, if it has any: 0, or 1 / (1 - dropout).

    A network with dropout has the rate `dropout`, the shape `kept_shape` of what multiplies its units for one sample,
    and `kept`, which multiplies them while it is not None.
    """
    if not (rate := getattr(network, "dropout", 0.0)):
        return {}
    shape = size, *network.kept_shape
    unit = torch.rand(shape, generator=generator, device=like.device, dtype=like.dtype)
    return {"kept": (unit >= rate).to(unit.dtype) / (1 - rate)}


@contextlib.contextmanager
def dropped(network: nn.Module, kept: Tensor | None) -> Iterator[None]:
    """Inside, units are left out as `draw_kept` has it; none for a network without dropout."""
    if kept is None:
        yield
        return
    network.kept = kept
    try:
        yield
    finally:
        network.kept = None
