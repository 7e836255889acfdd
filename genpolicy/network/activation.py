"""The activations and initialisations that a network can be given by name."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

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


def lecun_normal(weight: Tensor) -> None:
    """Fill weights [out, in] from a normal distribution of variance 1 / in, cut at two standard deviations."""
    std = weight.shape[1] ** -0.5 / 0.87962566103423978  # of the normal whose cut one has that variance
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


INITIALISATIONS = {
    "pytorch": None,  # what nn.Linear does by itself: uniform in +-1 / sqrt(inputs), biases too
    "orthogonal": functools.partial(nn.init.orthogonal_, gain=2**0.5),  # IQL's, of all layers
    "orthogonal_unit": nn.init.orthogonal_,  # DTQL's policy's
    "xavier": nn.init.xavier_uniform_,  # FQL's
    "xavier_small": nn.init.xavier_uniform_,  # AWR's: the last layer is small
    "lecun": lecun_normal,  # flax's own, of [out, in]
    "edac": None,  # EDAC's and ReBRAC's: nn.Linear's, hidden biases 0.1, the last layer small
}


@torch.no_grad()
def initialise(weights: list[Sequence[Tensor]], biases: list[Tensor], scheme: str, last: float = 1e-3) -> None:
    """Fill the weights of layers, each layer's [out, in] of each member of an ensemble, and their biases.

    scheme: one of `INITIALISATIONS`, with biases of zero; "pytorch" leaves all as it is. last: the bound of the last
    layer's weights, and biases for "edac", where they are small.
    """
    if scheme == "edac":
        for bias in biases[:-1]:
            bias.fill_(0.1)
        for parameter in (*weights[-1], biases[-1]):
            parameter.uniform_(-last, last)
    if fill := INITIALISATIONS[scheme]:
        for weight in itertools.chain.from_iterable(weights):
            fill(weight)
        for bias in biases:
            bias.zero_()
    if scheme == "xavier_small":
        for weight in weights[-1]:
            weight.uniform_(-0.01, 0.01)
