"""Q-learning with adjoint matching, and its two variants (QAM; Li and Levine 2026, arXiv 2601.14234)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from genpolicy.algo.actor_critic import JointTraining
from genpolicy.algo.compatibility import require_velocity
from genpolicy.algo.distilled import OneStepSettings
from genpolicy.algo.expo import EditSettings
from genpolicy.algo.update import Metrics
from genpolicy.config.legal import legal_options
from genpolicy.config.schema import component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.critic.critic import maximised, value_and_slope
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.model.flow import standard_normal
from genpolicy.model.generative import GenerativePolicy
from genpolicy.model.path import ICFM
from genpolicy.model.policy import Policy
from genpolicy.objective.objective import Draws


@component
class QAM(JointTraining):
    """A flow whose optimum is mu(a|s) exp(beta Q(s, a)) / Z(s), without a gradient through its solver.

    The behaviour flow mu is fitted beside it. States x_i of the memoryless SDE of the policy, at N times, have lean
    adjoints g_i, which go backwards along mu from g_N = -beta grad Q; the policy's velocity is regressed on
    v_mu - sigma_i^2 g_i / 2 (Domingo-Enrich et al. 2025, algorithm 2).
    """

    uses_samples = False

    gradient_norm: float | None = setting(
        1.0, gt=0.0, le=1e30, doc="largest norm of the whole gradient; null: no clipping"
    )
    beta: float = setting(0.3, ge=0.0, le=1e6, doc="inverse temperature; 0 makes the policy the behaviour model")
    adjoint_steps: int = setting(10, ge=1, le=10**4, doc="steps N of the SDE and of the adjoint")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)

        def fits(model: Node) -> bool:
            if locate(model["_target_"]) is not GenerativePolicy:
                return False
            return locate(model["path"]["_target_"]) is ICFM and model["path"]["sigma_min"] == 0

        if not fits(config.model):
            legal = legal_options("model", having=fits)
            raise UserError(f"model: adjoint matching needs straight paths from noise to actions; legal: {legal}")
        require_velocity(config, 0.0, 1.0)

    @property
    def inverse_temperature(self) -> float | None:
        return self.beta if self.flow is self.policy else None  # what is made from the flow maximises Q from there

    @property
    def flow(self) -> Policy:
        """The flow that is matched: the policy, or what that is made from."""
        return self.policy

    def policies(self, model: Policy) -> tuple[Policy, Policy]:
        behaviour = shuffled(model)
        behaviour.keep_average()
        return model, behaviour

    def draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """What critic and behaviour model draw, and the noise [B, N, A] of the SDE, its first state first."""
        draws, shape = (
            super().draw(batch, generator, progress),
            (batch.size, self.adjoint_steps, batch.action.shape[-1]),
        )
        return draws | {"sde_noise": standard_normal(shape, generator, batch.action)}

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """The losses of critic, behaviour model and policy together, [B], and metrics."""
        total, metrics = super().loss(batch, draws)
        adjoint = self.adjoint_loss(batch.observation, draws["sde_noise"])
        return total + adjoint, metrics | {"adjoint": adjoint.detach().mean()}

    def adjoint_loss(self, observation: Tensor, noise: Tensor) -> Tensor:
        """sum_i |2 (v - v_mu) / sigma_i + sigma_i g_i|^2 [B] at the states that noise [B, N, A] leads to."""
        states, adjoints = self.adjoints(observation, noise)
        times = self.times(observation)
        sigma = self.sigma(times)[:, None]
        points, repeated = states.flatten(0, 1), observation.repeat_interleave(self.adjoint_steps, 0)
        each = times.repeat(len(observation))
        with torch.no_grad():
            base = _velocity(self.behaviour.target, points, each, repeated)
        gap = (_velocity(self.flow, points, each, repeated) - base).unflatten(0, states.shape[:2])
        return (2 / sigma * gap + sigma * adjoints).square().sum((1, 2))

    @torch.no_grad()
    def adjoints(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """States of the memoryless SDE and their lean adjoints, each [B, N, A], for noise [B, N, A]."""
        base, times, h = self.behaviour.target, self.times(observation), 1 / self.adjoint_steps
        *states, x = self.states(observation, noise)

        def value(action: Tensor) -> Tensor:
            return self.critic.q_of_target(observation, self.clip(action)).mean(0)

        adjoint, adjoints = -self.beta * value_and_slope(value, x)[1], []
        for t, state in zip(times.flip(0) + h, reversed(states), strict=True):

            def drift_of_base(point: Tensor, t: Tensor = t) -> Tensor:
                return 2 * _velocity(base, point, t, observation) - point / t

            adjoint = adjoint + h * torch.func.vjp(drift_of_base, state)[1](adjoint)[0]
            adjoints.append(adjoint)
        return torch.stack(states, 1), torch.stack(adjoints[::-1], 1)

    def states(self, observation: Tensor, noise: Tensor) -> list[Tensor]:
        """The states [B, A] of the memoryless SDE at N times and the action that follows, for noise [B, N, A]."""
        h, times = 1 / self.adjoint_steps, self.times(observation)
        sigma, states = self.sigma(times), [noise[:, 0]]
        for i, t in enumerate(times[:-1]):
            x = states[-1]
            drift = 2 * _velocity(self.flow, x, t, observation) - x / (t + h)
            states.append(x + h * drift + h**0.5 * sigma[i] * noise[:, i + 1])
        # The last step is the ODE's, of the behaviour model.
        return [*states, states[-1] + h * _velocity(self.behaviour.target, states[-1], times[-1], observation)]

    def times(self, like: Tensor) -> Tensor:
        """The times i / N [N] of the SDE's steps, from noise at 0 to actions at 1."""
        return torch.arange(self.adjoint_steps, dtype=like.dtype, device=like.device) / self.adjoint_steps

    def sigma(self, t: Tensor) -> Tensor:
        """The diffusion [N] of the memoryless SDE, a step later than at times [N], where it is finite."""
        h = 1 / self.adjoint_steps
        return (2 * (1 - t + h) / (t + h)).sqrt()


@component
class QAMF(OneStepSettings, QAM):
    """QAM-F: the policy is of one step; it maximises Q, held to QAM's flow, as FQL's to the behaviour flow."""

    uses_samples = True

    @property
    def flow(self) -> Policy:
        return self.teacher

    def policies(self, model: Policy) -> tuple[Policy, Policy]:
        self.teacher, behaviour = super().policies(model)
        return self.one_step(model), behaviour

    def trained(self) -> list[nn.Parameter]:
        return [*super().trained(), *self.flow.parameters()]

    def draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """QAM's draws, and the noise [B, 1, A] that flow and policy start from."""
        draws = super().draw(batch, generator, progress)
        return draws | {"action_noise": self.flow.draw_noise(batch.size, generator, batch.action)}

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """QAM's loss, the distillation's and minus the value, [B], and metrics."""
        total, metrics = super().loss(batch, draws)
        observation = batch.observation
        action, distance = self.distilled(self.flow, observation, draws["action_noise"])
        q = maximised(lambda action: self.critic.q(observation, action).mean(0), self.clip(action))
        metrics |= {"distance": distance.detach().mean(), "q": q.detach().mean()}
        return total + self.alpha * distance - q, metrics


@component
class QAME(EditSettings, QAM):
    """QAM-E: the actions of QAM's flow are edited, by no more than `edit_scale`, to maximise Q."""

    uses_samples = True

    @property
    def flow(self) -> Policy:
        return self.policy.flow

    def policies(self, model: Policy) -> tuple[Policy, Policy]:
        flow, behaviour = super().policies(model)
        return self.edited(flow), behaviour


def _velocity(model: Policy, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
    """The velocity [B, A] from noise to actions at times [B] or [], of a model whose own time runs the other way."""
    return -model.velocity(x, 1 - t, observation)


def shuffled(model: Policy) -> Policy:
    """A copy whose initial weights are others of the same distribution: those of each tensor in a random order."""
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        order = torch.randperm(parameter.numel(), device=parameter.device)
        parameter.data = parameter.data.flatten()[order].view_as(parameter)
    return other
