"""Adaptive Dormand-Prince 5(4) through torchdiffeq, by backpropagation through its steps or by the adjoint."""

from __future__ import annotations

import torchdiffeq
from torch import Tensor

from genpolicy.config.schema import component, setting
from genpolicy.errors import UserError
from genpolicy.solver.solver import ODESolver, State, StateField


@component
class Dopri5(ODESolver):
    """Dormand-Prince 5(4); the tolerances bound the error of a batch, single rows may err more."""

    rtol: float = setting(1e-5, gt=0.0, le=1.0, doc="relative tolerance; below 1e-5 float32 rounding takes over")
    atol: float = setting(1e-5, gt=0.0, le=1.0, doc="absolute tolerance")
    adjoint: bool = setting(False, doc="gradients by the adjoint ODE: memory independent of the number of steps")

    def integrate(
        self, field: StateField, state: State, start: float, end: float, parameters: tuple[Tensor, ...] = ()
    ) -> State:
        times = state[0].new_tensor([start, end])
        # A step must end at `end`: beyond it, where torchdiffeq would go and interpolate, the path is not defined.
        exact_end = {"step_t": times[-1:]}
        tolerances = {"rtol": self.rtol, "atol": self.atol, "method": "dopri5", "options": exact_end}
        try:
            path = self._path(field, state, times, tolerances, parameters)
        except AssertionError as error:  # torchdiffeq's, such as "underflow in dt 0.0"
            raise UserError(
                f"dopri5: its step size became 0 ({' '.join(str(error).split())}): the field has diverged, "
                "or is too rough; try a smaller learning rate, larger tolerances or a solver of fixed steps"
            ) from error
        return tuple(member[-1] for member in path)

    def _path(
        self, field: StateField, state: State, times: Tensor, tolerances: dict, parameters: tuple[Tensor, ...]
    ) -> State:
        if self.adjoint:
            needed = tuple(p for p in parameters if p.requires_grad)
            back = {"adjoint_params": needed, "adjoint_options": {"step_t": times[:1]}}
            return torchdiffeq.odeint_adjoint(field, state, times, **back, **tolerances)
        return torchdiffeq.odeint(field, state, times, **tolerances)
