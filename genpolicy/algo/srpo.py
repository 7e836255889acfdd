"""Score-regularized policy optimization (Chen et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from genpolicy.algo.distilled import Distilled, one_step_policy
from genpolicy.config.schema import setting
from genpolicy.model.direct import DeterministicPolicy


@dataclass(kw_only=True, eq=False, repr=False)
class SRPO(Distilled):
    """A deterministic policy that climbs beta Q and the behaviour's density, whose score is the diffusion model's.

    The density is that of perturbed actions, averaged over times with weight sigma^2; the gradient passes around the
    diffusion model (eqs. 10 and 12).
    """

    beta: float = setting(
        0.1, gt=0.0, le=1e6, doc="weight of the value, in units of the data set's (transformed) reward"
    )
    normalize: bool = setting(False, doc="divide each action's gradient of Q by its root mean square")

    def policies(self, model):
        return one_step_policy(DeterministicPolicy, model, self, hidden=self.policy_hidden), model

    def penalty(self, action, x, t, noise, observation):
        with torch.no_grad():
            sigma = self.behaviour.path.sigma(t)[:, None]
            slope = sigma**2 * self.behaviour.noise(x, t, observation)
        return (slope * action).sum(-1)

    def gain(self, value, action):
        with torch.no_grad():
            q, pull_back = torch.func.vjp(value, action.detach())
            (slope,) = pull_back(torch.ones_like(q) / len(q))  # of their mean
        if self.normalize:
            slope = slope / (slope.square().mean(-1, keepdim=True).sqrt() + 1e-6)
        return q, self.beta * (slope * action).sum(-1)
