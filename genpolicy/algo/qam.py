"""Q-learning with adjoint matching, and its two variants (QAM; Li and Levine 2026, arXiv 2601.14234)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from genpolicy.algo.actor_critic import PolicyEvaluation, require_one_rate
from genpolicy.algo.algorithm import Phase, require_flow
from genpolicy.algo.distilled import OneStepSettings, PerceptronSettings, network_beside
from genpolicy.algo.entropy import entropy_loss
from genpolicy.algo.update import Metrics, Update
from genpolicy.config.legal import legal_options
from genpolicy.config.schema import component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.critic.critic import climbed, value_and_slope
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.model.edited import EditedPolicy
from genpolicy.model.flow import standard_normal
from genpolicy.model.generative import GenerativePolicy
from genpolicy.model.path import ICFM
from genpolicy.model.policy import Policy
from genpolicy.objective.objective import Draws


@component
class QAM(PolicyEvaluation):
    """A flow whose optimum is mu(a|s) exp(beta Q(s, a)) / Z(s), without a gradient through its solver.

    The behaviour flow mu is fitted beside it. States x_i of the memoryless SDE of the policy, at N times, have lean
    adjoints g_i, which go backwards along mu from g_N = -beta grad Q; the policy's velocity is regressed on
    v_mu - sigma_i^2 g_i / 2 (Domingo-Enrich et al. 2025, algorithm 2).

    As in the authors' code, which has one optimiser, everything steps together, the moving averages first.
    """

    uses_samples = False

    steps: int = setting(20_000, ge=1, le=10**9, doc="updates of critic, behaviour model and policy")
    batch_size: int = setting(256, ge=1, le=2**20, doc="transitions an update")
    lr: float = setting(3e-4, gt=0.0, le=1e30, doc="Adam's learning rate; that of the critic must be the same")
    gradient_norm: float | None = setting(
        1.0, gt=0.0, le=1e30, doc="largest norm of the whole gradient; null: no clipping"
    )
    beta: float = setting(0.3, ge=0.0, le=1e6, doc="inverse temperature; 0 makes the policy the behaviour model")
    adjoint_steps: int = setting(10, ge=1, le=10**4, doc="steps N of the SDE and of the adjoint")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)
        require_flow(config)

        def fits(model: Node) -> bool:
            return locate(model["_target_"]) is GenerativePolicy and locate(model["path"]["_target_"]) is ICFM

        if not fits(config.model):
            legal = legal_options("model", having=fits)
            raise UserError(f"model: adjoint matching needs straight paths from noise to actions; legal: {legal}")
        require_one_rate(config)

    @property
    def inverse_temperature(self) -> float | None:
        return self.beta

    @property
    def flow(self) -> Policy:
        """The flow that is matched: the policy, or what that is made from."""
        return self.policy

    def policies(self, model: Policy) -> tuple[Policy, Policy]:
        behaviour = shuffled(model)
        behaviour.keep_average()
        return model, behaviour

    def plan(self) -> list[Phase]:
        more = {"before": self.update_targets, "clip": self.gradient_norm}
        update = Update(self.trained(), self.lr, self.loss, self.draw, **more)
        return [self.training_phase(self.steps, self.batch_size, {"": update})]

    def trained(self) -> list[nn.Parameter]:
        """The parameters of all that steps together."""
        return [*self.critic.parameters(), *self.behaviour.parameters(), *self.policy.parameters()]

    def update_targets(self) -> None:
        """One step of the moving averages of the critic and of the behaviour model."""
        self.critic.update_target()
        self.behaviour.update_target()

    def draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """What the critic and the flow's objective draw, and the noise [B, N, A] of the SDE, its first state first."""
        next_action = self.draw_next_action(batch, generator, progress)
        matching = self.objective.draw(self.behaviour, batch.observation, batch.action, generator, progress)
        shape = batch.size, self.adjoint_steps, batch.action.shape[-1]
        return {"sde_noise": standard_normal(shape, generator, batch.action), **next_action, **matching}

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """The losses of critic, behaviour model and policy together, [B], and metrics."""
        total, metrics = self.critic_loss(batch, draws)
        matching = self.objective.loss(self.behaviour, batch.observation, batch.action, draws)
        adjoint = self.adjoint_loss(batch.observation, draws["sde_noise"])
        terms = {"matching": matching, "adjoint": adjoint}
        metrics |= {name: term.detach().mean() for name, term in terms.items()}
        return total + matching + adjoint, metrics

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
    """QAM-F: the policy is of one step; it climbs Q while it is held to QAM's flow, as FQL's to the behaviour flow."""

    uses_samples = True

    @property
    def inverse_temperature(self) -> None:
        return None

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
        q = climbed(lambda action: self.critic.q(observation, action).mean(0), self.clip(action))
        metrics |= {"distance": distance.detach().mean(), "q": q.detach().mean()}
        return total + self.alpha * distance - q, metrics


@component
class QAME(PerceptronSettings, QAM):
    """QAM-E: the actions of QAM's flow are edited, by no more than `edit_scale`, to climb Q.

    The edits have a tanh-Gaussian policy, whose entropy is held at `edit_entropy` by a temperature that is learned with
    all else (soft actor-critic, Haarnoja et al. 2018).
    """

    uses_samples = True

    edit_scale: float = setting(0.1, ge=0.0, le=1e6, doc="largest distance of an edit in each dimension of actions")
    edit_entropy: float = setting(-0.5, ge=-100.0, le=100.0, doc="entropy of edits in nats, per dimension")

    @property
    def inverse_temperature(self) -> None:
        return None

    @property
    def flow(self) -> Policy:
        return self.policy.flow

    def policies(self, model: Policy) -> tuple[Policy, Policy]:
        flow, behaviour = super().policies(model)
        self.log_temperature = nn.Parameter(torch.zeros(1))
        network = network_beside(model, heads=2, **self.shape)
        bounds = {"action_low": self.action_low, "action_high": self.action_high}
        return EditedPolicy(network=network, flow=flow, scale=self.edit_scale, squash=False, **bounds), behaviour

    def trained(self) -> list[nn.Parameter]:
        return [*super().trained(), self.log_temperature]

    def draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """QAM's draws, and the noise of the policy's actions, the edits' last."""
        draws = super().draw(batch, generator, progress)
        return draws | {"action_noise": self.policy.draw_noise(batch.size, generator, batch.action)}

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """QAM's loss and the edits', [B], and metrics."""
        total, metrics = super().loss(batch, draws)
        observation, noise = batch.observation, draws["action_noise"]
        with torch.no_grad():
            base = self.policy.base(noise, observation)
        edit, log_prob = self.policy.edit(base, noise, observation)
        action = self.clip(base + self.edit_scale * edit)
        q = climbed(lambda action: self.critic.q(observation, action).mean(0), action)
        entropy, own = entropy_loss(self.log_temperature, log_prob, self.edit_entropy * base.shape[-1])
        return total + entropy - q, metrics | own | {"q": q.detach().mean()}


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
