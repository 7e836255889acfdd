"""Time embeddings."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class GaussianFourier(nn.Module):
    """[sin(2 pi w t), cos(2 pi w t)] with fixed random frequencies w ~ N(0, scale^2) (Song et al. 2021, appendix C)."""

    def __init__(self, size: int, scale: float):
        super().__init__()
        self.register_buffer("frequency", 2 * math.pi * scale * torch.randn(size // 2))

    def forward(self, t: Tensor) -> Tensor:
        """Embed times [...] as [..., size]."""
        phase = t[..., None] * self.frequency
        return torch.cat([torch.sin(phase), torch.cos(phase)], -1)


class LearnedFourier(nn.Module):
    """[sin(2 pi w t), cos(2 pi w t)] with learned frequencies that begin as w ~ N(0, scale^2)."""

    def __init__(self, size: int, scale: float):
        super().__init__()
        self.weight = nn.Parameter(scale * torch.randn(size // 2))

    def forward(self, t: Tensor) -> Tensor:
        """Embed times [...] as [..., size]."""
        phase = 2 * math.pi * t[..., None] * self.weight
        return torch.cat([torch.sin(phase), torch.cos(phase)], -1)


class Scalar(nn.Module):
    """1 - t, as the code of flow matching counts time: from noise to data."""

    def forward(self, t: Tensor) -> Tensor:
        """Embed times [...] as [..., 1]."""
        return 1 - t[..., None]
