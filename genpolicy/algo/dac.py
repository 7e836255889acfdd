"""Noise predictions guided by the critic's gradient at the noisy action: DAC and QSM."""

from __future__ import annotations

import torch
from torch import Tensor

from genpolicy.algo.actor_critic import ActorCritic, require_one_rate, target_first
from genpolicy.algo.compatibility import require_independent_noise
from genpolicy.algo.phase import Phase
from genpolicy.algo.update import Metrics, Update
from genpolicy.config.legal import legal_options, refuse_unused
from genpolicy.config.schema import component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.critic.critic import value_and_slope
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.model.policy import Policy
from genpolicy.objective.noise_prediction import NoisePrediction
from genpolicy.objective.objective import Draws

EPS = 1e-6  # added to mean |Q|


@component
class DAC(ActorCritic):
    """eta |eps(x_t) - eps|^2 + sigma_t grad Q(s, x_t) . eps(x_t), Q being in units of mean |Q| (Fang et al. 2024).

    At its minimum the policy's score at x_t is that of the behaviour plus grad Q(s, x_t) / (2 eta): so the score of
    mu exp(Q / (2 eta)) near t = 0, where x_t is an action; further on that one's is another. The gradient is that of
    the mean target Q. eta rises by dual ascent while the squared error is above `eta_threshold`, and falls below.
    """

    uses_target = True
    uses_samples = False

    eta: float = setting(1.0, ge=0.0, le=1e6, doc="weight of the noise prediction, at first")
    eta_lr: float = setting(0.0, ge=0.0, le=1e6, doc="step size of its dual ascent; 0: it stays")
    eta_threshold: float = setting(1.0, ge=0.0, le=1e6, doc="squared error of the noise prediction that it holds")
    eta_min: float = setting(1e-3, ge=0.0, le=1e6, doc="smallest weight")
    eta_max: float = setting(100.0, ge=0.0, le=1e6, doc="largest weight")
    normalize: bool = setting(True, doc="divide Q by its mean absolute value over the batch")
    joint: bool = setting(
        False,
        doc="as in QAM's code: one optimiser and gradient norm of critic and policy, target Q first, and the critic "
        "evaluates the policy itself; false: critic, target Q and policy in turn, the critic evaluates its average",
    )

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)

        def fits(objective: type) -> bool:
            return issubclass(objective, NoisePrediction)

        if not fits(locate(config.objective._target_)):
            raise UserError(f"objective: the critic draws noise predictions; legal: {legal_options('objective', fits)}")
        require_independent_noise(config, f"{cls.__name__} guides the noise of actions")
        if config.algo.eta_min > config.algo.eta_max:
            limits = f"algo.eta_min={config.algo.eta_min}: must be at most algo.eta_max={config.algo.eta_max}"
            raise UserError(f"{limits}, between which eta is held")
        if config.algo.joint:
            require_one_rate(config)
            refuse_unused(config, "algo", ("policy_delay", "clip_each_q"), "with algo.joint one optimiser trains all")

    @classmethod
    def without_effect(cls, config: Node) -> dict[str, str]:
        return super().without_effect(config) | (target_first(config) if config.algo.joint else {})

    def policies(self, model: Policy) -> tuple[Policy, None]:
        if self.joint:
            self.uses_target, model.target = False, None
        return model, None

    def plan(self) -> list[Phase]:
        self.register_buffer("eta_now", torch.tensor(float(self.eta)))
        [phase] = super().plan()
        *_, critic, actor = phase.updates.values()
        if not self.joint:
            critic.after = self.update_target_q  # the actor maximises what it is now
            return [phase]
        more = {"clip": self.gradient_norm, "schedule": self.schedule, "observe": actor.observe}
        more |= {"before": self.critic.update_target, "derive": self.derive_for_critic}
        parameters = [*self.critic.parameters(), *self.policy.parameters()]
        both = Update(parameters, self.lr, self.joint_loss, self.joint_draw, **more)
        return [self.training_phase(self.steps, self.batch_size, {"": both})]

    def actor_update(self) -> Update:
        observe = self.ascend if self.eta_lr else None
        return self.maximising_update(self.policy.parameters(), after=self.update_average, observe=observe)

    @torch.no_grad()
    def ascend(self, metrics: Metrics) -> None:
        """One step of eta's dual ascent, for the error `matching` of an update."""
        rise = (metrics["matching"] - self.eta_threshold).clamp(-1, 1)
        self.eta_now.add_(self.eta_lr * rise).clamp_(self.eta_min, self.eta_max)

    def joint_draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """What the critic and the noise prediction draw."""
        given = batch, generator, progress
        return self.draw_for_critic(*given) | self.draw(*given)

    def joint_loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """The losses of critic and policy together, [B], and metrics."""
        critic, metrics = self.critic_loss(batch, draws)
        loss, own = self.loss(batch, draws)
        return critic + loss, metrics | own

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """The noise prediction's loss and the guidance, [B], and metrics."""
        observation, policy = batch.observation, self.policy
        x, predicted = self.objective.predicted(policy, observation, batch.action, draws)
        matching = self.objective.error(policy, predicted, batch.action, draws)

        def value(action: Tensor) -> Tensor:
            return self.critic.q_of_target(observation, action).mean(0)

        slope = value_and_slope(value, x)[1]
        if self.normalize:
            with torch.no_grad():
                slope = slope / (self.critic.q_of_target(observation, batch.action).abs().mean() + EPS)
        guidance = self.objective.reduce(self.guidance(slope, predicted, policy.path.sigma(draws["t"])[:, None]))
        metrics = {"matching": matching.detach().mean(), "guidance": guidance.detach().mean()}
        metrics["eta"] = self.eta_now.clone()
        return self.eta_now * matching + guidance, metrics

    def guidance(self, slope: Tensor, predicted: Tensor, sigma: Tensor) -> Tensor:
        """How Q's gradients [B, A] at noisy actions draw predictions [B, A] of their noise of size sigma [B, 1]."""
        return sigma * slope * predicted


@component
class QSM(DAC):
    """eta |eps(x_t) - eps|^2 + |eps(x_t) + beta grad Q(s, x_t)|^2: the score is matched to Q's gradient.

    Without the first term it is Q-score matching (Psenka et al. 2024), an online method. At its minimum the noise
    prediction is (eta E[eps | x_t] - beta grad Q(s, x_t)) / (1 + eta).
    """

    beta: float = setting(10.0, ge=0.0, le=1e6, doc="size of Q's gradient, in units of the (transformed) reward")

    def guidance(self, slope: Tensor, predicted: Tensor, sigma: Tensor) -> Tensor:
        return (predicted + self.beta * slope).square()
