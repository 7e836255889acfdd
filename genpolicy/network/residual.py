"""The temporal-spatial residual network of the GMPO/GMPG paper's code (GenerativeRL)."""

from __future__ import annotations

import itertools
from dataclasses import InitVar

import torch
from torch import Tensor, nn

from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.errors import UserError
from genpolicy.network.embedding import GaussianFourier, LayeredFourier


class ResidualBlock(nn.Module):
    """x -> act(W2 (act(W1 x) + U act(condition))) + skip(x)."""

    def __init__(self, size_in: int, size_out: int, condition_size: int):
        super().__init__()
        self.first = nn.Linear(size_in, size_out)
        self.second = nn.Linear(size_out, size_out)
        self.condition = nn.Linear(condition_size, size_out)
        self.skip = nn.Linear(size_in, size_out) if size_in != size_out else nn.Identity()
        self.act = nn.SiLU()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Output [B, size_out]; x [B, size_in], condition [B, condition_size] already activated."""
        hidden = self.act(self.first(x)) + self.condition(condition)
        return self.act(self.second(hidden)) + self.skip(x)


@component
class TemporalSpatialResidual(nn.Module):
    """A U-net of fully connected residual blocks, conditioned on time and observation in every block.

    Widths halve on the way down and are mirrored on the way up, where each block also sees the output of its
    counterpart (QGPO's network, Lu et al. 2023; the GMPO/GMPG benchmarks use 512, 256, 128).

    Those have time_scale 30, with which the learned field is so rough in time that the solvers' errors, of policy
    gradients above all, are ten to forty times larger at equal steps, and the data are no more likely for it.

    input_size: of x, if it is not an action; 0, for policies without noise, is an action of zeros.
    """

    hidden: list[int] = setting(
        [512, 256, 128], ge=1, le=2**14, doc="widths on the way down, each half of the one before"
    )
    time_size: int = setting(32, ge=2, le=2**14, doc="size of the Gaussian Fourier time embedding")
    time_scale: float = setting(
        1.0, gt=0.0, le=1e6, doc="standard deviation of its frequencies, in cycles over t in [0, 1]"
    )
    time_layer: bool = setting(False, doc="a linear layer on the time embedding, as in QGPO's code")
    observation_hidden: int = setting(32, ge=1, le=2**14, doc="size of the observation's embedding")
    condition_hidden: int = setting(128, ge=1, le=2**14, doc="size of the joint embedding of time and observation")
    action_size: InitVar[int]
    observation_size: InitVar[int]
    num_times: InitVar[int] = 1
    input_size: InitVar[int | None] = None

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """On the way up, a block's output and its counterpart's must together be as wide as the next input."""
        hidden = config.network.hidden
        if not hidden or any(wide != 2 * narrow for wide, narrow in itertools.pairwise(hidden)):
            widths = ",".join(map(str, hidden))
            raise UserError(
                f"network.hidden=[{widths}]: each width must be half of the one before, as in [512,256,128]"
            )

    def __post_init__(self, action_size: int, observation_size: int, num_times: int, input_size: int | None) -> None:
        super().__init__()
        self.action_size, self.observation_size = action_size, observation_size
        self.input_size = input_size or action_size
        embedding = LayeredFourier if self.time_layer else GaussianFourier
        self.embed = embedding(self.time_size, self.time_scale)
        self.observe = nn.Linear(observation_size, self.observation_hidden) if observation_size else None
        condition_in = num_times * self.embed.size + (self.observation_hidden if observation_size else 0)
        condition = self.condition_hidden if observation_size else condition_in
        self.mix = nn.Sequential(nn.Linear(condition_in, condition), nn.SiLU(), nn.Linear(condition, condition))
        sizes = self.hidden
        self.first = ResidualBlock(self.input_size, sizes[0], condition)
        pairs = list(itertools.pairwise(sizes))
        self.down = nn.ModuleList(ResidualBlock(wide, narrow, condition) for wide, narrow in pairs)
        self.middle = ResidualBlock(sizes[-1], sizes[-1], condition)
        self.up = nn.ModuleList(ResidualBlock(2 * narrow, wide, condition) for wide, narrow in reversed(pairs))
        self.last = nn.Linear(2 * sizes[0], action_size)
        self.act = nn.SiLU()

    def forward(self, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        """Output [B, A] for x [B, input_size], t [B] or any number of times [B, times], observation [B, O]."""
        embedded = self.embed(t).flatten(1)
        if self.observe is not None:
            embedded = torch.cat([embedded, self.act(self.observe(observation))], -1)
        condition = self.act(self.mix(embedded))
        skips = [self.first(x, condition)]
        for block in self.down:
            skips.append(block(skips[-1], condition))
        x = self.middle(skips[-1], condition)
        for block, skip in zip(self.up, reversed(skips[1:]), strict=True):
            x = block(torch.cat([x, skip], -1), condition)
        return self.last(torch.cat([x, skips[0]], -1))
