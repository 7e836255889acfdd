"""MeanFlowQL: one-step generative policies with Q-learning (AAAI 2026, arXiv 2511.13035)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genpolicy.algo.actor_critic import ActorCritic
from genpolicy.algo.compatibility import require_flow
from genpolicy.algo.phase import Phase
from genpolicy.algo.update import Metrics, Update
from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.transitions import Transitions
from genpolicy.objective.objective import Draws

WARM_UP = 0.1  # share of the updates before alpha changes
UP, DOWN, REACH = 1.2, 0.8, 10.0  # what it is multiplied by, and how far it may get from where it began


@component
class MeanFlowQL(ActorCritic):
    """A one-step generative policy that maximises Q: alpha times its generative loss - mean_j Q_j(s, pi(s)).

    alpha rises where the generative loss is far above its usual size, and falls where it is far below. What the policy
    does outside of the action space, where Q does not see it, costs its distance from there.
    """

    uses_target = False
    selects = True

    alpha: float = setting(10.0, gt=0.0, le=1e6, doc="weight of the generative loss, where it begins")
    adapt_every: int | None = setting(2000, ge=1, le=10**9, doc="updates between changes of alpha; null: it is fixed")
    window: int = setting(20, ge=1, le=10**4, doc="the usual loss is the mean of so many, one each `adapt_every`")
    factor: float = setting(5.0, ge=1.0, le=1e6, doc="alpha changes where the loss is so many times larger, or smaller")
    bound: float = setting(1.0, ge=0.0, le=1e6, doc="weight of the mean distance from the action space")
    policy_schedule: str = setting(
        "warm_cosine",
        choices=["constant", "cosine", "warm_cosine"],
        doc="the policy's learning rate; warm_cosine rises over 5 % of the updates, and falls to a tenth",
    )

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)
        require_flow(config)

    def __post_init__(self, *given: Any) -> None:
        super().__post_init__(*given)
        self.register_buffer("weight", torch.tensor(self.alpha))
        self.register_buffer("recent", torch.zeros(self.window))  # losses, the last one at the end
        self.register_buffer("known", torch.zeros(()))  # how many of them there have been, up to all

    @property
    def scheduled(self) -> bool:
        return self.adapt_every is not None

    def plan(self) -> list[Phase]:
        phases = [self.from_the_same_parameters(phase) for phase in super().plan()]
        phases[0].updates["actor"].schedule = self.policy_schedule
        return phases

    def actor_update(self) -> Update:
        return self.maximising_update(self.policy.parameters(), after=self.policy.update_target)

    def draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """The generative loss's draws, the noise [B, noises, A] of the actions, and alpha [B], changed if due."""
        draws = dict(self.objective.draw(self.policy, batch.observation, batch.action, generator, progress))
        if self.adapts():
            with torch.no_grad():
                loss = self.objective.loss(self.policy, batch.observation, batch.action, draws).mean()
                self.adapt(loss, round(progress * self.steps) >= int(WARM_UP * self.steps))
        noise = self.policy.draw_noise(batch.size, generator, batch.action)
        return draws | {"action_noise": noise, "alpha": self.weight.expand(batch.size)}

    def adapts(self) -> bool:
        """Whether alpha may change before this update: each `adapt_every` of `steps`, of which a budget is a share.

        Those online count on from those before.
        """
        first, number = self.phases[0], self.phases[-1].updates["actor"].count
        if self.adapt_every is None or not number:
            return False
        updates = self.steps if first.online else first.steps
        before, now = (each * self.steps // updates // self.adapt_every for each in (number - 1, number))
        return now > before

    def adapt(self, loss: Tensor, change: bool) -> None:
        """Change alpha by a loss [] beside the recent ones, if it may, and remember the loss."""
        if change:
            usual, compared = self.recent.sum() / self.known.clamp(min=1), self.known >= 2
            higher = (self.weight * UP).clamp(max=self.alpha * REACH)
            lower = (self.weight * DOWN).clamp(min=self.alpha / REACH)
            self.weight.copy_(torch.where(compared & (loss > self.factor * usual), higher, self.weight))
            self.weight.copy_(torch.where(compared & (loss < usual / self.factor), lower, self.weight))
        self.recent.copy_(torch.cat([self.recent[1:], loss[None].to(self.recent)]))
        self.known.add_(1).clamp_(max=self.window)

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """The generative loss, the value's and that of leaving the action space, [B], and metrics."""
        matching = self.objective.loss(self.policy, batch.observation, batch.action, draws)
        action = self.policy.sample(batch.observation, noise=draws["action_noise"])
        inside = self.clip(action)
        outside = (action - inside).abs().mean(-1)
        q = self.critic.q(batch.observation, inside).mean(0)
        metrics = {"matching": matching, "outside": outside, "q": q, "alpha": draws["alpha"]}
        loss = draws["alpha"] * matching + self.bound * outside - q
        return loss, {name: metric.detach().mean() for name, metric in metrics.items()}
