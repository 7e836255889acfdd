"""The activations and initialisations that a network can be given by name."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

ACTIVATIONS = {
    "relu": functools.partial(nn.ReLU, inplace=True),
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "gelu": nn.GELU,
    "gelu_tanh": functools.partial(nn.GELU, approximate="tanh"),  # flax's gelu
    "tanh": nn.Tanh,
}
INITIALISATIONS = {
    "pytorch": None,  # what nn.Linear does by itself: uniform in +-1 / sqrt(inputs), biases too
    "orthogonal": functools.partial(nn.init.orthogonal_, gain=2**0.5),  # IQL's, of all layers
    "xavier": nn.init.xavier_uniform_,  # FQL's
}


@torch.no_grad()
def initialise(weights: list[Tensor], biases: list[Tensor], scheme: str) -> None:
    """Fill weights, each one layer's [in, out] or [out, in], by a scheme of `INITIALISATIONS`; biases with zeros.

    "pytorch" leaves all as it is.
    """
    if fill := INITIALISATIONS[scheme]:
        for weight in weights:
            fill(weight)
        for bias in biases:
            bias.zero_()
