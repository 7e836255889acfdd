"""A plain multi-layer perceptron of the action, the time and the observation."""

from __future__ import annotations

import itertools
from dataclasses import InitVar
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genpolicy.config.schema import component, setting
from genpolicy.network.activation import ACTIVATIONS, INITIALISATIONS, initialise
from genpolicy.network.embedding import GaussianFourier, LayeredFourier, LearnedFourier, Positional, Scalar, Sinusoidal


@component
class MLP(nn.Module):
    """Fully connected layers on the concatenated action, time embedding and observation.

    input_size: of x, if it is not an action; of use only where there are observations. heads: outputs as long as an
    action, each initialised as a layer of its own. output_size: of one output, if it is not an action's.
    """

    takes_heads: ClassVar[bool] = True

    hidden: list[int] = setting([256, 256, 256], ge=1, le=2**14, doc="units of each hidden layer")
    activation: str = setting("silu", choices=list(ACTIVATIONS), doc="activation after each hidden layer")
    linear_first: bool = setting(False, doc="no activation after the first hidden layer, as in DTQL's code")
    dropout: float = setting(
        0.0, ge=0.0, lt=1.0, doc="dropout rate after each hidden layer, in regressed predictions and likelihoods"
    )
    init: str = setting(
        "pytorch",
        choices=list(INITIALISATIONS),
        doc="initialisation of the weights: that of nn.Linear, or one with zero biases",
    )
    time_embedding: str = setting(
        "fourier",
        choices=["fourier", "layered", "learned", "sinusoidal", "positional", "scalar"],
        doc="random frequencies; with one layer; trained; fixed frequencies with two layers; without; scalar: 1 - t",
    )
    time_size: int = setting(16, ge=2, le=2**14, doc="size of the time embedding")
    time_scale: float = setting(
        1.0, gt=0.0, le=1e6, doc="fourier: standard deviation of the frequencies, in cycles over t in [0, 1]"
    )
    time_period: float = setting(10_000.0, gt=1.0, le=1e6, doc="sinusoidal: largest period over 2 pi, the least is 1")
    time_layers: list[int] = setting(
        [], ge=1, le=2**14, doc="units of each layer between the time embedding and the rest"
    )
    time_layers_end: bool = setting(False, doc="an activation after the last of these layers, too")
    action_size: InitVar[int]
    observation_size: InitVar[int]
    num_times: InitVar[int] = 1
    input_size: InitVar[int | None] = None
    output_size: InitVar[int | None] = None
    heads: InitVar[int] = 1

    def __post_init__(
        self,
        action_size: int,
        observation_size: int,
        num_times: int,
        input_size: int | None,
        output_size: int | None,
        heads: int,
    ) -> None:
        super().__init__()
        self.action_size, self.observation_size = action_size, observation_size
        self.input_size = action_size if input_size is None or not observation_size else input_size
        activation = ACTIVATIONS[self.activation]
        self.embed = {
            "fourier": lambda: GaussianFourier(self.time_size, self.time_scale),
            "layered": lambda: LayeredFourier(self.time_size, self.time_scale),
            "learned": lambda: LearnedFourier(self.time_size, self.time_scale),
            "positional": lambda: Positional(self.time_size, self.time_period),
            "sinusoidal": lambda: Sinusoidal(self.time_size, self.time_period, activation),
            "scalar": Scalar,
        }[self.time_embedding]()
        widths = [num_times * self.embed.size, *(self.time_layers if num_times else [])]
        on_time = [layer for pair in itertools.pairwise(widths) for layer in (nn.Linear(*pair), activation())]
        self.time = nn.Sequential(*(on_time if self.time_layers_end else on_time[:-1]))
        sizes = [self.input_size + widths[-1] + observation_size, *self.hidden]
        layers = [layer for pair in itertools.pairwise(sizes) for layer in (nn.Linear(*pair), activation())]
        if self.linear_first:
            layers[1] = nn.Identity()
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], output_size or heads * action_size))
        linear = [layer for layer in self.modules() if isinstance(layer, nn.Linear)]
        weights = [[layer.weight] for layer in linear]
        weights[-1] = list(self.layers[-1].weight.detach().chunk(heads))
        initialise(weights, [layer.bias for layer in linear], self.init)
        self.kept: Tensor | None = None  # [B, *kept_shape]: see `genpolicy.network.dropout`
        self.kept_shape = (sum(self.hidden),)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *more: Any) -> None:
        """Weights of an earlier version, which gave policies without noise zeros as x, lose the columns of these."""
        name = f"{prefix}layers.0.weight"
        if not self.input_size and name in state_dict:
            state_dict[name] = state_dict[name][:, -self.layers[0].in_features :]
        super()._load_from_state_dict(state_dict, prefix, *more)

    def forward(self, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        """[B, heads * A], or [B, output_size], for x [B, input_size], t [B] or several times [B, times], observation
        [B, O]."""
        times = [self.time(self.embed(t).flatten(1))] if t.dim() == 1 or t.shape[1] else []
        given = [x, *times, observation] if self.input_size else [*times, observation]
        hidden = torch.cat(given, -1) if len(given) > 1 else observation
        if self.kept is None:
            # Calling a module, for its hooks, and finding its parameters as attributes take as long as a small product.
            for layer in self.layers._modules.values():
                own = layer._parameters
                hidden = nn.functional.linear(hidden, own["weight"], own["bias"]) if own else layer.forward(hidden)
            return hidden
        pairs = zip(self.layers[:-1:2], self.layers[1::2], self.kept.split(self.hidden, -1), strict=True)
        for linear, activation, kept in pairs:
            hidden = activation(linear(hidden)) * kept
        return self.layers[-1](hidden)
