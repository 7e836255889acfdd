"""Encoders of the parts of an observation in front of a policy's network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from genpolicy.errors import UserError
from genpolicy.network.ensemble import EnsembleEncoder


def require_parts(parts: Sequence[int], observation_size: int) -> None:
    """Raises `UserError` for sizes of parts that are not together an observation's; none are always right."""
    if parts and sum(parts) != observation_size:
        raise UserError(
            f"observation_parts={list(parts)}: these are {sum(parts)} numbers, but an observation of this task has "
            f"{observation_size}"
        )


def encoded(network: nn.Module, parts: Sequence[int]) -> nn.Module:
    """A network of observations [B, 2 O], which from now on takes [B, O], whose parts are encoded first."""
    network.encoder, network.observation_size = EnsembleEncoder(1, parts), sum(parts)
    network.register_forward_pre_hook(_encode)
    return network


def _encode(network: nn.Module, given: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    x, t, observation = given
    return x, t, network.encoder(observation[None])[0]
