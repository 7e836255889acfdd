"""Adaptive Dormand-Prince 5(4) through torchdiffeq, by backpropagation through its steps or by the adjoint."""

from __future__ import annotations

from dataclasses import dataclass

import torchdiffeq

from genpolicy.settings import setting
from genpolicy.solver.solver import ODESolver, State, StateField


@dataclass(kw_only=True, eq=False)
class Dopri5(ODESolver):
    """Dormand-Prince 5(4); the tolerances bound the error of a batch, single rows may err more."""

    rtol: float = setting(1e-5, gt=0.0, le=1.0, doc="relative tolerance; below 1e-5 float32 rounding takes over")
    atol: float = setting(1e-5, gt=0.0, le=1.0, doc="absolute tolerance")
    adjoint: bool = setting(False, doc="gradients by the adjoint ODE: memory independent of the number of steps")

    def integrate(self, field: StateField, state: State, start: float, end: float, parameters=()) -> State:
        times = state[0].new_tensor([start, end])
        # A step must end at `end`: beyond it, where torchdiffeq would go and interpolate, the path is not defined.
        exact_end = {"step_t": times[-1:]}
        tolerances = {"rtol": self.rtol, "atol": self.atol, "method": "dopri5", "options": exact_end}
        if self.adjoint:
            needed = tuple(p for p in parameters if p.requires_grad)
            back = {"adjoint_params": needed, "adjoint_options": {"step_t": times[:1]}}
            path = torchdiffeq.odeint_adjoint(field, state, times, **back, **tolerances)
        else:
            path = torchdiffeq.odeint(field, state, times, **tolerances)
        return tuple(member[-1] for member in path)
