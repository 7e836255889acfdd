"""Parity with references in PyTorch: their layers as ours, their draws in ours, how far parameters have moved.

Their fixtures hold what has been added to the initial weights, beside which an optimiser's step is small.
"""

import contextlib
from collections.abc import Iterator, Mapping
from unittest import mock

import numpy as np
import torch
from parity import assert_terms, fixture
from torch import Tensor

from genpolicy.algo.algorithm import Algorithm
from genpolicy.model.policy import Policy
from genpolicy.select.selection import Softmax


def doubles(name: str) -> tuple[dict, dict[str, Tensor]]:
    """The fixture's description, and its arrays with all floats in float64."""
    about, arrays = fixture(name)
    return about, {key: array.double() if array.is_floating_point() else array for key, array in arrays.items()}


def layers(arrays: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Weights and biases of linear layers. names: ours by theirs, with the prefix of the fixture."""
    return {
        f"{ours}.{part}": arrays[f"{theirs}.{part}"] for theirs, ours in names.items() for part in ("weight", "bias")
    }


def ensemble(
    arrays: Mapping[str, Tensor], members: list[str], numbers: list[int], ours: str, norms: list[int] = ()
) -> dict[str, Tensor]:
    """Our `EnsembleMLP` of a torch Sequential for each member. numbers, norms: of its linear layers and layer norms."""

    def stacked(number: int, part: str) -> Tensor:
        return torch.stack([arrays[f"{member}.{number}.{part}"] for member in members])

    *hidden, head = numbers
    found = {f"{ours}.head.weight": stacked(head, "weight"), f"{ours}.head.bias": stacked(head, "bias")}
    for layer, number in enumerate(hidden):
        found[f"{ours}.layers.{layer}.weight"] = stacked(number, "weight").mT
        found[f"{ours}.layers.{layer}.bias"] = stacked(number, "bias")[:, None]
    for layer, number in enumerate(norms):
        for part in ("weight", "bias"):
            found[f"{ours}.norms.{layer}.{part}"] = stacked(number, part)[:, None]
    return found


def assert_logged(metrics: Mapping[str, Tensor], arrays: Mapping[str, Tensor], names: Mapping[str, str], number: int):
    """Metrics are what the reference has logged at this update. names: theirs by ours; some are of the first alone."""
    values = {ours: arrays[f"info/{theirs}"] for ours, theirs in names.items()}
    assert_terms(metrics, {ours: value[number] if value.dim() else value for ours, value in values.items()})


def assert_moved(algorithm: Algorithm, initial: Mapping[str, Tensor], moved: Mapping[str, Tensor], rtol: float = 1e-5):
    """Parameters of these names have moved by the values, each to `rtol` of that."""
    named = dict(algorithm.named_parameters(remove_duplicate=False))
    for name, value in moved.items():
        found = named[name].detach() - initial[name]
        torch.testing.assert_close(found, value, rtol=rtol, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@contextlib.contextmanager
def sampling_from(*noises: Tensor) -> Iterator[None]:
    """Inside, policies draw their noise from these [noises, B, A], one a sample, and take all of them."""
    left = list(noises)

    def draw(policy: Policy, size: int, generator, like: Tensor) -> Tensor:
        noise = left.pop(0).transpose(0, 1)
        assert noise.shape == (size, policy.num_noises, policy.action_size)
        return noise

    with mock.patch.object(Policy, "draw_noise", draw):
        yield
    assert not left


@contextlib.contextmanager
def tossing(coin: float | np.ndarray) -> Iterator[None]:
    """Inside, the coin of `QGuided` is the first Q for numbers above one half, as in the references."""
    with mock.patch.object(torch, "randint", return_value=torch.tensor([int(coin <= 0.5)])):
        yield


@contextlib.contextmanager
def choosing(*index: int) -> Iterator[list[Tensor]]:
    """Inside, the choice among candidates by softmax falls on these numbers; gives the chances, of each choice."""
    found = []

    def scores(selection: Softmax, critic, observation: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        found.append(selection.chances(critic, observation, action))
        return found[-1].new_zeros(found[-1].shape).index_fill(1, torch.tensor(index), 1.0)

    with mock.patch.object(Softmax, "scores", scores):
        yield found
