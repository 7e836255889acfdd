"""MeanFlow's objective: the identity between the mean and the instantaneous velocity."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from genpolicy.config.legal import refuse_unused
from genpolicy.config.schema import component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.errors import UserError
from genpolicy.model.consistency import EndPolicy
from genpolicy.model.flow import Capability, standard_normal
from genpolicy.model.path import ICFM
from genpolicy.model.trajectory import TrajectoryPolicy
from genpolicy.objective.objective import Draws
from genpolicy.objective.solution_map import SolutionMap, grid_time
from genpolicy.solver.jumps import Jumps

_LOGIT = ("logit_mean", "logit_std")
_Pair = tuple[Tensor, Tensor]


def _with_slopes(function: Callable[[Tensor], _Pair], t: Tensor) -> tuple[_Pair, _Pair]:
    """Two functions of each time [B] by itself, and their derivatives, [B] each.

    By reverse mode: in forward mode torch asks Python about each product with a constant, which takes longer than all
    else that a small network's update does.
    """
    values, pull_back = torch.func.vjp(function, t.expand(2, -1))
    units = torch.eye(2, dtype=t.dtype, device=t.device)[..., None].expand(2, 2, len(t))  # of each its own row
    (slopes,) = pull_back(tuple(units))
    return (values[0][0], values[1][1]), (slopes[0], slopes[1])


@component
class MeanVelocity(SolutionMap):
    """The mean velocity u(x_t, t, s) obeys u = v - (t - s) du/dt along the flow (Geng et al. 2025, eq. 6).

    The network's output F regresses on what follows for it, the derivative being taken along (x_0, z), of which the
    mean is v. On straight paths, with u for F, that is eq. 6. In general, with the data phi = skip x + out F that u
    points at, B = sigma_s / sigma_t, A = alpha_s - B alpha_t and the Wronskian D of the path, it is

        0 = B (phi - x_0) + A sigma_t / D_t dphi/dt

    whose right-hand side over `out` is the error. A sample's weight is 1 / (|error|^2 + offset)^power (section 4.3).
    """

    power: float = setting(1.0, ge=0.0, le=1.0, doc="exponent of the adaptive weight; 0: all weights are 1")
    offset: float = setting(0.01, gt=0.0, le=1e6, doc="what is added to the error in the adaptive weight")
    limit: float | None = setting(None, gt=0.0, le=1e6, doc="largest target of the network's output; null: none")

    def loss(self, policy: TrajectoryPolicy, observation: Tensor, action: Tensor, draws: Draws) -> Tensor:
        t, s, noise = draws["t"], draws["s"], draws["noise"]
        path = policy.path
        rate = path.sigma(t) / path.wronskian(t)
        velocity = path.target("velocity", action, noise, t) * rate[:, None]

        x = path.perturb(action, noise, t)
        output, d_output = torch.func.jvp(lambda x, t: policy.raw(x, t, observation, s), (x, t), (velocity, rate))
        (skip, out), (d_skip, d_out) = _with_slopes(policy.skip_and_out, t)
        phi = skip[:, None] * x + out[:, None] * output
        slope = skip[:, None] * velocity + out[:, None] * d_output
        slope = slope + rate[:, None] * (d_skip[:, None] * x + d_out[:, None] * output)
        ratio = path.sigma(s) / path.sigma(t)
        share = path.alpha(s) - ratio * path.alpha(t)
        error = (ratio[:, None] * (phi - action) + share[:, None] * slope) / out[:, None]
        target = (output - error).detach()
        target = target if self.limit is None else target.clamp(-self.limit, self.limit)
        error = self.reduce((output - target).square())
        return error / (error.detach() + self.offset) ** self.power


@component
class MeanFlow(MeanVelocity):
    """The mean velocity between two times, and for s = t the instantaneous one.

    ends: any is the paper's law, both times of one kind. data has s = t_min and t uniform up to pure noise: the
    identity relates times t of one s, so that is all that one jump takes. With the paper's law it is one of many, which
    the network hardly sees: 8 to 24 % off a Gaussian's jump after 4,000 updates, where data is 2 to 4 % off.
    """

    prediction: str = setting(
        "preconditioned",
        choices=["preconditioned", "velocity", "data"],
        doc="what the network's output is; velocity: the mean velocity u, on straight paths",
    )
    instantaneous: float = setting(0.75, ge=0.0, lt=1.0, doc="share of samples with s = t")
    ends: str = setting("any", choices=["any", "data"], doc="where the other velocities end, s")
    times: str = setting(
        "uniform", choices=["uniform", "logit_normal"], doc="law of two times for any ends, of which t is the larger"
    )
    logit_mean: float = setting(-0.4, ge=-10.0, le=10.0, doc="logit_normal: mean of ln t / (1 - t)")
    logit_std: float = setting(1.0, gt=0.0, le=10.0, doc="logit_normal: its standard deviation")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """A mean velocity is learned on straight paths; where velocities end at the data, so must jumps.

        Settings of other laws of times are refused, and none at which the field is learned.
        """
        super().check_compatibility(config)

        def fits(model: Mapping) -> bool:
            return "path" in model and issubclass(locate(model["path"]["_target_"]), ICFM)

        if config.objective.prediction == "velocity" and not fits(config.model):
            raise UserError(
                "objective: mean velocities are learned on straight paths, from noise at t = 1; legal: model=meanflow"
            )
        if config.objective.ends == "data":
            if config.objective.instantaneous == 0:
                raise UserError(
                    "objective.instantaneous=0.0: with objective.ends=data the field that densities follow from is not "
                    "learned; legal: above 0, objective.ends=any, or objective=meanflow_action"
                )
            refuse_unused(config, "objective", ("times", *_LOGIT), "with objective.ends=data times are uniform")
        elif config.objective.times == "uniform":
            refuse_unused(config, "objective", _LOGIT, "with objective.times=uniform there is no normal law")
        jumps = config.solver.steps if issubclass(locate(config.solver._target_), Jumps) else 1
        if config.objective.ends == "data" and jumps > 1:
            raise UserError(
                f"solver.steps={jumps}: jumps to times in between are not learned; legal: solver.steps=1, "
                "solver=one_jump, or objective.ends=any"
            )

    def draw_times(
        self, policy: TrajectoryPolicy, action: Tensor, generator: torch.Generator, progress: float
    ) -> Draws:
        """Times t >= s [B], t > t_min."""
        kind, *pair = 1 - torch.rand(3, len(action), generator=generator, device=action.device, dtype=action.dtype)
        instantaneous = kind <= self.instantaneous
        if self.ends == "data":
            later = pair[0]
            earlier = torch.where(instantaneous, later, 0.0)
        else:
            if self.times == "logit_normal":
                normal = standard_normal((2, len(action)), generator, action)
                pair = torch.sigmoid(self.logit_mean + self.logit_std * normal)
            later, earlier = torch.maximum(*pair), torch.minimum(*pair)
            earlier = torch.where(instantaneous, later, earlier)
        return {"t": grid_time(policy, later, 1), "s": grid_time(policy, earlier, 1)}


@component
class MeanFlowToData(MeanVelocity):
    """The mean velocity between any time and the data end, and no other (MeanFlowQL, arXiv 2511.13035)."""

    teaches = frozenset({Capability.END, Capability.MEAN_VELOCITY})

    intervals: int | None = setting(
        None, ge=1, le=2**20, doc="number of times, evenly spaced up to noise; null: any, as theirs for more than 1,000"
    )

    def draw_times(self, policy: EndPolicy, action: Tensor, generator: torch.Generator, progress: float) -> Draws:
        """Times t > t_min [B], and s = t_min [B]."""
        unit = 1 - torch.rand(len(action), generator=generator, device=action.device, dtype=action.dtype)
        if self.intervals is not None:
            unit = (unit * self.intervals).ceil() / self.intervals
        return {"t": grid_time(policy, unit, 1), "s": grid_time(policy, torch.zeros_like(unit), 1)}
