"""GMPG: policy gradient of a generative policy through its solver (Zhang et al. 2024, arXiv 2412.01245).

Every variant starts from a copy of the behaviour model mu and minimises

    E_s KL(pi(.|s) || mu(.|s) exp(beta Q(s, .))) + const = E_s E_{a ~ pi}[log pi(a|s) - log mu(a|s) - beta Q(s, a)]

with log-densities in nats. The reference code divides them by A ln 2 (bits a dimension), so that its beta is
beta = beta_reference * A ln 2 here, A being the number of action dimensions.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from genpolicy.algo.algorithm import Algorithm
from genpolicy.algo.compatibility import require_flow
from genpolicy.algo.phase import Phase
from genpolicy.algo.settings import BehaviourSettings, CriticSettings, PolicySettings
from genpolicy.algo.update import Metrics, Update
from genpolicy.config.legal import legal_options
from genpolicy.config.schema import component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.critic.critic import require_value
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.model.flow import rademacher, standard_normal
from genpolicy.model.policy import Policy
from genpolicy.objective.objective import Draws
from genpolicy.solver.solver import ODESolver


@component
class Guided(BehaviourSettings, CriticSettings, PolicySettings, Algorithm, ABC):
    """The phases that the variants share: behaviour model, critic, then a copy of the behaviour model, guided."""

    beta: float = setting(
        4.0, gt=0.0, le=1e6, doc="inverse temperature: nats of KL a unit of (transformed) reward buys"
    )
    chunk: int = setting(
        1024, ge=1, le=2**20, doc="states whose graph is in memory at once; does not change the result", affects=None
    )

    def policies(self, model: Policy) -> tuple[Policy, Policy]:
        return model, copy.deepcopy(model)

    def plan(self) -> list[Phase]:
        policy, frozen_modules = self.policy, [self.behaviour, self.critic]
        update = Update(
            policy.parameters(),
            self.policy_lr,
            self.loss,
            self.draw,
            policy.update_target,
            frozen_modules,
            self.chunk,
            schedule=self.policy_schedule,
            derive=self.derive,
        )
        phase = self.policy_phase(update, start=self.copy_behaviour, exact=True)  # log-densities must not be rounded
        return [self.behaviour_phase(), self.critic_phase(), phase]

    @property
    def derive(self) -> Callable[[Transitions, Draws], Draws] | None:
        """What makes of the draws all that the loss of a chunk takes of the whole batch, if it takes anything."""
        return None

    def copy_behaviour(self) -> None:
        """Start from the behaviour model, if no other start is given."""
        if "policy" not in self.given:
            self.policy.load_state_dict(self.behaviour.state_dict())

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)
        require_flow(config)

        def fits(solver: type) -> bool:
            return issubclass(solver, ODESolver)

        if not fits(locate(config.solver._target_)):
            raise UserError(
                "solver: the policy gradient goes through an ODE solver with a density, not a sampler without one; "
                f"legal: {legal_options('solver', fits)}"
            )
        # Elsewhere the data prediction is a difference of large numbers at the noise end, and the gradient finds
        # policies that only the solver's error makes good: the KL falls without bound.
        output = config.objective.get("prediction", "preconditioned")
        best = locate(config.model.path._target_).auto_prediction
        if output not in ("auto", "preconditioned", best):
            raise UserError(
                f"objective.prediction={output} is ill-conditioned for a policy gradient on this path; "
                "legal: auto, preconditioned" + (", velocity" if best == "velocity" else "")
            )

    @abstractmethod
    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """The variant's loss [B] and its metrics."""


@component
class GuidedByDensity(Guided, ABC):
    """What the variants with log-densities in their loss draw at random."""

    uses_density = True

    hutchinson: bool = setting(
        False, doc="estimate divergences by random probes, in training only: cheaper and noisier"
    )

    @property
    def inverse_temperature(self) -> float:
        return self.beta

    def draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """The noise [B, A] that the actions are solved from, and Hutchinson's probe [B, A] if one is used."""
        action = batch.action
        noise = standard_normal(action.shape, generator, action)
        if self.policy.exact and not self.hutchinson:
            return {"noise": noise}
        return {"noise": noise, "probe": rademacher(action.shape, generator, action)}


@component
class GMPG(GuidedByDensity):
    """The reparameterised gradient through the solver.

    path_derivative leaves out the score term d log pi / d theta at a fixed action, whose mean is zero (Roeder et al.
    2017): the same expectation as the full gradient with a fraction of its variance.
    """

    estimator: str = setting(
        "path_derivative", choices=["path_derivative", "full"], doc="estimator of the gradient; both are unbiased"
    )

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        observation, noise, probe = batch.observation, draws["noise"], draws.get("probe")
        if self.estimator == "full":
            action, log_pi = self.policy.sample_with_log_prob(observation, noise=noise, probe=probe)
        else:
            action = self.policy.sample(observation, noise=noise)
        point = action.detach()
        with torch.no_grad():
            q, pull_back = torch.func.vjp(lambda action: self.critic.q_min(observation, action), point)
            (q_slope,) = pull_back(torch.ones_like(q))
        # By the solver that samples, so that all see the same field.
        solver = self.policy.solver
        log_mu, mu_slope = self.behaviour.log_prob_and_gradient(observation, point, solver, probe)
        slope = -mu_slope - self.beta * q_slope
        if self.estimator == "path_derivative":
            log_pi, pi_slope = self.policy.log_prob_and_gradient(observation, point, solver, probe)
            slope = slope + pi_slope
        # The value of the loss, with the gradient of slope . action(theta), and of log pi in full.
        moved = (slope * (action - action.detach())).sum(-1)
        loss = log_pi - log_mu - self.beta * q + moved
        return loss, {"kl": (log_pi.detach() - log_mu).mean(), "q": q.mean()}


@component
class GMPGReinforce(GuidedByDensity):
    """The score-function gradient with the behaviour's actions, importance-weighted towards the optimum.

    The weight min(exp(beta (Q - V)), weight_clamp) stands for pi / mu near the optimum, up to a factor a state. The
    cost log pi - log mu - beta (Q - V) is centred by its weighted mean, which the reference code does not do and
    without which the gradient pushes every log pi the same way.
    """

    weight_clamp: float = setting(100.0, gt=0.0, le=1e30, doc="largest weight of a sample")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)
        require_value(config)

    def draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """As of the others, with a probe [B, A] of its own for the cost: the mean of a product is that of its factors
        only if these are independent."""
        draws = super().draw(batch, generator, progress)
        if "probe" in draws:
            draws["cost_probe"] = rademacher(batch.action.shape, generator, batch.action)
        return draws

    @property
    def derive(self) -> Callable[[Transitions, Draws], Draws]:
        return self.weighted

    def weighted(self, batch: Transitions, draws: Draws) -> Draws:
        """Actions [B, A] of the behaviour model, and the weighted cost, log mu and Q of each [B].

        The means that the weights are divided by, and the cost is centred by, are those of the batch.
        """
        observation, probe, solver = batch.observation, draws.get("cost_probe"), self.policy.solver
        action = self.behaviour.sample(observation, noise=draws["noise"])
        log_pi, log_mu = (
            policy.log_prob(observation, action, solver=solver, probe=probe) for policy in (self.policy, self.behaviour)
        )
        q = self.critic.q_min(observation, action)
        exponent = self.beta * (q - self.critic.v(observation))
        weight = exponent.exp().clamp(max=self.weight_clamp)
        weight, cost = weight / weight.mean(), log_pi - log_mu - exponent
        return {"action": action, "cost": weight * (cost - (weight * cost).mean()), "log_mu": log_mu, "q": q}

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        solver = self.policy.solver
        log_pi = self.policy.log_prob(batch.observation, draws["action"], solver=solver, probe=draws.get("probe"))
        metrics = {"log_ratio": (log_pi.detach() - draws["log_mu"]).mean(), "q": draws["q"].mean()}
        return draws["cost"] * log_pi, metrics


@component
class GMPGMatching(Guided):
    """-beta Q of sampled actions plus the matching loss on the data's actions, which stands in for the KL."""

    matching_weight: float = setting(
        1.0, ge=0.0, le=1e6, doc="weight of the matching loss, which has a factor of 1/2 in their code"
    )

    def draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """The draws of the matching loss, and the noise [B, A] of the sampled actions."""
        matching = self.objective.draw(self.policy, batch.observation, batch.action, generator, progress)
        return {"action_noise": standard_normal(batch.action.shape, generator, batch.action), **matching}

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """The loss [B], and metrics."""
        matching_draws = {name: draw for name, draw in draws.items() if name != "action_noise"}
        matching = self.objective.loss(self.policy, batch.observation, batch.action, matching_draws)
        action = self.policy.sample(batch.observation, noise=draws["action_noise"])
        q = self.critic.q_min(batch.observation, action)
        return self.matching_weight * matching - self.beta * q, {
            "matching": matching.detach().mean(),
            "q": q.detach().mean(),
        }
