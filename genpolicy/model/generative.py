"""A generative policy pi(a|s): a network's prediction on a probability path, sampled and scored by ODE solvers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import InitVar
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from genpolicy.config.legal import legal_options
from genpolicy.config.schema import EVALUATION, TARGET, TRAINING, build, component, locate, nested, setting
from genpolicy.config.validation import Node
from genpolicy.errors import UserError
from genpolicy.model.flow import (
    Capability,
    Coefficients,
    ProbabilityFlow,
    angle_of,
    exact_divergence,
    hutchinson_divergence,
    rademacher,
    standard_normal,
    time_and_scale,
)
from genpolicy.model.path import ProbabilityPath
from genpolicy.model.policy import Policy
from genpolicy.system.console import remark

if TYPE_CHECKING:
    from genpolicy.solver.solver import ODESolver, Solver, StateField

EXACT_UP_TO = 16  # action dimensions up to which `divergence: auto` is exact
_TAUGHT = {
    Capability.FIELD: "a flow's field",
    Capability.MAP: "a solution map",
    Capability.END: "a map to the data end",
}


@component
class GenerativePolicy(Policy):
    """pi(a|s) as the time-0 marginal of the flow of a learned velocity, score, noise or data prediction.

    Time t in [0, 1] runs from data to noise. Shapes: x, action [B, A]; t [B] or []; observation [B, O].

    has_density: whether the field has been learned that log-densities follow from. bounds: the ends [A] of the action
    space, None if it is not known.
    """

    supports = frozenset({Capability.FIELD})

    path: ProbabilityPath = nested(doc="probability path between actions and noise")
    sigma_data: float = setting(0.5, gt=0.0, le=1e6, doc="scale of the actions, for the solvers' coordinates and EDM")
    divergence: str = setting(
        "auto",
        choices=["auto", "exact", "hutchinson"],
        doc=f"auto is exact up to {EXACT_UP_TO} action dimensions",
        affects=lambda config: TRAINING if locate(config["algo"][TARGET]).uses_density else EVALUATION,
    )
    clip_denoised: bool = setting(
        False, doc="clip predictions of the data to the action space, in losses of these and in samplers that use them"
    )
    prediction: InitVar[str]
    solver: InitVar[Solver]
    likelihood: InitVar[ODESolver]
    has_density: InitVar[bool] = True
    bounds: InitVar[tuple[Tensor, Tensor] | None] = None

    def __post_init__(
        self,
        network: nn.Module,
        prediction: str,
        solver: Solver,
        likelihood: ODESolver,
        has_density: bool,
        bounds: tuple[Tensor, Tensor] | None,
    ) -> None:
        super().__post_init__(network)
        low, high = (None, None) if bounds is None else bounds
        self.register_buffer("lowest", low, persistent=False)
        self.register_buffer("highest", high, persistent=False)
        self.has_density = has_density
        self.solver, self.likelihood = solver, likelihood
        self.prediction = self.path.auto_prediction if prediction == "auto" else prediction
        # Noise and score predictions do not determine the data where alpha = 0.
        self.t_max = self.path.t_max_noise if self.prediction in ("noise", "score") else self.path.t_max
        self._kept: dict = {}  # what depends on times alone
        self._ends = tuple(angle_of(self.path, self.sigma_data, t) for t in (self.path.t_min, self.t_max))

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and saved: what was kept inside a transform of torch.func could not be, and is made anew."""
        return vars(self) | {"_kept": {}}

    @classmethod
    def parts(cls, config: DictConfig, action_low: Tensor, action_high: Tensor) -> dict[str, Any]:
        objective, path = locate(config.objective._target_), locate(config.model.path._target_)
        if path.discrete and locate(config.solver._target_).takes_levels:
            steps, levels = config.solver.steps, config.model.path.steps
            if steps != levels:
                remark(f"solver.steps={steps}: actions are sampled by other steps than the model's {levels} levels")
        return {
            "prediction": build(config.objective).prediction,
            "solver": build(config.solver),
            "likelihood": build(config.likelihood),
            "has_density": Capability.FIELD in objective.teaches and not path.discrete,
            "bounds": (action_low, action_high),
        }

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """A solver uses what the objective learns; a log-likelihood is an ordinary differential equation's."""
        super().check_compatibility(config)
        requires = locate(config.solver._target_).requires
        teaches = locate(config.objective._target_).teaches
        if requires not in teaches:
            solvers = legal_options("solver", lambda solver: solver.requires in teaches)
            objectives = legal_options("objective", lambda objective: requires in objective.teaches)
            models = legal_options("model", lambda model: requires in model.supports)
            raise UserError(
                f"solver: uses {_TAUGHT[requires]}, which this objective does not teach; legal: {solvers}, "
                f"or {objectives}" + ("" if requires in cls.supports else f" with {models}")
            )

        if locate(config.solver._target_).takes_score and locate(config.model.path._target_).couples:
            fitting = legal_options("solver", lambda solver: solver.requires in teaches and not solver.takes_score)
            raise UserError(
                "solver: adds noise along the score, which does not follow from a model that pairs actions with noise; "
                f"legal: {fitting}"
            )
        discrete, t_min = locate(config.model.path._target_).discrete, config.model.path.t_min
        solved = not discrete or locate(config.solver._target_).has_density  # as an ODE, up to t_min
        if Capability.FIELD in teaches and solved and not field_follows(config, t_min):
            raise UserError(
                f"model.path.t_min={t_min:g}: there is no noise then, where {config.objective.prediction} predictions "
                "do not say how the flow goes on; legal: above 0, or objective.prediction=preconditioned"
            )

        def has_density(solver: type) -> bool:
            return solver.has_density

        if not has_density(locate(config.likelihood._target_)):
            legal = legal_options("likelihood", has_density)
            raise UserError(f"likelihood: needs an ODE solver; legal: {legal} (the others only sample)")

        def continuous(model: Mapping) -> bool:
            fits = Capability.FIELD in locate(model[TARGET]).supports
            return fits and not locate(model["path"][TARGET]).discrete

        if locate(config.algo._target_).uses_density and not continuous(config.model):
            legal = legal_options("model", having=continuous)
            raise UserError(f"model: this algorithm takes log-densities, of which this model has none; legal: {legal}")

    @property
    def couples(self) -> bool:
        return self.path.couples

    # Predictions, each exactly convertible into the others.

    def raw(self, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        """The network's own output [B, A], of the kind `prediction` says."""
        return self._evaluate(self._scaled(x, t), t, observation)

    def _scaled(self, x: Tensor, t: Tensor) -> Tensor:
        """What the network is given of x [B, A] at t, [B] or []."""
        return self.input_scale(t)[..., None] * x if self.prediction == "preconditioned" else x

    def _evaluate(self, scaled: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        return self.network(scaled, self.network_time(t).expand(scaled.shape[:-1]), observation)

    def network_time(self, t: Tensor) -> Tensor:
        """What the network is told of times [...]."""
        return self.path.network_time(t)

    def data_and_noise(self, x: Tensor, t: Tensor, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions (E[x_0 | x_t], E[eps | x_t]), each [B, A]."""
        return self._implied(self.raw(x, t, observation), x, t)

    def _implied(self, output: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The same [..., A] that the network's output [..., A] at x [..., A] and t [...] says."""
        if self.prediction != "preconditioned":
            return self.path.data_and_noise(self.prediction, output, x, t)
        skip, out = self.preconditioning(t)
        # (x - alpha data) / sigma, but finite where there is no noise
        of_x = self.path.sigma(t) / self.variance(t)
        of_output = self.path.alpha(t) * self.sigma_data * torch.rsqrt(self.variance(t))
        noise = of_x[..., None] * x - of_output[..., None] * output
        return skip[..., None] * x + out[..., None] * output, noise

    def predict(self, prediction: str, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        """The velocity, score, noise or data prediction [B, A]; the last clipped if `clip_denoised`."""
        if prediction == self.prediction:
            value = self.raw(x, t, observation)
        else:
            value = self.path.target(prediction, *self.data_and_noise(x, t, observation), t)
        return self.clip(value) if prediction == "data" else value

    def velocity(self, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        """The marginal velocity dx/dt [B, A]."""
        return self.predict("velocity", x, t, observation)

    def score(self, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        """grad_x log p_t(x|s) [B, A]; exact only for a velocity that is the marginal one of its own samples."""
        return self.predict("score", x, t, observation)

    def noise(self, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        """E[eps | x_t] [B, A]."""
        return self.predict("noise", x, t, observation)

    def data(self, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        """E[x_0 | x_t] [B, A], the denoiser; clipped if `clip_denoised`."""
        return self.predict("data", x, t, observation)

    def clip(self, data: Tensor) -> Tensor:
        """Data predictions [..., A], clipped to the action space if `clip_denoised`."""
        return self.bound(data) if self.clip_denoised else data

    def bound(self, action: Tensor) -> Tensor:
        """Actions [..., A], clipped to the action space if that is known."""
        return action if self.lowest is None else action.clamp(self.lowest, self.highest)

    def preconditioning(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(c_skip, c_out) of data = c_skip x + c_out F (Karras et al. 2022, table 1, carried over to any path)."""
        alpha, sigma, variance = self.path.alpha(t), self.path.sigma(t), self.variance(t)
        return alpha * self.sigma_data**2 / variance, sigma * self.sigma_data * torch.rsqrt(variance)

    def input_scale(self, t: Tensor) -> Tensor:
        """What x is multiplied by for the network, [B] at t [B]."""
        if self.prediction != "preconditioned":
            return torch.ones_like(t)
        return torch.rsqrt(self.variance(t))

    def variance(self, t: Tensor) -> Tensor:
        """The variance of x_t for data of scale sigma_data."""
        return (self.path.alpha(t) * self.sigma_data) ** 2 + self.path.sigma(t) ** 2

    # Samples and densities.

    def flow(self, observation: Tensor) -> ProbabilityFlow:
        """The probability flow given observations [B, O]."""
        return ProbabilityFlow(
            path=self.path,
            at=self._at,
            network=lambda x, t: self._evaluate(x, t, observation),
            sigma_data=self.sigma_data,
            start=self._ends[0],
            end=self._ends[1],
            t_max=self.t_max,
            velocity=lambda x, t: self.velocity(x, t, observation),
            parameters=(*self.network.parameters(), observation),
            clip=self.clip,
            bound=self.bound,
        )

    def _at(self, angle: float | Tensor, like: Tensor) -> Coefficients:
        """The model's coefficients at an angle of the flow: kept if that is a number, differentiable if not."""
        if torch.is_tensor(angle):
            return self._coefficients(angle)
        if (key := (angle, like.dtype, like.device)) not in self._kept:
            time, *numbers = self._coefficients(torch.tensor(angle, dtype=torch.float64))
            self._kept[key] = Coefficients(time.to(like), *(number.item() for number in numbers))
        return self._kept[key]

    def _coefficients(self, angle: Tensor) -> Coefficients:
        t, rho = time_and_scale(self.path, self.sigma_data, angle)
        zero, one = torch.zeros_like(t)[..., None], torch.ones_like(t)[..., None]
        data_x, noise_x = self._implied(zero, one, t)
        data_f, noise_f = self._implied(one, zero, t)
        data_y, data_f, noise_y, noise_f = rho * data_x[..., 0], data_f[..., 0], rho * noise_x[..., 0], noise_f[..., 0]
        sine, cosine = torch.sin(angle), self.sigma_data * torch.cos(angle)
        field_y, field_f = cosine * noise_y - sine * data_y, cosine * noise_f - sine * data_f
        return Coefficients(t, self.input_scale(t) * rho, data_y, data_f, field_y, field_f)

    @property
    def num_noises(self) -> int:
        return 1 + self.solver.num_noises

    def actions(self, noise: Tensor, observation: Tensor) -> Tensor:
        """By the sampling solver, which may take noise on its way."""
        flow = self.flow(observation)
        return flow.y_to_data(self.solver.sample(flow, flow.noise_to_y(noise[:, 0]), noise[:, 1:]))

    def log_prob(
        self,
        observation: Tensor,
        action: Tensor,
        generator: torch.Generator | None = None,
        solver: ODESolver | None = None,
        probe: Tensor | None = None,
        estimated: bool = False,
    ) -> Tensor:
        """log pi(a|s) [B] in nats, by the instantaneous change of variables (Chen et al. 2018, theorem 1).

        solver: the likelihood solver unless given. probe [B, A]: Hutchinson's, Rademacher draws from the generator
        unless given. estimated: whether the divergence is Hutchinson's even where `divergence` asks for the exact one.
        Differentiable with respect to action, observation and parameters.
        """
        flow = self.flow(observation)
        field = self._field_with_divergence(flow, action, generator, probe, estimated)
        state = (flow.data_to_y(action), torch.zeros_like(action[..., 0]))
        y, divergence = (solver or self.likelihood).integrate(field, state, flow.start, flow.end, flow.parameters)
        return flow.end_log_prob(y) + divergence + self._log_volume

    def coarser_likelihoods(self) -> dict[str, dict[str, Any]]:
        halved, differs = self.likelihood.with_half_the_steps(), self.exact and self.action_size > 1
        coarser = {} if halved is None else {"halved": {"solver": halved}}
        return coarser | ({"hutchinson": {"estimated": True}} if differs else {})

    def log_prob_and_gradient(
        self, observation: Tensor, action: Tensor, solver: ODESolver | None = None, probe: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """log pi(a|s) [B] as `log_prob` has it, and its gradient [B, A] with respect to the action; both detached.

        With a Runge-Kutta solver the memory does not grow with the number of steps.
        """
        flow = self.flow(observation)
        field = self._field_with_divergence(flow, action, None, probe)
        value, gradient = (solver or self.likelihood).value_and_gradient(
            flow.field, field, flow.data_to_y(action), flow.start, flow.end, flow.end_log_prob
        )
        return value + self._log_volume, flow.data_to_y(gradient)

    def sample_with_log_prob(
        self,
        observation: Tensor,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
        probe: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Actions [B, A] and their log-densities [B] from one solve of the sampling solver (which must be an ODE's)."""
        if noise is None:
            noise = standard_normal((len(observation), self.action_size), generator, observation)
        flow = self.flow(observation)
        end = flow.noise_to_y(noise)
        field = self._field_with_divergence(flow, noise, generator, probe)
        state = (end, torch.zeros_like(noise[..., 0]))
        y, divergence = self.solver.integrate(field, state, flow.end, flow.start, flow.parameters)
        return flow.y_to_data(y), flow.end_log_prob(end) - divergence + self._log_volume

    @property
    def _log_volume(self) -> float:
        """log |dy / da| at the data end."""
        return self.action_size * math.log(math.cos(self._ends[0]))

    def trajectory(self, observation: Tensor, noise: Tensor, points: int) -> tuple[Tensor, Tensor]:
        """The paths from noise [B, A] to actions: times [points] from noise to data, and x there, [points, B, A].

        Solved by the likelihood solver, a step between two points if it has no more; the last point is x at t_min.
        """
        flow = self.flow(observation)
        angles = torch.linspace(flow.end, flow.start, points, dtype=torch.float64).to(noise)
        state = (flow.noise_to_y(noise),)
        trajectory, solver = [state[0]], self.likelihood.for_each_of(points - 1)
        for begin, end in itertools.pairwise(angles.tolist()):
            state = solver.integrate(lambda angle, y: (flow.field(angle, y[0]),), state, begin, end)
            trajectory.append(state[0])
        times, rho = time_and_scale(self.path, self.sigma_data, angles)
        return times, rho[:, None, None] * torch.stack(trajectory)

    @property
    def exact(self) -> bool:
        """Whether log-densities use the exact divergence rather than Hutchinson's estimate."""
        return self.divergence == "exact" or (self.divergence == "auto" and self.action_size <= EXACT_UP_TO)

    def _field_with_divergence(
        self,
        flow: ProbabilityFlow,
        like: Tensor,
        generator: torch.Generator | None,
        probe: Tensor | None,
        estimated: bool = False,
    ) -> StateField:
        if self.exact and probe is None and not estimated:
            return lambda angle, state: exact_divergence(flow.field, angle, state[0])
        probe = rademacher(like.shape, generator, like) if probe is None else probe
        estimate = hutchinson_divergence(flow.field, probe)
        return lambda angle, state: estimate(angle, state[0])


def field_follows(config: Node, *times: float) -> bool:
    """Whether the field of a configured flow follows from what its network predicts, at all of some times."""
    path, prediction = build(config.model.path), predicted(config)
    if prediction == "preconditioned":
        return True
    t, ones = torch.tensor(times, dtype=torch.float64), torch.ones(len(times), 1, dtype=torch.float64)
    return all(part.isfinite().all() for part in path.data_and_noise(prediction, ones, ones, t))


def predicted(config: Node) -> str:
    """What the network of a configured flow predicts."""
    prediction = build(config.objective).prediction
    return build(config.model.path).auto_prediction if prediction == "auto" else prediction
