"""Flow-Anchored Noise-conditioned Q-learning (ICML 2026, arXiv 2605.01663)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from genpolicy.algo.compatibility import require_denoiser
from genpolicy.algo.fql import OneStepActor
from genpolicy.algo.phase import Phase
from genpolicy.algo.update import Metrics, Update, imitation
from genpolicy.config.schema import component
from genpolicy.config.validation import Node
from genpolicy.dataset.transitions import Transitions
from genpolicy.model.flow import standard_normal
from genpolicy.objective.objective import Draws


@component
class FAN(OneStepActor):
    """FQL that evaluates its flow once where FQL solves it, with a critic that is conditioned on noise.

    The policy's action a = mu(s, e) is anchored to the flow: |a - e - v(s, x_t, t)|^2 at a random point of the line
    from its noise e to it. It maximises Q(s, a, n) and Z(s, a); the anchor at the next state is a cost of the critic's.
    """

    evaluates = ("anchored",)
    needs = "Q functions that are conditioned on noise"
    uses_samples = False

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)
        require_denoiser(config)

    def plan(self) -> list[Phase]:
        [phase] = super().plan()
        more = {"clip": self.gradient_norm, "every": self.policy_delay, "schedule": self.schedule}
        flow = imitation(self.behaviour, self.objective, self.lr, **more)
        actor = phase.updates["actor"]  # first, by the flow of before its update
        return [replace(phase, updates={"actor": actor, "flow": flow} | phase.updates)]

    def actor_update(self) -> Update:
        update = super().actor_update()
        update.frozen_modules += self.behaviour.parameters()  # the anchor is the flow as it is
        return update

    def draw_for_critic(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """The noise [B, A] of the actions at the next states, the times [B] of their anchors, and the noise of Z."""
        noise = self.standard_noise(batch, generator)
        t = self.objective.draw_time(self.behaviour, batch.size, generator, batch.action)
        return {"next_noise": noise, "anchor_t": t, "value_noise": self.standard_noise(batch, generator)}

    def evaluated(self, batch: Transitions, draws: Draws) -> Draws:
        """What else the critic's loss takes, as `NoiseConditionedQ` says."""
        observation, noise = batch.next_observation, draws["next_noise"]
        action = self.clip(self.policy.sample(observation, noise=noise))
        return {"next_action": action, "anchor": self.anchor(observation, action, noise, draws["anchor_t"]).sum(-1)}

    def draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """The noise [B, A] of the policy's actions, the times [B] of their anchors, and the noise [B, A] of their Q."""
        noise = self.standard_noise(batch, generator)
        t = self.objective.draw_time(self.behaviour, batch.size, generator, batch.action)
        return {"action_noise": noise, "anchor_t": t, "value_noise": self.standard_noise(batch, generator)}

    @staticmethod
    def standard_noise(batch: Transitions, generator: torch.Generator) -> Tensor:
        """A standard normal draw [B, A]."""
        return standard_normal(batch.action.shape, generator, batch.action)

    def policy_loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Tensor, Metrics]:
        """The anchor's loss minus the values, [B], the values Z [B] of the policy's actions, and metrics [B]."""
        observation, noise = batch.observation, draws["action_noise"]
        action = self.policy.sample(observation, noise=noise)
        distance = self.anchor(observation, action, noise, draws["anchor_t"]).mean(-1)
        inside = self.clip(action)
        q = self.critic.q_given(observation, inside, draws["value_noise"]).mean(0)
        z = self.critic.q(observation, inside).mean(0)
        loss = self.alpha * distance - self.gain(q) - self.gain(z)
        return loss, z, {"distance": distance, "q": q, "z": z}

    def anchor(self, observation: Tensor, action: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The flow's squared errors [B, A] at time t [B] on the line from noise [B, A] to actions [B, A]."""
        path = self.behaviour.path
        velocity = self.behaviour.velocity(path.perturb(action, noise, t), t, observation)
        return (path.target("velocity", action, noise, t) - velocity).square()
