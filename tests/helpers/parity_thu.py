"""Parity with the code of SRPO, QGPO and SfBC, which is of one hand. prefix: "0", "1", "10" or "gradient"."""

import math
from collections.abc import Mapping

import torch
from parity_torch import ensemble, layers
from torch import Tensor, nn


def q(arrays: Mapping[str, Tensor], prefix: str, theirs: str, ours: str, numbers: list[int]) -> dict[str, Tensor]:
    """Our Q functions. theirs: "q" or "q_target"; numbers: of the linear layers.

    They give them the action before the observation.
    """
    found = ensemble(arrays, [f"{prefix}/{theirs}/q{member}" for member in (1, 2)], numbers, ours)
    action, first = arrays["batch/actions"].shape[-1], f"{ours}.layers.0.weight"
    found[first] = found[first].roll(-action, 1)
    return found


def frequencies(network: nn.Module, weight: Tensor) -> None:
    """Give our time embedding the frequencies of theirs."""
    with torch.no_grad():
        network.embed.frequency.copy_(2 * math.pi * weight)


def residual(arrays: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Our residual network of their ScoreNet, of which an output is minus the noise that ours predicts.

    They join what comes from the other side before what comes from below, and the observation before the time.
    """
    blocks = {"down_block1": "first", "down_block2": "down.0", "down_block3": "down.1", "middle1": "middle"}
    blocks |= {"up_block3": "up.0", "up_block2": "up.1"}
    inside = {"time_mlp.1": "condition", "dense1.0": "first", "dense2.0": "second", "modify_x": "skip"}
    names = {f"{a}.{x}": f"{b}.{y}" for a, b in blocks.items() for x, y in inside.items()}
    names |= {"embed.1": "embed.layer", "pre_sort_condition.0.dense": "observe"}
    names |= {"sort_t.0": "mix.0", "sort_t.2": "mix.2", "last": "last"}
    there = {f"{prefix}/behaviour/{theirs}": f"behaviour.network.{ours}" for theirs, ours in names.items()}
    found = layers(arrays, {theirs: ours for theirs, ours in there.items() if f"{theirs}.weight" in arrays})
    observed = len(arrays["0/behaviour/pre_sort_condition.0.dense.bias"])
    first = "behaviour.network.mix.0.weight"
    found[first] = found[first].roll(-observed, 1)
    order = torch.arange(0)  # which of their units each of ours is, of what a block is given, and so gives
    for name in ("up.0", "up.1", "last"):
        inside = "" if name == "last" else ".first"
        weight = f"behaviour.network.{name}{inside}.weight"
        half = found[weight].shape[1] // 2
        order = torch.cat([half + (order if len(order) else torch.arange(half)), torch.arange(half)])
        found[weight] = found[weight][:, order]
        if inside:
            for part in ("weight", "bias"):
                second = f"behaviour.network.{name}.second.{part}"
                found[second] = found[second][order]
    for part in ("weight", "bias"):
        found[f"behaviour.network.last.{part}"] = -found[f"behaviour.network.last.{part}"]
    return found


RESIDUAL = ("network.hidden=[16,8,4]", "network.time_size=8", "network.observation_hidden=4")
RESIDUAL += ("network.condition_hidden=8",)
