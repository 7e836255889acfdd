"""The probability-flow ODE in one set of coordinates for every path.

With x = alpha x_0 + sigma eps and sigma_data a scale s of the data, let

    theta = atan2(sigma, alpha s) in [0, pi/2]     rho = sqrt(alpha^2 + (sigma / s)^2)     y = x / rho
    y = x_0 cos(theta) + s eps sin(theta)          dy/dtheta = -data sin(theta) + s noise cos(theta)

where data and noise are the model's predictions at (x, t). No coefficient is singular, y keeps the data's scale from
one end to the other, and a grid in theta serves all paths alike.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from genpolicy.model.path import ProbabilityPath

Field = Callable[[float | Tensor, Tensor], Tensor]


class Capability(enum.Enum):
    """What an objective may teach a model, and a solver may require of it."""

    FIELD = "the field of the flow"
    MAP = "its solution map from any time to any earlier one"
    END = "its map to the data end"
    MEAN_VELOCITY = "its mean velocity on the way to the data end"
    DENSITY = "a density in closed form, where there is no flow"
    MEAN = "the mean of that density, beside its standard deviation"


class Coefficients(NamedTuple):
    """What a model is at one angle, where its predictions are linear in y and in the network's output F.

    F = network(scale y, time), data = data_y y + data_f F and dy/dtheta = field_y y + field_f F. Numbers or tensors [].
    """

    time: Tensor
    scale: float | Tensor
    data_y: float | Tensor
    data_f: float | Tensor
    field_y: float | Tensor
    field_f: float | Tensor


@dataclass
class ProbabilityFlow:
    """A model's flow at fixed conditions, as the solvers see it.

    at: (angle, y) -> the model's coefficients there. network: (scaled y [B, A], t []) -> output [B, A]. start, end:
    angles of the data end and of the noise end, at t_max. velocity: (x [B, A], t []) -> dx/dt. parameters: what the
    adjoint method differentiates with respect to, beside the initial state. solution: (y [B, A] at the first of some
    angles, angles) -> y at the last, by jumps of a learned solution map, if any. clip: what is done to a prediction of
    the data. bound: clips actions to the action space.
    """

    path: ProbabilityPath
    at: Callable[[float | Tensor, Tensor], Coefficients]
    network: Callable[[Tensor, Tensor], Tensor]
    sigma_data: float
    start: float
    end: float
    t_max: float
    velocity: Callable[[Tensor, Tensor], Tensor] | None = None
    parameters: tuple[Tensor, ...] = ()
    solution: Callable[[Tensor, Sequence[float]], Tensor] | None = None
    clip: Callable[[Tensor], Tensor] = lambda data: data
    bound: Callable[[Tensor], Tensor] = lambda action: action

    def data(self, angle: float | Tensor, y: Tensor) -> Tensor:
        """The model's data prediction [B, A] at the point y [B, A] of an angle, a number or [].

        Numbers are faster: what depends on them alone is computed once.
        """
        c = self.at(angle, y)
        return self.clip(c.data_y * y + c.data_f * self.network(c.scale * y, c.time))

    def field(self, angle: float | Tensor, y: Tensor) -> Tensor:
        """dy/dtheta [B, A] at the point y [B, A] of an angle, a number or []."""
        c = self.at(angle, y)
        return c.field_y * y + c.field_f * self.network(c.scale * y, c.time)

    def end_log_prob(self, y: Tensor) -> Tensor:
        """Log-density [B] of y [B, A] at the noise end, where x is N(0, sigma(t_max)^2 I)."""
        scale = self.sigma_data * math.sin(self.end)  # of y
        size = y.shape[-1]
        return -0.5 * (y / scale).square().sum(-1) - size * (math.log(scale) + 0.5 * math.log(2 * math.pi))

    def noise_to_y(self, noise: Tensor) -> Tensor:
        """Canonical coordinates of standard normal noise at the noise end."""
        return self.sigma_data * math.sin(self.end) * noise

    def data_to_y(self, data: Tensor) -> Tensor:
        """Canonical coordinates of data at the data end, x_{t_min} = alpha(t_min) x_0."""
        return math.cos(self.start) * data

    def y_to_data(self, y: Tensor) -> Tensor:
        """The inverse of `data_to_y`."""
        return y / math.cos(self.start)


def angle_of(path: ProbabilityPath, sigma_data: float, t: float) -> float:
    """The angle theta of a time."""
    time = torch.tensor(t, dtype=torch.float64, device="cpu")  # whatever networks are made on
    return math.atan2(path.sigma(time).item(), path.alpha(time).clamp(min=0).item() * sigma_data)


def time_and_scale(path: ProbabilityPath, sigma_data: float, angle: Tensor) -> tuple[Tensor, Tensor]:
    """The time t and the scale rho = x / y at angles of any shape."""
    t = path.time(torch.cos(angle).clamp(min=0), sigma_data * torch.sin(angle))
    return t, torch.sqrt(path.alpha(t) ** 2 + (path.sigma(t) / sigma_data) ** 2)


def standard_normal(shape: Sequence[int], generator: torch.Generator | None, like: Tensor) -> Tensor:
    """N(0, 1) draws of a shape from the generator (None is torch's global one), with the type and device of `like`."""
    return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)


def rademacher(shape: Sequence[int], generator: torch.Generator | None, like: Tensor) -> Tensor:
    """-1 and 1 with equal odds, for Hutchinson's estimate, of which Gaussian draws have the larger variance."""
    return torch.randint(0, 2, shape, generator=generator, device=like.device).to(like.dtype) * 2 - 1


def exact_divergence(field: Field, angle: float | Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The field [B, A] and its divergence [B]: A reverse passes over one forward, rows being independent."""
    value, vjp = torch.func.vjp(lambda point: field(angle, point), y)
    units = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)[:, None].expand(-1, *y.shape)
    (rows,) = torch.func.vmap(vjp)(units)  # [A, B, A]: rows[i, b] is the gradient of output i
    return value, rows.diagonal(dim1=0, dim2=2).sum(-1)


def hutchinson_divergence(field: Field, probe: Tensor) -> Callable[[float | Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The field and an unbiased estimate of its divergence, probe' J probe, with one probe [B, A] for a whole solve.

    Hutchinson 1990; a fixed probe keeps the ODE's right-hand side smooth (Grathwohl et al. 2019, section 3.1).
    """

    def estimate(angle: float | Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        value, vjp = torch.func.vjp(lambda point: field(angle, point), y)
        (product,) = vjp(probe)
        return value, (product * probe).sum(-1)

    return estimate
