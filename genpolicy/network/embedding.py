"""Time embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


class GaussianFourier(nn.Module):
    """[sin(2 pi w t), cos(2 pi w t)] with fixed random frequencies w ~ N(0, scale^2) (Song et al. 2021, appendix C)."""

    def __init__(self, size: int, scale: float):
        super().__init__()
        self.size = size // 2 * 2
        self.register_buffer("frequency", 2 * math.pi * scale * torch.randn(size // 2))

    def forward(self, t: Tensor) -> Tensor:
        """Embed times [...] as [..., size]."""
        phase = t[..., None] * self.frequency
        return torch.cat([torch.sin(phase), torch.cos(phase)], -1)


class LayeredFourier(GaussianFourier):
    """The same, and a linear layer on it (Lu et al. 2023, QGPO)."""

    def __init__(self, size: int, scale: float):
        super().__init__(size, scale)
        self.layer = nn.Linear(self.size, self.size)

    def forward(self, t: Tensor) -> Tensor:
        """Embed times [...] as [..., size]."""
        return self.layer(super().forward(t))


class LearnedFourier(nn.Module):
    """[sin(2 pi w t), cos(2 pi w t)] with learned frequencies that begin as w ~ N(0, scale^2)."""

    def __init__(self, size: int, scale: float):
        super().__init__()
        self.size = size // 2 * 2
        self.weight = nn.Parameter(scale * torch.randn(size // 2))

    def forward(self, t: Tensor) -> Tensor:
        """Embed times [...] as [..., size]."""
        phase = 2 * math.pi * t[..., None] * self.weight
        return torch.cat([torch.sin(phase), torch.cos(phase)], -1)


class Scalar(nn.Module):
    """1 - t, as the code of flow matching counts time: from noise to data."""

    size = 1

    def forward(self, t: Tensor) -> Tensor:
        """Embed times [...] as [..., 1]."""
        return 1 - t[..., None]


class Positional(nn.Module):
    """[sin(w t), cos(w t)] with w from 1 to 1 / period in equal ratios (Vaswani et al. 2017).

    period: the largest, over 2 pi.
    """

    def __init__(self, size: int, period: float):
        super().__init__()
        self.size, self.period = size // 2 * 2, period

    def forward(self, t: Tensor) -> Tensor:
        """Embed times [...] as [..., size]."""
        half = self.size // 2
        place = torch.arange(half, device=t.device, dtype=t.dtype) / max(half - 1, 1)
        phase = t[..., None] * torch.exp(-math.log(self.period) * place)
        return torch.cat([torch.sin(phase), torch.cos(phase)], -1)


class Sinusoidal(Positional):
    """The same through two layers; activation: of the layer in between, of twice the size."""

    def __init__(self, size: int, period: float, activation: Callable[[], nn.Module]):
        super().__init__(size, period)
        widths = self.size, 2 * self.size
        self.layers = nn.Sequential(nn.Linear(*widths), activation(), nn.Linear(*widths[::-1]))

    def forward(self, t: Tensor) -> Tensor:
        """Embed times [...] as [..., size]."""
        return self.layers(super().forward(t))
