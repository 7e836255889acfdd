"""Behaviour-regularised diffusion policy optimization (BDPO; Gao et al. 2025, arXiv 2502.04778)."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from genpolicy.algo.actor_critic import PolicyEvaluation
from genpolicy.algo.phase import Phase
from genpolicy.algo.settings import BehaviourSettings
from genpolicy.algo.update import Metrics, Update, critic_updates
from genpolicy.config.legal import legal_options
from genpolicy.config.schema import component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.model.ddpm import DDPM
from genpolicy.model.flow import standard_normal
from genpolicy.model.generative import GenerativePolicy
from genpolicy.model.policy import Policy
from genpolicy.objective.noise_prediction import NoisePrediction
from genpolicy.objective.objective import Draws
from genpolicy.solver.exponential import Ancestral

OWN_STEPS = ("forward", "posterior", False)  # variance, mean and clip_samples of the solver that takes them


class Step(NamedTuple):
    """A step of a chain: the mean [B, A] and the std [B, 1] of what follows, and |eps - eps_mu|^2, weighted, [B]."""

    mean: Tensor
    std: Tensor
    divergence: Tensor

    def samples(self, noise: Tensor) -> Tensor:
        """What follows [B, samples, A], for standard normal noise of that shape."""
        return self.mean[:, None] + self.std[:, None] * noise


@component
class BDPO(BehaviourSettings, PolicyEvaluation):
    """E[Q(s, x_0)] - eta sum_k KL(pi(x_{k-1} | x_k, s) || mu(x_{k-1} | x_k, s)), along the policy's whole chain.

    Its optimum has x_0 ~ mu(a|s) exp(Q(s, a) / eta) / Z(s). The steps of both chains are Gaussians of one variance, so
    that a divergence is beta_k |eps - eps_mu|^2 / (2 (1 - beta_k) sigma_k^2). V_k(s, x_k) of the critic is what is left
    of the objective from x_k on, so each step of the actor maximises one of the chain: E[V_{k-1}(s, x_{k-1})] - eta KL.

    mu is the behaviour model's moving average, which the policy begins as. It goes on being fitted when the actor is.
    What is evaluated and played is the actor's moving average.
    """

    evaluates = ("chain",)
    needs = "values of noisy actions"
    uses_samples = False
    uses_target = True
    offline_only = "as its chain is held to a behaviour model that is fitted to the data beforehand"

    steps: int = setting(20_000, ge=1, le=10**9, doc="updates of the critic after its warm-up")
    warm_up_steps: int = setting(500, ge=1, le=10**9, doc="updates of the critic before the actor's first")
    batch_size: int = setting(256, ge=1, le=2**20, doc="transitions an update")
    lr: float = setting(1e-5, gt=0.0, le=1e30, doc="Adam's learning rate of the actor")
    schedule: str = setting(
        "constant",
        choices=["constant", "cosine"],
        doc="schedule of actor and critic; cosine: each by its own updates, over those of the critic",
    )
    gradient_norm: float | None = setting(
        1.0, gt=0.0, le=1e30, doc="largest gradient norm of actor, behaviour model, Q and V each; null: no clipping"
    )
    policy_delay: int = setting(5, ge=1, le=10**6, doc="critic updates per update of actor and behaviour model")
    eta: float = setting(1.0, gt=0.0, le=1e6, doc="temperature, in units of the data set's (transformed) reward")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)

        def has_chain(model: Node) -> bool:
            plain = locate(model["_target_"]) is GenerativePolicy
            return plain and issubclass(locate(model["path"]["_target_"]), DDPM)

        if not has_chain(config.model):
            raise UserError(f"model: BDPO needs a chain of steps; legal: {legal_options('model', having=has_chain)}")

        def has_its_steps(solver: Node) -> bool:
            ancestral = locate(solver["_target_"]) is Ancestral
            return ancestral and (solver["variance"], solver["mean"], solver["clip_samples"]) == OWN_STEPS

        if not has_its_steps(config.solver):
            legal = legal_options("solver", having=has_its_steps)
            raise UserError(f"solver: BDPO's values are those of the steps of DDPM's own chain; legal: {legal}")
        if config.solver.steps != config.model.path.steps:
            raise UserError(
                f"solver.steps={config.solver.steps}: BDPO's values are those of the model.path.steps="
                f"{config.model.path.steps} steps of its chain; set both, or measure fewer steps with eval.steps"
            )

        def predicts_noise(objective: type) -> bool:
            return issubclass(objective, NoisePrediction)

        if not predicts_noise(locate(config.objective._target_)):
            legal = legal_options("objective", predicts_noise)
            raise UserError(f"objective: BDPO compares noise predictions; legal: {legal}")

    @property
    def inverse_temperature(self) -> float:
        return 1 / self.eta

    def policies(self, model: Policy) -> tuple[Policy, Policy]:
        behaviour = copy.deepcopy(model)
        for policy in (model, behaviour):
            policy.keep_average()
        self.learner = model
        return model.target, behaviour

    def plan(self) -> list[Phase]:
        behaviour = self.behaviour_phase()
        [imitation] = behaviour.updates.values()
        imitation.clip = self.gradient_norm
        behaviour.depends += ("algo.gradient_norm",)
        rare = {"every": self.policy_delay, "first": 0}
        critic = self.critic_updates()
        actor = Update(
            self.learner.network.parameters(),
            self.lr,
            self.loss,
            self.draw,
            after=self.learner.update_target,
            frozen_modules=[self.critic],
            clip=self.gradient_norm,
            **rare,
        )
        for update in (*critic.values(), actor):
            update.schedule = self.schedule
            update.scheduled = lambda update=update: update.count / self.critic_steps
        warm_up = replace(self.training_phase(self.warm_up_steps, self.batch_size, critic), name="warm_up", policy=None)
        warm_up.start = self.copy_behaviour
        both = {"actor": actor, "behaviour": imitation.variant(**rare)}
        return [behaviour, warm_up, self.training_phase(self.steps, self.batch_size, critic | both)]

    @property
    def critic_steps(self) -> int:
        """How many updates of the critic there are."""
        return sum(phase.steps for phase in self.phases if phase.name in ("warm_up", "training"))

    def copy_behaviour(self) -> None:
        """Start from the moving average of the behaviour model, if no other start is given."""
        if "policy" not in self.given:
            self.policy.load_state_dict(self.behaviour.target.state_dict())
        self.learner.network.load_state_dict(self.policy.network.state_dict())

    def critic_updates(self) -> dict[str, Update]:
        """The updates of Q and V, each with draws of its own, and then of their targets."""
        q, v = critic_updates(self.critic, clip=self.gradient_norm).values()
        q.draw, q.derive = self.draw_chains, self.chains
        v.draw, v.derive = self.draw, self.chain_steps
        return {"critic_q": q, "critic_v": v}

    def draw_chains(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """What is random in Q's loss, and in chains: where they begin, and all steps but the last.

        `chain_noise` is [B, samples, levels, A].
        """
        shape = batch.size, self.critic.candidates, self.learner.path.steps, batch.action.shape[-1]
        noise = standard_normal(shape, generator, batch.action)
        return {"chain_noise": noise} | self.critic.draw(batch, generator, progress)

    def chains(self, batch: Transitions, draws: Draws) -> Draws:
        """Actions [B, samples, A] of the policy at the next states, and the mean cost [B, 1] of their chains."""
        count, levels = self.critic.candidates, self.learner.path.steps
        observation = batch.next_observation.repeat_interleave(count, 0)
        x, *noise = draws["chain_noise"].flatten(0, 1).unbind(1)
        total = x.new_zeros(len(x))
        for level in range(levels, 0, -1):
            step = self.step(self.policy, x, x.new_full((len(x),), level / levels), observation)
            x, total = (
                step.mean if level == 1 else step.mean + step.std * noise[levels - level],
                total + step.divergence,
            )
        cost = self.eta * total.unflatten(0, (-1, count)).mean(1, keepdim=True)
        return {"next_action": x.unflatten(0, (-1, count)), "next_cost": cost}

    def draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """Times t [B] and noise [B, A] of noisy actions of the data, and `step_noise` [B, samples, A] of a step."""
        draws = self.objective.draw(self.learner, batch.observation, batch.action, generator, progress)
        shape = batch.size, self.critic.candidates, batch.action.shape[-1]
        return draws | {"step_noise": standard_normal(shape, generator, batch.action)}

    def chain_steps(self, batch: Transitions, draws: Draws) -> Draws:
        """A step of the policy's chain from noisy actions of the data, as V's loss takes it."""
        x, level, step, draws = self.noisy_step(self.policy, batch, draws)
        following = step.samples(draws["step_noise"])
        return {"x": x, "level": level, "following": following, "cost": self.eta * step.divergence}

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """Minus the value of a step of the chain [B], and metrics."""
        _, level, step, draws = self.noisy_step(self.learner, batch, draws)
        value = self.critic.value_below(batch.observation, step.samples(draws["step_noise"]), level)
        metrics = {"value": value.detach().mean(), "divergence": step.divergence.detach().mean()}
        return self.eta * step.divergence - value, metrics

    def noisy_step(self, policy: Policy, batch: Transitions, draws: Draws) -> tuple[Tensor, Tensor, Step, Draws]:
        """Noisy actions [B, A] of the data, their levels [B], and the step from there."""
        x, t = policy.path.perturb(batch.action, draws["noise"], draws["t"]), draws["t"]
        return x, (t * policy.path.steps).round(), self.step(policy, x, t, batch.observation), draws

    def step(self, policy: Policy, x: Tensor, t: Tensor, observation: Tensor) -> Step:
        """The step of a policy from x [B, A] at times t [B] of its path's levels to the level below."""
        path = policy.path
        level = (t * path.steps).round()
        below = (level - 1) / path.steps
        alpha, sigma, alpha_below, sigma_below = (
            of(time)[:, None] for time in (t, below) for of in (path.alpha, path.sigma)
        )
        kept = alpha / alpha_below
        forgotten = 1 - kept**2  # beta_k
        noise = policy.noise(x, t, observation)
        with torch.no_grad():
            expected = self.behaviour.target.noise(x, t, observation)
        data = policy.clip((x - sigma * noise) / alpha)
        mean = (alpha_below * forgotten * data + kept * sigma_below**2 * x) / sigma**2
        std = torch.where(level[:, None] > 1, forgotten.sqrt(), 0.0)
        weight = forgotten / (2 * kept**2 * sigma**2)
        return Step(mean, std, (weight * (noise - expected).square()).sum(-1))
