"""What a solver is: it carries samples along a probability flow, and for ODEs any state along any field."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from genpolicy.config.schema import component, setting
from genpolicy.model.flow import Capability, Field, ProbabilityFlow

State = tuple[Tensor, ...]
StateField = Callable[[float | Tensor, State], State]


class Solver(ABC):
    """Samples from a probability flow."""

    requires: ClassVar[Capability] = Capability.FIELD  # of the flow's model
    has_density: ClassVar[bool] = False  # whether log-densities follow: whether it integrates an ODE
    takes_levels: ClassVar[bool] = False  # whether its steps are between the noise levels of a discrete path
    takes_score: ClassVar[bool] = False  # whether the noise predicted must be the score: independent of the action

    num_noises: int = 0  # standard normal draws [A] that a sample needs on its way

    @abstractmethod
    def sample(self, flow: ProbabilityFlow, y: Tensor, noise: Tensor) -> Tensor:
        """Carry y [B, A] from the noise end to the data end in the flow's coordinates.

        noise [B, noises, A]: standard normal, what a stochastic solver adds on the way.
        """


class ODESolver(Solver):
    """Integrates ordinary differential equations, hence also log-densities."""

    has_density = True

    def with_half_the_steps(self) -> ODESolver | None:
        """Its coarser self, which tells its error; None for a solver without steps to halve."""
        return None

    def for_each_of(self, parts: int) -> ODESolver:
        """The solver of each of so many parts of its interval, which together make its own steps."""
        return self

    @abstractmethod
    def integrate(
        self, field: StateField, state: State, start: float, end: float, parameters: tuple[Tensor, ...] = ()
    ) -> State:
        """The solution at `end` of d(state)/d(time) = field(time, state) with the given state at `start`.

        field: (time, a number or [], state) -> derivatives of the state's shapes. parameters: tensors that the field
        depends on and that need gradients; only the adjoint method must be told.
        """

    def value_and_gradient(
        self,
        field: Field,
        with_rate: StateField,
        y: Tensor,
        start: float,
        end: float,
        final: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """final(y(end)) [B] plus the integral of a rate on the way there, and its gradient [B, A] in y = y(start).

        field: (time, y [B, A]) -> dy/dtime. with_rate: (time, (y, integral [B])) -> the same, and the rate [B];
        neither depends on the integral. final: [B, A] -> [B]. Rows do not depend on each other.
        """
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            state = y, torch.zeros_like(y[:, 0])
            last, integral = self.integrate(with_rate, state, start, end)
            value = final(last) + integral
            (gradient,) = torch.autograd.grad(value.sum(), y)
        return value.detach(), gradient

    def sample(self, flow: ProbabilityFlow, y: Tensor, noise: Tensor) -> Tensor:
        (y,) = self.integrate(
            lambda angle, state: (flow.field(angle, state[0]),), (y,), flow.end, flow.start, flow.parameters
        )
        return y


@component
class FixedGrid:
    """A grid of `steps` intervals, u_i = low + (high - low) (i / steps)^power, denser at the low (data) end."""

    steps: int = setting(16, ge=1, le=10**5, doc="number of steps")
    power: float = setting(1.5, ge=1.0, le=7.0, doc="1 is a uniform grid; larger is denser near the data")

    def with_half_the_steps(self) -> Self | None:
        """The same solver with half as many steps; None if it has only one."""
        return replace(self, steps=self.steps // 2) if self.steps > 1 else None

    def for_each_of(self, parts: int) -> Self:
        """The same solver for one of so many parts of the time: the steps are shared among them, at least one each."""
        return replace(self, steps=max(1, round(self.steps / parts)))

    def grid(self, start: float, end: float) -> list[float]:
        """Times [steps + 1] from start to end."""
        units = ((i / self.steps) ** self.power for i in range(self.steps + 1))
        times = [min(start, end) + abs(end - start) * unit for unit in units]
        return times if start < end else times[::-1]
