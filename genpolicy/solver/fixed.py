"""Fixed-step explicit schemes for ODEs: Euler, Heun, midpoint, RK4 and two-step Adams-Bashforth."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from genpolicy.config.schema import component, setting
from genpolicy.model.flow import Field
from genpolicy.solver.solver import FixedGrid, ODESolver, State, StateField


def _advance(state: State, step: float, weights: Sequence[float], slopes: Sequence[State]) -> State:
    """state + step * sum_i weights_i slopes_i, for each member of the state."""
    used = [(weight, slope) for weight, slope in zip(weights, slopes, strict=True) if weight]
    return tuple(member + step * sum(w * slope[i] for w, slope in used) for i, member in enumerate(state))


class _Recomputed(torch.autograd.Function):
    """A step of which the backward pass keeps the state alone, and computes the rest once more."""

    @staticmethod
    def forward(ctx: Any, step: Callable[[State], State], members: int, *tensors: Tensor) -> State:
        ctx.step, ctx.members = step, members
        ctx.save_for_backward(*tensors)
        return step(tensors[:members])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        with torch.enable_grad():
            state = tuple(member.detach().requires_grad_() for member in tensors[: ctx.members])
            result = ctx.step(state)
        inputs = (*state, *tensors[ctx.members :])
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[2:]) if needed]
        found = torch.autograd.grad(result, [inputs[i] for i in wanted], gradients, allow_unused=True)
        by_input = dict(zip(wanted, found, strict=True))
        return None, None, *(by_input.get(i) for i in range(len(inputs)))


@component
class RungeKutta(FixedGrid, ODESolver):
    """An explicit Runge-Kutta scheme, given by its Butcher tableau."""

    recompute: bool = setting(
        False,
        doc="recompute each step in the backward pass: memory independent of `steps`",
        affects=None,
    )

    nodes: ClassVar[tuple[float, ...]]
    stages: ClassVar[tuple[tuple[float, ...], ...]]
    weights: ClassVar[tuple[float, ...]]

    def integrate(
        self, field: StateField, state: State, start: float, end: float, parameters: tuple[Tensor, ...] = ()
    ) -> State:
        for time, following in itertools.pairwise(self.grid(start, end)):

            def step(state: State, time: float = time, length: float = following - time) -> State:
                return self._step(field, state, time, length)

            if self.recompute and torch.is_grad_enabled():
                state = _Recomputed.apply(step, len(state), *state, *parameters)
            else:
                state = step(state)
        return state

    def value_and_gradient(
        self,
        field: Field,
        with_rate: StateField,
        y: Tensor,
        start: float,
        end: float,
        final: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Goes there with y alone, and back step by step with the rate: the memory is that of one step."""
        steps, points = list(itertools.pairwise(self.grid(start, end))), [y.detach()]
        with torch.no_grad():
            for time, following in steps:
                points += self._step(
                    lambda time, state: (field(time, state[0]),), (points[-1],), time, following - time
                )
            value, pull_back = torch.func.vjp(final, points.pop())
            (gradient,) = pull_back(torch.ones_like(value))
            del pull_back
            for time, following in reversed(steps):

                def step(here: Tensor, time: float = time, length: float = following - time) -> State:
                    return self._step(with_rate, (here, torch.zeros_like(here[:, 0])), time, length)

                (_, gain), pull_back = torch.func.vjp(step, points.pop())
                (gradient,) = pull_back((gradient, torch.ones_like(gain)))
                value = value + gain
                del pull_back  # and the graph that it holds
        return value, gradient

    def _step(self, field: StateField, state: State, time: float, length: float) -> State:
        slopes: list[State] = []
        for node, row in zip(self.nodes, self.stages, strict=True):
            point = _advance(state, length, row, slopes) if row else state
            slopes.append(field(time + node * length, point))
        return _advance(state, length, self.weights, slopes)


class Euler(RungeKutta):
    """First order, one evaluation a step."""

    nodes, stages, weights = (0.0,), ((),), (1.0,)


class Heun(RungeKutta):
    """Second order, two evaluations a step; the sampler of Karras et al. 2022."""

    nodes, stages, weights = (0.0, 1.0), ((), (1.0,)), (0.5, 0.5)


class Midpoint(RungeKutta):
    """Second order, two evaluations a step."""

    nodes, stages, weights = (0.0, 0.5), ((), (0.5,)), (0.0, 1.0)


class RK4(RungeKutta):
    """Fourth order, four evaluations a step."""

    nodes = (0.0, 0.5, 0.5, 1.0)
    stages = ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0))
    weights = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


class AB2(FixedGrid, ODESolver):
    """Two-step Adams-Bashforth with variable steps: second order, one evaluation a step; the first step is Euler's."""

    def integrate(
        self, field: StateField, state: State, start: float, end: float, parameters: tuple[Tensor, ...] = ()
    ) -> State:
        previous = last = None
        for time, following in itertools.pairwise(self.grid(start, end)):
            step, slope = following - time, field(time, state)
            if previous is None:
                state = _advance(state, step, (1.0,), (slope,))
            else:
                ratio = step / last
                state = tuple(
                    member + step * ((1 + 0.5 * ratio) * new - 0.5 * ratio * old)
                    for member, new, old in zip(state, slope, previous, strict=True)
                )
            previous, last = slope, step
        return state
