"""Parity with GenerativeRL. prefix: of the fixture's names, such as "0" or "gmpo/10"."""

from collections.abc import Mapping

import torch
from parity_torch import ensemble, layers
from torch import Tensor, nn

from genpolicy.algo.update import Update

SIZES = ("network=residual", "network.time_scale=30", "network.hidden=[16,8,4]", "network.time_size=8")
SIZES += ("network.observation_hidden=4", "network.condition_hidden=8")


def network(arrays: Mapping[str, Tensor], prefix: str, theirs: str, ours: str) -> dict[str, Tensor]:
    """Our residual network of their TemporalSpatialResidualNet."""
    blocks = {"first_block": "first", "down_block.0": "down.0", "down_block.1": "down.1", "middle_block": "middle"}
    blocks |= {"up_block.0": "up.0", "up_block.1": "up.1"}
    inside = {"time_mlp.1": "condition", "dense1.0": "first", "dense2.0": "second", "modify_x": "skip"}
    names = {f"{a}.{x}": f"{b}.{y}" for a, b in blocks.items() for x, y in inside.items()}
    names |= {"pre_sort_condition.0": "observe", "sort_t.0": "mix.0", "sort_t.2": "mix.2", "last_block": "last"}
    there = {f"{prefix}/{theirs}/model.backbone.{a}": f"{ours}.network.{b}" for a, b in names.items()}
    return layers(arrays, {a: b for a, b in there.items() if f"{a}.weight" in arrays})


def frequencies(net: nn.Module, arrays: Mapping[str, Tensor], theirs: str) -> None:
    """Give our time embedding the frequencies of theirs, which have the 2 pi in them."""
    with torch.no_grad():
        net.embed.frequency.copy_(arrays[f"0/{theirs}/model.t_encoder.W"])


def critic(arrays: Mapping[str, Tensor], prefix: str, target: bool = True, actions: int = 3) -> dict[str, Tensor]:
    """Our critic of theirs, which gives its Q functions the action before the observation."""
    numbered = {key.replace(".linear", "."): value for key, value in arrays.items()}
    found = ensemble(numbered, [f"{prefix}/v/model.backbone.model"], [0, 1, 2], "critic.v_network")
    for theirs, ours in {"q": "q_network", "q_target": "q_target"}.items():
        if theirs == "q" or target:
            members = [f"{prefix}/{theirs}/model.q{j}.model.backbone.model.model" for j in (1, 2)]
            own = ensemble(numbered, members, [0, 1, 2], f"critic.{ours}")
            first = f"critic.{ours}.layers.0.weight"
            found |= own | {first: own[first].roll(-actions, 1)}
    return found


def double(update: Update) -> None:
    """Let Adam's eps be that of a loss half as large: their losses have a factor of 1/2 that ours do not have."""
    [group] = update.optimizer.param_groups
    group["eps"] *= 2
