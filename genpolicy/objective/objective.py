"""How a policy is fitted to actions: one loss a sample, so that any weighting applies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.model.flow import Capability
from genpolicy.model.policy import Policy

Draws = dict[str, Tensor]


@component
class Objective(ABC):
    """A pure loss: all that is random in it comes from `draw`."""

    teaches: ClassVar[frozenset[Capability]] = frozenset({Capability.FIELD})  # the policy that it trains
    uses_target: ClassVar[bool] = False  # whether it needs the policy's moving average
    scheduled: ClassVar[bool] = False  # whether draws depend on the share of the training that is done
    masks: ClassVar[bool] = False  # whether `valid` [B, A] of the draws says which parts of an action count
    prediction: ClassVar[str]  # what a flow's network predicts

    @classmethod
    def without_effect(cls, config: Node) -> dict[str, str]:
        """Units are left out where a prediction is regressed or a likelihood maximised (`remark_unused`)."""
        return {"network.dropout": "where an objective neither regresses a prediction nor maximises a likelihood"}

    @abstractmethod
    def draw(
        self,
        policy: Policy,
        observation: Tensor,
        action: Tensor,
        generator: torch.Generator,
        progress: float = 1.0,
    ) -> Draws:
        """All the randomness of one loss, each [B, ...]; progress: the share of the training that is done."""

    @abstractmethod
    def loss(self, policy: Policy, observation: Tensor, action: Tensor, draws: Draws) -> Tensor:
        """One loss a sample, [B], of actions [B, A] at observations [B, O]."""


@component
class SquaredError(Objective, ABC):
    """An objective that measures an error [B, A] in actions or in what they are predicted by."""

    reduction: str = setting(
        "sum", choices=["sum", "mean"], doc="reduction of the squared errors over the action's dimensions"
    )

    def reduce(self, errors: Tensor, valid: Tensor | None = None) -> Tensor:
        """The sum or mean [B] of an action's errors [B, A]. valid [B, A]: 0 for those that count as none."""
        errors = errors if valid is None else errors * valid
        return errors.sum(-1) if self.reduction == "sum" else errors.mean(-1)
