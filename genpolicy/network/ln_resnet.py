"""The residual network with layer normalisation of IDQL and SRPO."""

from __future__ import annotations

import itertools
from dataclasses import InitVar

import torch
from torch import Tensor, nn

from genpolicy.config.schema import component, setting
from genpolicy.network.activation import ACTIVATIONS, initialise
from genpolicy.network.embedding import GaussianFourier, LearnedFourier


class LNResNetBlock(nn.Module):
    """x -> x + W2 act(W1 norm(dropout(x))), four times as wide inside."""

    def __init__(self, width: int, activation: str, eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps)
        self.first = nn.Linear(width, 4 * width)
        self.second = nn.Linear(4 * width, width)
        self.act = ACTIVATIONS[activation]()

    def forward(self, x: Tensor, kept: Tensor | None) -> Tensor:
        """Output [B, width] for x [B, width]; kept [B, width]: what multiplies the units, none in evaluation."""
        hidden = x if kept is None else x * kept
        return x + self.second(self.act(self.first(self.norm(hidden))))


@component
class LNResNet(nn.Module):
    """Residual blocks on the joined action, observation and time embedding (LN_Resnet, Hansen-Estruch et al. 2023).

    input_size: of x, if it is not an action; 0, for policies without noise, is an action of zeros.
    """

    width: int = setting(256, ge=1, le=2**14, doc="units of the residual stream; four times as many inside a block")
    blocks: int = setting(3, ge=1, le=100, doc="residual blocks")
    activation: str = setting("mish", choices=list(ACTIVATIONS), doc="activation inside the blocks and after the last")
    layer_norm_eps: float = setting(1e-5, ge=0.0, le=1.0, doc="epsilon of the layer normalisation")
    init: str = setting(
        "pytorch",
        choices=["pytorch", "flax"],
        doc="initialisation: that of nn.Linear, or Xavier's and in the blocks LeCun's, with zero biases",
    )
    dropout: float = setting(
        0.1, ge=0.0, lt=1.0, doc="dropout rate of a block's inputs, in regressed predictions and likelihoods"
    )
    time_size: int = setting(64, ge=2, le=2**14, doc="size of the Gaussian Fourier time embedding")
    time_scale: float = setting(
        30.0, gt=0.0, le=1e6, doc="standard deviation of its frequencies, in cycles over t in [0, 1]"
    )
    learned_frequencies: bool = setting(False, doc="train the frequencies of the time embedding")
    time_hidden: list[int] = setting([128, 128], ge=1, le=2**14, doc="units of each layer after the time embedding")
    action_size: InitVar[int]
    observation_size: InitVar[int]
    num_times: InitVar[int] = 1
    input_size: InitVar[int | None] = None

    def __post_init__(self, action_size: int, observation_size: int, num_times: int, input_size: int | None) -> None:
        super().__init__()
        self.action_size, self.observation_size = action_size, observation_size
        self.input_size = input_size or action_size
        embedding = LearnedFourier if self.learned_frequencies else GaussianFourier
        self.embed = embedding(self.time_size, self.time_scale)
        activation = ACTIVATIONS[self.activation]
        sizes = [num_times * (self.time_size // 2 * 2), *self.time_hidden]
        layers = [layer for pair in itertools.pairwise(sizes) for layer in (nn.Linear(*pair), activation())]
        self.time = nn.Sequential(*layers[:-1])
        self.first = nn.Linear(self.input_size + observation_size + sizes[-1], self.width)
        self.residual = nn.ModuleList(
            LNResNetBlock(self.width, self.activation, self.layer_norm_eps) for _ in range(self.blocks)
        )
        self.last = nn.Linear(self.width, action_size)
        self.act = activation()
        if self.init == "flax":
            outer = [layer for layer in (*self.time, self.first, self.last) if isinstance(layer, nn.Linear)]
            inner = [layer for block in self.residual for layer in (block.first, block.second)]
            for layers, scheme in ((outer, "xavier"), (inner, "lecun")):
                initialise([[layer.weight] for layer in layers], [layer.bias for layer in layers], scheme)
        self.kept: Tensor | None = None  # [B, *kept_shape]: see `genpolicy.network.dropout`
        self.kept_shape = self.blocks, self.width

    def forward(self, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        """Output [B, A] for x [B, input_size], t [B] or any number of times [B, times], observation [B, O]."""
        x = self.first(torch.cat([x, observation, self.time(self.embed(t).flatten(1))], -1))
        for number, block in enumerate(self.residual):
            x = block(x, None if self.kept is None else self.kept[:, number])
        return self.last(self.act(x))
