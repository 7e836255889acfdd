"""Fixed-step explicit schemes for ODEs: Euler, Heun, midpoint, RK4 and two-step Adams-Bashforth."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

from genpolicy.solver.solver import FixedGrid, ODESolver, State, StateField


def _advance(state: State, step, weights, slopes) -> State:
    """state + step * sum_i weights_i slopes_i, for each member of the state."""
    used = [(weight, slope) for weight, slope in zip(weights, slopes, strict=True) if weight]
    return tuple(member + step * sum(w * slope[i] for w, slope in used) for i, member in enumerate(state))


@dataclass(kw_only=True, eq=False)
class RungeKutta(FixedGrid, ODESolver):
    """An explicit Runge-Kutta scheme, given by its Butcher tableau."""

    nodes: ClassVar[tuple[float, ...]]
    stages: ClassVar[tuple[tuple[float, ...], ...]]
    weights: ClassVar[tuple[float, ...]]

    def integrate(self, field: StateField, state: State, start: float, end: float, parameters=()) -> State:
        for time, following in itertools.pairwise(self.grid(start, end)):
            step = following - time
            slopes: list[State] = []
            for node, row in zip(self.nodes, self.stages, strict=True):
                point = _advance(state, step, row, slopes) if row else state
                slopes.append(field(time + node * step, point))
            state = _advance(state, step, self.weights, slopes)
        return state


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

    def integrate(self, field: StateField, state: State, start: float, end: float, parameters=()) -> State:
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
