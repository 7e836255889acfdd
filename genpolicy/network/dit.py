"""A small diffusion transformer over the actions of a chunk (Peebles and Xie 2023)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.errors import UserError
from genpolicy.network.activation import ACTIVATIONS
from genpolicy.network.chunk_network import ChunkNetwork


class Modulated(nn.Module):
    """Layer normalisation whose scale and shift, and any gates after it, a condition says; all are 0 at first."""

    def __init__(self, width: int, gates: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, 1e-6, elementwise_affine=False)
        self.condition, self.parts = nn.Linear(width, (2 + gates) * width), 2 + gates
        nn.init.zeros_(self.condition.weight)
        nn.init.zeros_(self.condition.bias)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, ...]:
        """The modulated tokens [B, tokens, width] and the gates [B, 1, width], for a condition [B, width]."""
        scale, shift, *gates = self.condition(condition)[:, None].chunk(self.parts, -1)
        return torch.addcmul(shift, self.norm(x), 1 + scale), *gates


class DiTBlock(nn.Module):
    """Attention among the tokens and a perceptron for each, both gated by the condition and shut at first."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_layers = Modulated(width, 1), Modulated(width, 1)
        self.project, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.layers = nn.Sequential(
            nn.Linear(width, 4 * width), ACTIVATIONS["gelu_tanh"](), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens [B, tokens, width] for tokens and a condition [B, width]."""
        tokens, gate = self.before_attention(x, condition)
        x = torch.addcmul(x, gate, self.attention(tokens))
        tokens, gate = self.before_layers(x, condition)
        return torch.addcmul(x, gate, self.layers(tokens))

    def attention(self, x: Tensor) -> Tensor:
        """As written: torch's own kernels cannot be differentiated twice."""
        query, key, value = self.project(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        weight = torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), -1)  # [B, heads, tokens, tokens]
        return self.mix((weight @ value).transpose(1, 2).flatten(2))


@component
class DiT(ChunkNetwork):
    """A token for each action of a chunk, one for the observation; the time, by adaLN-Zero, in every block.

    Without chunks there is one token of the action, as in MeanFlowQL's code. The output is 0 at first.
    """

    width: int = setting(128, ge=1, le=2**14, doc="units of a token; four times as many inside a block")
    blocks: int = setting(4, ge=1, le=100, doc="blocks of attention and a perceptron")
    heads: int = setting(4, ge=1, le=2**10, doc="heads of the attention, which share the width")
    time_size: int = setting(32, ge=2, le=2**14, doc="size of the Gaussian Fourier time embedding")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """Each head has the same share of the width."""
        width, heads = config.network.width, config.network.heads
        if width % heads:
            raise UserError(f"network.heads={heads}: must divide network.width={width}")

    def __post_init__(
        self, action_size: int, observation_size: int, num_times: int, input_size: int | None, chunk_length: int
    ) -> None:
        super().__post_init__(action_size, observation_size, num_times, input_size, chunk_length)
        first, second = nn.Linear(self.times_size, self.width), nn.Linear(self.width, self.width)
        self.time = nn.Sequential(first, nn.SiLU(), second, nn.SiLU())
        self.first = nn.Linear(self.input_size // chunk_length, self.width)
        self.place = nn.Parameter(0.02 * torch.randn(chunk_length, self.width))
        self.observe = nn.Linear(observation_size, self.width) if observation_size else None
        self.transformer = nn.ModuleList(DiTBlock(self.width, self.heads) for _ in range(self.blocks))
        self.norm, self.last = Modulated(self.width, 0), nn.Linear(self.width, action_size // chunk_length)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        """Output [B, A] for x [B, input_size], t [B] or any number of times [B, times], observation [B, O]."""
        condition = self.time(self.embedded(t))
        tokens = self.first(self.steps(x)) + self.place
        if self.observe is not None:
            tokens = torch.cat([tokens, self.observe(observation)[:, None]], 1)
        for block in self.transformer:
            tokens = block(tokens, condition)
        (tokens,) = self.norm(tokens[:, : self.chunk_length], condition)
        return self.last(tokens).flatten(1)
