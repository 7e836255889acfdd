"""Diffusion Trusted Q-learning (Chen et al. 2024, arXiv 2405.19690)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from genpolicy.algo.distilled import Distilled, one_step_policy
from genpolicy.algo.update import Metrics
from genpolicy.config.schema import setting
from genpolicy.dataset.transitions import Transitions
from genpolicy.model.direct import GaussianPolicy
from genpolicy.objective.objective import Draws


@dataclass(kw_only=True, eq=False, repr=False)
class DTQL(Distilled):
    """A Gaussian policy that climbs min_j Q_j where the behaviour's denoiser leaves its actions in place.

    The trust-region loss is the behaviour's denoising error of the policy's actions, as a function of these (eq. 5):
    it is small at the modes of the behaviour only.
    """

    alpha: float = setting(5.0, gt=0.0, le=1e6, doc="weight of the trust region, in units of the (transformed) reward")
    imitation: float = setting(0.0, ge=0.0, le=1e6, doc="weight of -log pi(a|s) of the data's actions (1 for AntMaze)")

    def policies(self, model):
        return one_step_policy(
            GaussianPolicy, model, self, hidden=self.policy_hidden, activation=self.policy_activation
        ), model

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        loss, metrics = super().loss(batch, draws)
        if self.imitation:
            loss = loss - self.imitation * self.policy.log_prob(batch.observation, batch.action)
        return loss, metrics

    def penalty(self, action, x, t, noise, observation):
        return self.alpha * (self.behaviour.data(x, t, observation) - action).square().sum(-1)

    def gain(self, value, action):
        q = value(action)
        return q, q.amin(0)
