"""Parity with the code of SRPO, QGPO and SfBC, which is of one hand. prefix: "0", "1", "10" or "gradient"."""

import math
from collections.abc import Mapping

import torch
from parity_torch import ensemble
from torch import Tensor, nn

# Q's loss is a sum over the two Q functions here and their mean there: Adam's steps are the same but for its eps, which
# counts where a gradient is next to nothing.
Q_RTOL = 1e-3


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
