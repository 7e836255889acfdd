"""A plain multi-layer perceptron of the action, the time and the observation."""

from __future__ import annotations

import itertools
from dataclasses import InitVar, dataclass

import torch
from torch import Tensor, nn

from genpolicy.config.schema import setting
from genpolicy.network.embedding import GaussianFourier


@dataclass(kw_only=True, eq=False, repr=False)
class MLP(nn.Module):
    """Fully connected layers with SiLU on the concatenated action, time embedding and observation."""

    hidden: list[int] = setting([256, 256, 256], ge=1, le=2**14, doc="units of each hidden layer")
    time_size: int = setting(16, ge=2, le=2**14, doc="size of the Gaussian Fourier time embedding")
    time_scale: float = setting(
        1.0, gt=0.0, le=1e6, doc="standard deviation of its frequencies, in cycles over t in [0, 1]"
    )
    action_size: InitVar[int]
    observation_size: InitVar[int]
    num_times: InitVar[int] = 1

    def __post_init__(self, action_size, observation_size, num_times):
        super().__init__()
        self.action_size, self.observation_size = action_size, observation_size
        self.embed = GaussianFourier(self.time_size, self.time_scale)
        sizes = [action_size + num_times * (self.time_size // 2 * 2) + observation_size, *self.hidden]
        layers = [layer for pair in itertools.pairwise(sizes) for layer in (nn.Linear(*pair), nn.SiLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], action_size))

    def forward(self, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        """Output [B, A] for x [B, A], t [B] or any number of times [B, times], observation [B, O]."""
        return self.layers(torch.cat([x, self.embed(t).flatten(1), observation], -1))
