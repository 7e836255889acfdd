"""A temporal U-net: convolutions over the actions of a chunk (Diffusion Policy, Chi et al. 2023)."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from genpolicy.config.legal import legal_options
from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.errors import UserError
from genpolicy.network.chunk_network import ChunkNetwork

GROUPS = 8  # of channels, normalised together


class Convolution(nn.Conv1d):
    """nn.Conv1d as one matrix product of the windows, which for the few steps of a chunk takes less time."""

    def __init__(self, size_in: int, size_out: int, kernel: int, stride: int = 1):
        super().__init__(size_in, size_out, kernel, stride, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, size_out, steps / stride, rounded up] for [B, size_in, steps]."""
        kernel, stride, steps = self.weight.shape[-1], self.stride[0], x.shape[-1]
        padded = nn.functional.pad(x.mT, (0, 0, kernel // 2, kernel // 2))
        windows = torch.cat([padded[:, place : place + steps : stride] for place in range(kernel)], -1)
        return nn.functional.linear(windows, self.weight.mT.flatten(1), self.bias).mT


class Doubling(nn.ConvTranspose1d):
    """nn.ConvTranspose1d of four steps and stride two as one matrix product, of the precision of all others on GPUs."""

    def __init__(self, size_in: int, size_out: int):
        super().__init__(size_in, size_out, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, size_out, 2 steps] for [B, size_in, steps]."""
        later, even, odd, earlier = (
            nn.functional.linear(x.mT, self.weight.flatten(1).mT).unflatten(-1, (-1, 4)).unbind(-1)
        )
        even = even + nn.functional.pad(earlier[:, :-1], (0, 0, 1, 0))
        odd = odd + nn.functional.pad(later[:, 1:], (0, 0, 0, 1))
        return (torch.stack([even, odd], 2).flatten(1, 2) + self.bias).mT


class ConvBlock(nn.Sequential):
    """Convolution over the steps, group normalisation, SiLU: [B, size_in, steps] -> [B, size_out, steps]."""

    def __init__(self, size_in: int, size_out: int, kernel: int):
        super().__init__(Convolution(size_in, size_out, kernel), nn.GroupNorm(GROUPS, size_out), nn.SiLU())


class FiLMBlock(nn.Module):
    """Two convolutions beside a skip; after the first, a condition says a scale and a shift of each channel."""

    def __init__(self, size_in: int, size_out: int, kernel: int, condition_size: int):
        super().__init__()
        self.first, self.second = ConvBlock(size_in, size_out, kernel), ConvBlock(size_out, size_out, kernel)
        self.condition = nn.Linear(condition_size, 2 * size_out)
        self.skip = Convolution(size_in, size_out, 1) if size_in != size_out else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Output [B, size_out, steps]; x [B, size_in, steps], condition [B, condition_size] already activated."""
        scale, shift = self.condition(condition)[..., None].chunk(2, 1)
        return self.second(torch.addcmul(shift, scale, self.first(x))) + self.skip(x)


class FiLMBlocks(nn.ModuleList):
    """Two such blocks, one after the other."""

    def __init__(self, size_in: int, size_out: int, *shape: int):
        super().__init__([FiLMBlock(size_in, size_out, *shape), FiLMBlock(size_out, size_out, *shape)])

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        for block in self:
            x = block(x, condition)
        return x


@component
class UNet1D(ChunkNetwork):
    """A U-net whose channels are convolved over the steps of a chunk, conditioned on time and observation by FiLM.

    From one width to the next the steps are halved, rounded up, and doubled on the way back, where each level also
    sees what it had on the way down. As in Diffusion Policy, but that it has SiLU for Mish, and its levels' steps need
    not be even.
    """

    hidden: list[int] = setting([64, 128], ge=2 * GROUPS, le=2**14, doc="channels of each level")
    kernel: int = setting(3, ge=1, le=99, doc="steps that a convolution sees, an odd number")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """There are steps to convolve over, and the channels can be normalised in groups."""
        hidden, kernel = config.network.hidden, config.network.kernel
        if config.chunk.length == 1:
            legal = legal_options("network", lambda network: not issubclass(network, cls))
            raise UserError(
                f"network: convolves over the actions of a chunk; legal: chunk.length=2 and more, or {legal}"
            )
        if not hidden or any(width % GROUPS for width in hidden):
            widths = ",".join(map(str, hidden))
            raise UserError(f"network.hidden=[{widths}]: legal: multiples of {GROUPS}, as in [64,128]")
        if kernel % 2 == 0:
            raise UserError(f"network.kernel={kernel}: must be odd, so that the steps stay as many")

    def __post_init__(
        self, action_size: int, observation_size: int, num_times: int, input_size: int | None, chunk_length: int
    ) -> None:
        super().__post_init__(action_size, observation_size, num_times, input_size, chunk_length)
        size, self.act = self.embed.size, nn.SiLU()
        self.time = nn.Sequential(nn.Linear(self.times_size, 4 * size), nn.SiLU(), nn.Linear(4 * size, size))
        shape = self.kernel, size + observation_size
        widths = self.hidden
        pairs = list(itertools.pairwise(widths))
        self.first = FiLMBlocks(self.input_size // chunk_length, widths[0], *shape)
        self.shorten = nn.ModuleList(Convolution(width, width, 3, stride=2) for width in widths[:-1])
        self.down = nn.ModuleList(FiLMBlocks(*pair, *shape) for pair in pairs)
        self.middle = FiLMBlocks(widths[-1], widths[-1], *shape)
        self.lengthen = nn.ModuleList(Doubling(wide, narrow) for narrow, wide in reversed(pairs))
        self.up = nn.ModuleList(FiLMBlocks(2 * narrow, narrow, *shape) for narrow, _ in reversed(pairs))
        steps = Convolution(widths[0], action_size // chunk_length, 1)
        self.last = nn.Sequential(ConvBlock(widths[0], widths[0], self.kernel), steps)

    def forward(self, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        """Output [B, A] for x [B, input_size], t [B] or any number of times [B, times], observation [B, O]."""
        condition = self.act(torch.cat([self.time(self.embedded(t)), observation], -1))
        levels = [self.first(self.steps(x).mT, condition)]
        for shorten, blocks in zip(self.shorten, self.down, strict=True):
            levels.append(blocks(shorten(levels[-1]), condition))
        x = self.middle(levels.pop(), condition)
        for lengthen, blocks, level in zip(self.lengthen, self.up, reversed(levels), strict=True):
            x = blocks(torch.cat([lengthen(x)[..., : level.shape[-1]], level], 1), condition)
        return self.last(x).mT.flatten(1)
