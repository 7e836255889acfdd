"""Exact solution maps of products of one-dimensional Gaussian mixtures, as an independent oracle."""

import math

import torch
from torch import Tensor


class Mixture:
    """Data whose coordinates are independent mixtures of equally likely Gaussians; noise level sigma, alpha = 1.

    In one dimension the probability flow keeps a point's quantile: Phi(x, t, s) = F_s^-1(F_t(x)).
    """

    def __init__(self, means=(-0.6, 0.6), std=0.15, size=2):
        self.means, self.std, self.size = torch.tensor(means, dtype=torch.float64), std, size
        self.data_std = math.sqrt(std**2 + self.means.square().mean().item())

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Data [count, size]."""
        which = torch.randint(len(self.means), (count, self.size), generator=generator)
        noise = torch.randn(count, self.size, generator=generator, dtype=torch.float64)
        return self.means[which] + self.std * noise

    def cdf(self, x: Tensor, sigma: Tensor) -> Tensor:
        """F_sigma(x), elementwise."""
        scale = torch.sqrt(self.std**2 + sigma**2)[..., None]
        return torch.special.ndtr((x[..., None] - self.means) / scale).mean(-1)

    def denoised(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x_0 | x_sigma = x], elementwise."""
        variance = (self.std**2 + sigma**2)[..., None]
        gap = x[..., None] - self.means
        share = torch.softmax(-0.5 * gap.square() / variance, -1)
        return (share * (self.means + self.std**2 / variance * gap)).sum(-1)

    def move(self, x: Tensor, begin: Tensor, end: Tensor) -> Tensor:
        """The point at noise level `end` of the way through x at `begin`, elementwise, by bisection."""
        begin, end = begin.expand(x.shape), end.expand(x.shape)
        quantile = self.cdf(x, begin)
        reach = self.means.abs().max() + 9 * torch.sqrt(self.std**2 + end**2)
        low, high = -reach, reach.clone()
        for _ in range(64):
            middle = 0.5 * (low + high)
            below = self.cdf(middle, end) < quantile
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return 0.5 * (low + high)
