"""Parity with the algorithms' authors: what a fixture has, and our algorithms with its weights, batches and draws.

A fixture, tests/parity/fixtures/<name>.npz, was written by tests/parity/reference/<name>.py with the reference's code:
its weights by their names there before any update, after one and after ten ("0/...", "1/...", "10/..."), ten batches
("batch/..."), all draws ("draw/...") and terms of the first loss ("info/...").
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from command_line import jobs
from omegaconf import OmegaConf
from torch import Tensor

from genpolicy.algo.algorithm import Algorithm, assemble
from genpolicy.dataset.transitions import Transitions

FIXTURES = Path(__file__).resolve().parents[1] / "parity" / "fixtures"
RTOL = 1e-5


def fixture(name: str) -> tuple[dict, dict[str, Tensor]]:
    """What a fixture says about itself, and its arrays by name, floats in float64."""
    with np.load(FIXTURES / f"{name}.npz", allow_pickle=False) as file:
        arrays = {key: torch.from_numpy(np.asarray(file[key])) for key in file.files if key != "about"}
        return json.loads(str(file["about"])), arrays


def made(*words: str, observation: int = 5, action: int = 3, **settings) -> Algorithm:
    """The algorithm of a command line, in float64, with actions in [-1, 1]. settings: as `algo__alpha=1.0`."""
    [(job, _)] = jobs("tuned=none", "env=multi-goal", *words)
    for key, value in settings.items():
        OmegaConf.update(job.config, key.replace("__", "."), value)
    return assemble(job.config, observation, -torch.ones(action), torch.ones(action)).double()


def batches(arrays: dict[str, Tensor], count: int = 10) -> list[Transitions]:
    """The batches of a fixture, in float64."""
    names = {"observations": "observation", "actions": "action", "rewards": "reward"}
    names |= {"next_observations": "next_observation", "next_actions": "next_action"}
    columns = {ours: arrays[f"batch/{theirs}"] for theirs, ours in names.items() if f"batch/{theirs}" in arrays}
    columns["terminated"] = 1 - arrays["batch/masks"]
    columns = {name: column[..., None] if column.dim() == 2 else column for name, column in columns.items()}
    single = ("reward", "terminated")
    shapes = {name: torch.Size([] if name in single else column.shape[2:]) for name, column in columns.items()}
    tables = torch.cat(list(columns.values()), -1)
    return [Transitions(tables[number], shapes) for number in range(count)]


def put(algorithm: Algorithm, weights: dict[str, Tensor]) -> None:
    """Give an algorithm's parameters of these names the values, with which they must agree in shape."""
    named = dict(algorithm.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, value in weights.items():
            assert named[name].shape == value.shape, (name, named[name].shape, value.shape)
            named[name].copy_(value)


def assert_equal(found: Algorithm, weights: dict[str, Tensor], rtol: float = RTOL) -> None:
    """Its parameters of these names have the values."""
    named = dict(found.named_parameters(remove_duplicate=False))
    for name, value in weights.items():
        torch.testing.assert_close(named[name].detach(), value, rtol=rtol, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


def assert_terms(metrics: dict[str, Tensor], theirs: dict[str, Tensor], rtol: float = RTOL) -> None:
    """The metrics of these names have the values."""
    for name, value in theirs.items():
        torch.testing.assert_close(metrics[name], value, rtol=rtol, atol=0, msg=lambda m, n=name: f"{n}: {m}")


def assert_ten_updates(
    algorithm: Algorithm,
    arrays: dict[str, Tensor],
    update: Callable[[Algorithm, dict[str, Tensor], int], dict[str, Tensor]],
    weights: Callable[[dict[str, Tensor], int], dict[str, Tensor]],
) -> None:
    """After ten updates an algorithm's parameters are the reference's.

    update: makes the one of a number with the fixture's draws. weights: ours of the reference's after so many.
    """
    for number in range(10):
        update(algorithm, arrays, number)
    assert_equal(algorithm, weights(arrays, 10), rtol=5e-8)


def assert_acts(
    algorithm: Algorithm,
    arrays: dict[str, Tensor],
    weights: Callable[[dict[str, Tensor], int], dict[str, Tensor]],
    noise: Tensor,
) -> None:
    """After ten updates it acts as the reference, at the first batch's observations and for noise as `draw_noise`'s."""
    put(algorithm, weights(arrays, 10))
    with torch.no_grad():
        acted = algorithm(batches(arrays)[0].observation, noise)
    torch.testing.assert_close(acted, arrays["act"], rtol=1e-5, atol=1e-9)


def flax_layer(arrays: dict[str, Tensor], theirs: str, ours: str, inputs: list[int] | slice = slice(None)):
    """Of a flax layer the parameters of our `nn.Linear`. inputs: which of their inputs each of ours is."""
    return {f"{ours}.weight": arrays[f"{theirs}/kernel"][inputs].T, f"{ours}.bias": arrays[f"{theirs}/bias"]}


def flax_ensemble(arrays: dict[str, Tensor], prefix: str, ours: str) -> dict[str, Tensor]:
    """Of flax's layers Dense_i and LayerNorm_i, vectorised over an ensemble, the parameters of our `EnsembleMLP`."""

    def many(array: Tensor, dimensions: int) -> Tensor:
        return array if array.dim() == dimensions else array[None]

    count = sum(key.startswith(f"{prefix}/Dense_") and key.endswith("kernel") for key in arrays)
    weights = {}
    for layer in range(count):
        kernel = many(arrays[f"{prefix}/Dense_{layer}/kernel"], 3)
        bias = many(arrays[f"{prefix}/Dense_{layer}/bias"], 2)
        last = layer == count - 1
        name = f"{ours}.head" if last else f"{ours}.layers.{layer}"
        weights |= {f"{name}.weight": kernel.mT if last else kernel, f"{name}.bias": bias if last else bias[:, None]}
        if (norm := f"{prefix}/LayerNorm_{layer}/scale") in arrays:
            weights[f"{ours}.norms.{layer}.weight"] = many(arrays[norm], 2)[:, None]
            weights[f"{ours}.norms.{layer}.bias"] = many(arrays[norm.replace("scale", "bias")], 2)[:, None]
    return weights


def flax_mlp(arrays: dict[str, Tensor], prefix: str, ours: str, inputs: list[int], sign: float = 1.0):
    """Of flax's layers Dense_i the parameters of our `MLP`.

    inputs: which of their inputs each of ours is. sign: -1 where our output is minus theirs.
    """
    count = sum(key.startswith(f"{prefix}/Dense_") and key.endswith("kernel") for key in arrays)
    weights = {}
    for layer in range(count):
        kernel, bias = arrays[f"{prefix}/Dense_{layer}/kernel"], arrays[f"{prefix}/Dense_{layer}/bias"]
        kernel = kernel[inputs] if layer == 0 else kernel
        factor = sign if layer == count - 1 else 1.0
        name = f"{ours}.layers.{2 * layer}"
        weights |= {f"{name}.weight": factor * kernel.T, f"{name}.bias": factor * bias}
    return weights
