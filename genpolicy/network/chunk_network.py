"""What networks over the actions of a chunk have in common."""

from __future__ import annotations

from dataclasses import InitVar
from typing import ClassVar

from torch import Tensor, nn

from genpolicy.config.schema import component, setting
from genpolicy.network.embedding import GaussianFourier


@component
class ChunkNetwork(nn.Module):
    """A network that is given the actions of a chunk one after another; without chunks there is one.

    input_size: of x, if it is not an action; 0, for policies without noise, is an action of zeros.
    """

    takes_chunks: ClassVar[bool] = True

    time_size: int = setting(64, ge=2, le=2**14, doc="size of the Gaussian Fourier time embedding")
    time_scale: float = setting(
        1.0, gt=0.0, le=1e6, doc="standard deviation of its frequencies, in cycles over t in [0, 1]"
    )
    action_size: InitVar[int]
    observation_size: InitVar[int]
    num_times: InitVar[int] = 1
    input_size: InitVar[int | None] = None
    chunk_length: InitVar[int] = 1

    def __post_init__(
        self, action_size: int, observation_size: int, num_times: int, input_size: int | None, chunk_length: int
    ) -> None:
        super().__init__()
        self.action_size, self.observation_size = action_size, observation_size
        self.input_size, self.chunk_length = input_size or action_size, chunk_length
        self.embed = GaussianFourier(self.time_size, self.time_scale)
        self.times_size = max(num_times, 1) * self.embed.size

    def steps(self, x: Tensor) -> Tensor:
        """The steps [B, chunk_length, -1] of x [B, input_size]."""
        return x.unflatten(-1, (self.chunk_length, -1))

    def embedded(self, t: Tensor) -> Tensor:
        """The embedding [B, times_size] of t [B] or any number of times [B, times]; without any, that of 0."""
        return self.embed(t if t.dim() == 1 or t.shape[1] else t.new_zeros(len(t))).flatten(1)
