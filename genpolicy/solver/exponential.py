"""Exponential integrators: the linear part of the (stochastic) differential equation is solved exactly.

In units of the signal, z = x / alpha with noise-to-signal ratio r = sigma / alpha, a step from r to r' < r is
z' = q z + (1 - q) D with q = r'/r for the ODE and q = (r'/r)^2 for the reverse SDE, D the data prediction. In the
flow's coordinates z = y / cos(theta), r = sigma_data tan(theta), and a step from r = infinity is regular.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from genpolicy.config.schema import component, setting
from genpolicy.model.flow import ProbabilityFlow, angle_of, time_and_scale
from genpolicy.solver.solver import FixedGrid, Solver

# Noise-to-signal ratios between which the steps are spread; the first and the last step reach the ends beyond.
LOWEST_RATIO, HIGHEST_RATIO = 1e-3, 80.0


@component
class DPMSolver(Solver):
    """DPM-Solver++ 2M (Lu et al. 2022, algorithm 2): second-order multistep for the ODE in log(alpha / sigma)."""

    steps: int = setting(
        8, ge=1, le=10**5, doc="number of steps, one evaluation each; uniform in log signal-to-noise ratio"
    )

    def sample(self, flow: ProbabilityFlow, y: Tensor, noise: Tensor) -> Tensor:
        angles = self._angles(flow)
        previous = last_width = None
        for angle, following in itertools.pairwise(angles):
            data = flow.data(angle, y)
            width = _log_ratio(angle) - _log_ratio(following)  # > 0, infinite for a start at pure noise
            estimate = data
            if previous is not None and math.isfinite(last_width) and math.isfinite(width):
                half = 0.5 * width / last_width
                estimate = (1 + half) * data - half * previous
            keep = math.cos(following) * math.tan(following) / math.sin(angle)
            y = keep * y + math.cos(following) * -math.expm1(-width) * estimate
            previous, last_width = data, width
        return y

    def _angles(self, flow: ProbabilityFlow) -> list[float]:
        low = max(_log_ratio(flow.start), math.log(LOWEST_RATIO / flow.sigma_data))
        high = min(_log_ratio(flow.end), math.log(HIGHEST_RATIO / flow.sigma_data))
        inner = [math.atan(math.exp(high + (low - high) * i / self.steps)) for i in range(1, self.steps)]
        return [flow.end, *inner, flow.start]


@component
class SinglestepDPM(Solver):
    """DPM-Solver (Lu et al. 2022, algorithms 1 and 2) and DPM-Solver++ by single steps, at evenly spaced times.

    With u the log of the signal-to-noise ratio and v = x / sigma for predictions f of the data, or with their negative
    and x / alpha for predictions of the noise, dv/du = e^u f. Steps of lower orders end it, as their code has them.
    """

    steps: int = setting(15, ge=1, le=10**5, doc="number of evaluations")
    order: int = setting(2, ge=1, le=3, doc="evaluations a step, and its order")
    prediction: str = setting(
        "data", choices=["data", "noise"], doc="prediction that is interpolated between the steps"
    )

    def sample(self, flow: ProbabilityFlow, y: Tensor, noise: Tensor) -> Tensor:
        first, last = flow.t_max, flow.path.t_min
        times = (first + (last - first) * i / self.steps for i in range(self.steps + 1))
        # From more noise on, steps of a high order in predictions of the noise would be unstable: VPSDE ends at 152.
        low, high = (math.atan(ratio / flow.sigma_data) for ratio in (LOWEST_RATIO, 2 * HIGHEST_RATIO))
        limited = (min(max(angle_of(flow.path, flow.sigma_data, t), low), high) for t in times)
        angles = [*dict.fromkeys(limited)]  # of those beyond an end, one
        data = self.prediction == "data"
        places = [-_log_ratio(angle) if data else _log_ratio(angle) for angle in angles]
        scales = [math.sin(angle) if data else math.cos(angle) for angle in angles]  # y = scale v
        value, i = y / scales[0], 0

        def slope(value: Tensor, i: int) -> Tensor:
            y, angle = scales[i] * value, angles[i]
            predicted = flow.data(angle, y)
            return predicted if data else (y - math.cos(angle) * predicted) / math.sin(angle)

        for order in self._orders(len(angles) - 1):
            u, width = places[i], places[i + order] - places[i]
            part = [(places[i + j] - u) / width for j in range(order)]  # of the step, where slopes are taken
            start = slope(value, i)
            change = math.exp(u) * math.expm1(width) * start
            if order > 1:
                inner = math.exp(u) * math.expm1(part[1] * width)
                second = slope(value + inner * start, i + 1) - start
            if order == 2:
                change = change + 0.5 / part[1] * math.exp(u) * math.expm1(width) * second
            if order == 3:
                inner = math.exp(u) * math.expm1(part[2] * width) * start
                inner = inner + part[2] / part[1] * math.exp(u) * _linear(part[2] * width) * second
                third = slope(value + inner, i + 2) - start
                change = change + math.exp(u) * _linear(width) / part[2] * third
            value, i = value + change, i + order
        return scales[-1] * value

    def _orders(self, evaluations: int) -> list[int]:
        """Of the steps: as many of the highest order as leave at least one of a lower one."""
        whole, rest = divmod(evaluations, self.order)
        if self.order == 1 or whole == 0:
            return [1] * evaluations
        if rest:
            return [self.order] * whole + [rest]
        return [self.order] * (whole - 1) + ([2, 1] if self.order == 3 else [1, 1])


def _linear(width: float) -> float:
    """The integral of e^s s / width over s in [0, width]."""
    return math.exp(width) - math.expm1(width) / width


def _log_ratio(angle: float) -> float:
    """ln tan(angle), infinite at 0 and pi/2."""
    if angle <= 0:
        return -math.inf
    return math.inf if angle >= math.pi / 2 - 1e-12 else math.log(math.tan(angle))


class ReverseSDE(FixedGrid, Solver):
    """The reverse-time SDE by Euler-Maruyama in its exponential form (SDE-DPM-Solver-1, Lu et al. 2022).

    The linear drift and its noise are integrated exactly, so the scheme is stable with any number of steps where the
    plain one needs steps below sigma^2 / g^2, and it agrees with it in the limit of small ones.
    """

    takes_score = True

    @property
    def num_noises(self) -> int:
        return self.steps

    def sample(self, flow: ProbabilityFlow, y: Tensor, noise: Tensor) -> Tensor:
        angles = self.grid(flow.end, flow.start)
        for i, (angle, following) in enumerate(itertools.pairwise(angles)):
            y = _reverse_step(flow, angle, following, y, noise[:, i])
        return y


def _reverse_step(flow: ProbabilityFlow, angle: float, following: float, y: Tensor, noise: Tensor) -> Tensor:
    """The posterior's draw at the following angle, given y and the data prediction at this one."""
    ratio = math.tan(following) / math.tan(angle)
    keep = math.cos(following) * math.tan(following) * ratio / math.sin(angle)
    mean = keep * y + math.cos(following) * (1 - ratio**2) * flow.data(angle, y)
    return mean + _spread(flow, angle, following) * noise


def _spread(flow: ProbabilityFlow, angle: float, following: float) -> float:
    """The standard deviation of the posterior's draw."""
    ratio = math.tan(following) / math.tan(angle)
    return flow.sigma_data * math.sin(following) * math.sqrt(1 - ratio**2)


@component
class Ancestral(Solver):
    """Ancestral sampling (Ho et al. 2020, algorithm 2) at evenly spaced times.

    It starts from N(0, I), as if no signal were left, and ends with a prediction of the data.
    """

    takes_levels = True
    takes_score = True

    steps: int = setting(5, ge=1, le=10**5, doc="number of steps, one evaluation each; levels T of a DDPM path")
    variance: str = setting(
        "posterior",
        choices=["posterior", "forward"],
        doc="noise of a step: sigma_{t-1}^2 or sigma_t^2 times what the step forgets; forward is DDPM's beta_t",
    )
    mean: str = setting(
        "posterior",
        choices=["posterior", "data"],
        doc="what noise is added to at each step: the posterior's mean, or the data predicted, as in QAM's code of QSM",
    )
    clip_samples: bool = setting(False, doc="clip the result of each step to the action space, as in IDQL's code")

    def __post_init__(self) -> None:
        self._kept = None  # of the last flow: what depends on its times alone

    @property
    def num_noises(self) -> int:
        return self.steps - 1  # none at the last step

    def _levels(self, flow: ProbabilityFlow) -> tuple[list[float], list[float]]:
        """The angles of the times, and the scales x / y there."""
        path, numbers = flow.path, (flow.sigma_data, flow.t_max)
        if self._kept is None or self._kept[0] is not path or self._kept[1] != numbers:
            levels = (flow.t_max * k / self.steps for k in range(self.steps, 0, -1))
            angles = [angle_of(path, flow.sigma_data, t) for t in levels]
            exact = torch.tensor(angles, dtype=torch.float64, device="cpu")
            scales = time_and_scale(path, flow.sigma_data, exact)[1].tolist()
            self._kept = path, numbers, angles, scales
        return self._kept[2], self._kept[3]

    def sample(self, flow: ProbabilityFlow, y: Tensor, noise: Tensor) -> Tensor:
        angles, scales = self._levels(flow)
        y = y * math.hypot(1.0, 1 / (flow.sigma_data * math.tan(angles[0])))  # from N(0, sigma^2) to N(0, 1), if VP
        sigmas = [scale * math.sin(angle) for scale, angle in zip(scales, angles, strict=True)]
        for i, (angle, following) in enumerate(itertools.pairwise(angles)):
            size = 1.0 if self.variance == "posterior" else sigmas[i] / sigmas[i + 1]
            drawn = size * noise[:, i]
            if self.mean == "posterior":
                y = _reverse_step(flow, angle, following, y, drawn)
            else:
                y = flow.data(angle, y) / scales[i + 1] + _spread(flow, angle, following) * drawn
            if self.clip_samples:
                y = flow.bound(scales[i + 1] * y) / scales[i + 1]
        data = flow.data(angles[-1], y)
        return flow.data_to_y(flow.bound(data) if self.clip_samples else data)
