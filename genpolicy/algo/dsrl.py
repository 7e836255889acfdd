"""Steering a flow by its noise (DSRL; Wagenmaker et al. 2025, arXiv 2506.15799)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from genpolicy.algo.actor_critic import JointTraining
from genpolicy.algo.distilled import PerceptronSettings, network_beside, require_noise_at_start
from genpolicy.algo.entropy import entropy_loss
from genpolicy.algo.phase import Phase
from genpolicy.algo.settings import BehaviourSettings
from genpolicy.algo.update import Metrics
from genpolicy.config.schema import component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.critic.critic import maximised
from genpolicy.dataset.nothing import Nothing
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.model.edited import LOG_STD_MAX, LOG_STD_MIN
from genpolicy.model.flow import standard_normal
from genpolicy.model.policy import Policy
from genpolicy.model.steered import SteeredPolicy
from genpolicy.network.ensemble import EnsembleMLP
from genpolicy.objective.objective import Draws


@component
class DSRL(BehaviourSettings, PerceptronSettings, JointTraining):
    """A tanh-Gaussian policy chooses the noise z, within `noise_scale`, from which a behaviour flow makes the action.

    Q of actions is learned as always. A latent critic of the same shape regresses Q(s, flow(s, z)) for z ~ N(0, I), and
    the policy maximises that, its entropy held by a learned temperature: no gradient goes through the flow, which is
    the moving average of the one that is fitted beside.
    """

    selects = True

    noise_scale: float = setting(1.0, ge=0.0, le=1e6, doc="largest noise in each dimension that the policy chooses")
    entropy: float = setting(-0.5, ge=-100.0, le=100.0, doc="entropy of the policy in nats, per dimension of noise")
    frozen: bool = setting(
        False,
        doc="steer a flow of a phase before, for behaviour_steps, as in the paper; false: one that is fitted beside, "
        "and only `steps` counts",
    )

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)
        require_noise_at_start(config, "DSRL steers a flow")
        untrained = locate(config.dataset._target_) is Nothing and config.init.behaviour is None
        if config.algo.frozen and untrained:
            raise UserError(
                "algo.frozen=true: dataset=none trains no flow before it; legal: false, or init.behaviour=RUN"
            )

    def policies(self, model: Policy) -> tuple[Policy, Policy]:
        model.keep_average()
        self.log_temperature = nn.Parameter(torch.zeros(1))
        sizes = model.network.observation_size, model.action_size
        self.latent_critic = EnsembleMLP(self.critic.ensemble, self.critic.input_size(*sizes), **self.critic.shape)
        ends = torch.ones_like(self.action_low)
        network = network_beside(model, input_size=0, heads=2, **self.shape)
        more = {"action_low": -ends, "action_high": ends, "log_std_min": LOG_STD_MIN, "log_std_max": LOG_STD_MAX}
        return SteeredPolicy(network=network, flow=model.target, scale=self.noise_scale, **more), model

    def plan(self) -> list[Phase]:
        [training] = super().plan()
        return [replace(self.behaviour_phase(), finished=True), training] if self.frozen else [training]

    def trained(self) -> list[nn.Parameter]:
        found = [*super().trained(), *self.latent_critic.parameters(), self.log_temperature]
        fixed = set(self.behaviour.parameters()) if self.frozen else set()
        return [parameter for parameter in found if parameter not in fixed]

    def update_targets(self) -> None:
        self.critic.update_target()
        if not self.frozen:
            self.behaviour.update_target()

    def draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """What critic and flow draw, the policy's noise [B, 1, A], and where the latent critic sees Q, [B, A]."""
        draws = super().draw(batch, generator, progress)
        draws["action_noise"] = self.policy.draw_noise(batch.size, generator, batch.action)
        return draws | {"latent_noise": standard_normal(batch.action.shape, generator, batch.action)}

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """The losses of critic, flow, latent critic, policy and temperature, [B], and metrics."""
        total, metrics = self.critic_loss(batch, draws) if self.frozen else super().loss(batch, draws)
        observation, noise = batch.observation, draws["latent_noise"]
        with torch.no_grad():
            wanted = self.critic.q(observation, self.clip(self.policy.flow.sample(observation, noise=noise)))
        distilled = self.critic.total((self.latent_q(observation, noise) - wanted).square())
        latent, log_prob = self.policy.actions_and_density(draws["action_noise"], observation)
        q = maximised(lambda noise: self.latent_q(observation, noise).mean(0), self.noise_scale * latent)
        entropy, own = entropy_loss(self.log_temperature, log_prob, self.entropy * latent.shape[-1])
        metrics |= own | {"distilled": distilled.detach().mean(), "q": q.detach().mean()}
        return total + distilled + entropy - q, metrics

    def latent_q(self, observation: Tensor, noise: Tensor) -> Tensor:
        """The latent critic's values [E, B] of noise [B, A] at observations [B, O]."""
        return self.latent_critic(torch.cat([observation, noise], -1))
