"""The activations and initialisations that a network can be given by name."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Function = Callable[[Tensor, bool], tuple[Tensor, Tensor | None]]
"""Values of an activation, and its derivatives if they are asked for."""

SMALL = 4096  # elements, below which torch's kernels are faster on CPUs, too
GELU_SCALE = 2 * math.sqrt(2 / math.pi)
GELU_CUBIC = 0.044715 * GELU_SCALE


def gelu_tanh(x: Tensor, differentiate: bool) -> tuple[Tensor, Tensor | None]:
    """0.5 x (1 + tanh(u)) = x sigmoid(2 u) with 2 u = x (c + k x^2), and its derivative if that is asked for."""
    scale = x.new_full((), GELU_SCALE)
    gate = torch.addcmul(scale, x, x, value=GELU_CUBIC).mul_(x).sigmoid_()
    if not differentiate:
        return gate.mul_(x), None
    inner = torch.addcmul(scale, x, x, value=3 * GELU_CUBIC).mul_(x)
    return gate * x, torch.addcmul(gate, inner, (1 - gate).mul_(gate))


torch_gelu_tanh = functools.partial(nn.functional.gelu, approximate="tanh")


def composed_gelu_tanh(x: Tensor) -> Tensor:
    """The same in functions that a compiler makes one pass of, without the tanh, which costs it as much as the rest."""
    return x * torch.sigmoid(x * (GELU_SCALE + GELU_CUBIC * x * x))


def mish(x: Tensor, differentiate: bool) -> tuple[Tensor, Tensor | None]:
    """x tanh(log(1 + n)) = x w / (w + 2) with n = exp(x), w = n (n + 2); and its derivative if that is asked for."""
    low = x.clamp(max=20.0)  # beyond, the value is x and the derivative 1
    n = low.exp()
    w = (n + 2).mul_(n)
    below = w + 2
    gate = w / below
    if not differentiate:
        return gate.mul_(x), None
    return gate * x, torch.addcmul(gate, low, (w - n).div_(below).div_(below), value=4.0)


def composed_mish(x: Tensor) -> Tensor:
    """x tanh(log(1 + exp(x))) of functions whose derivatives are single kernels, as that of torch's mish is not."""
    return x * nn.functional.softplus(x).tanh()


class _WithDerivative(torch.autograd.Function):
    """An activation whose derivative is computed along with it; further ones are those of torch's kernel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Function, kernel: Callable[[Tensor], Tensor]) -> Tensor:
        value, derivative = function(x, True)
        ctx.save_for_backward(x, derivative)
        ctx.kernel = kernel
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        x, derivative = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            return *torch.autograd.grad(ctx.kernel(x), x, gradient, create_graph=True), None, None
        return gradient * derivative, None, None


class _Elementwise(nn.Module):
    """An activation that torch has a kernel for, on CPUs by `function`, which is equal but for rounding.

    torch's kernels of these take two to three times as long there. They serve elsewhere: on GPUs, in lower precision,
    exported, and for so few elements that calling several kernels costs more. When compiled, and inside transforms of
    torch.func, there are `compiled` and `transformed`, if they are given.
    """

    def __init__(
        self,
        function: Function,
        kernel: Callable[[Tensor], Tensor],
        compiled: Callable[[Tensor], Tensor] | None = None,
        transformed: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__()
        self.function, self.kernel = function, kernel
        self.compiled, self.transformed = compiled or kernel, transformed or kernel

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # and sizes may be symbols
            return self.kernel(x) if torch.compiler.is_exporting() else self.compiled(x)
        if torch._C._are_functorch_transforms_active():
            return self.transformed(x)
        if x.numel() < SMALL or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
            return self.kernel(x)
        if x.requires_grad and torch.is_grad_enabled():
            return _WithDerivative.apply(x, self.function, self.kernel)
        return self.function(x, False)[0]


ACTIVATIONS = {
    "relu": functools.partial(nn.ReLU, inplace=True),
    "silu": nn.SiLU,
    "mish": lambda: _Elementwise(mish, nn.functional.mish, transformed=composed_mish),
    "gelu": nn.GELU,
    "gelu_tanh": lambda: _Elementwise(gelu_tanh, torch_gelu_tanh, compiled=composed_gelu_tanh),  # flax's
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
