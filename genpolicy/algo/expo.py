"""Expressive policy optimization: a flow whose actions are edited (EXPO; Dong et al. 2025, arXiv 2507.07986)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genpolicy.algo.actor_critic import JointTraining
from genpolicy.algo.distilled import PerceptronSettings, network_beside
from genpolicy.algo.entropy import entropy_loss
from genpolicy.algo.update import Metrics
from genpolicy.config.schema import component, setting
from genpolicy.critic.critic import maximised
from genpolicy.dataset.transitions import Transitions
from genpolicy.model.edited import EditedPolicy
from genpolicy.model.policy import Policy
from genpolicy.objective.objective import Draws


@component
class EditSettings(PerceptronSettings):
    """What joint training has beside a flow whose actions are edited: a tanh-Gaussian policy of the edits maximises Q.

    Its entropy is held at `edit_entropy` by a temperature that is learned with all else. No gradient reaches the flow.
    """

    edit_scale: float = setting(0.1, ge=0.0, le=1e6, doc="largest distance of an edit in each dimension of actions")
    edit_entropy: float = setting(-0.5, ge=-100.0, le=100.0, doc="entropy of edits in nats, per dimension")

    def edited(self, flow: Policy) -> EditedPolicy:
        """The policy of a flow's edited actions, and its temperature."""
        self.log_temperature = nn.Parameter(torch.zeros(1))
        network = network_beside(flow, heads=2, **self.shape)
        bounds = {"action_low": self.action_low, "action_high": self.action_high}
        return EditedPolicy(network=network, flow=flow, scale=self.edit_scale, squash=False, **bounds)

    def trained(self) -> list[nn.Parameter]:
        return [*super().trained(), self.log_temperature]

    def draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """What the rest draws, and the noise of the policy's actions, the edits' last."""
        draws = super().draw(batch, generator, progress)
        return draws | {"action_noise": self.policy.draw_noise(batch.size, generator, batch.action)}

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """The losses of the rest and of the edits, [B], and metrics."""
        total, metrics = super().loss(batch, draws)
        observation, noise = batch.observation, draws["action_noise"]
        with torch.no_grad():
            base = self.policy.base(noise, observation)
        edit, log_prob = self.policy.edit(base, noise, observation)
        action = self.clip(base + self.edit_scale * edit)
        q = maximised(lambda action: self.critic.q(observation, action).mean(0), action)
        entropy, own = entropy_loss(self.log_temperature, log_prob, self.edit_entropy * base.shape[-1])
        return total + entropy - q, metrics | own | {"q": q.detach().mean()}


@component
class EXPO(EditSettings, JointTraining):
    """The actions of a behaviour flow are edited, by no more than `edit_scale`, to maximise Q.

    Both are trained on each batch; the critic evaluates the edited actions, or the best of several with `select`.
    """

    selects = True

    def policies(self, model: Policy) -> tuple[Policy, Policy]:
        return self.edited(model), model
