"""Policy evaluation with several Q functions."""

from __future__ import annotations

import torch
from torch import Tensor

from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.critic.critic import Critic, Metrics, expectile_loss
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.network.activation import ACTIVATIONS
from genpolicy.objective.objective import Draws


@component
class DoubleQ(Critic):
    """Q_j of the policy whose actions it is given: r + gamma min_j Q_j^-(s', a') (Fujimoto et al. 2018, section 4.2).

    Several actions a' a state are the candidates of max-Q backup: each Q_j^- takes its best of them (Kumar et al.
    2019); or their mean is taken.
    """

    next_actions = "policy"

    hidden: list[int] = setting([256, 256, 256], ge=1, le=2**14, doc="units of each hidden layer of Q and V")
    activation: str = setting("silu", choices=list(ACTIVATIONS), doc="activation after each hidden layer")
    candidates: int = setting(
        1, ge=1, le=10**4, doc="actions of the policy at s' whose best is backed up; 1: no max-Q backup"
    )
    over_candidates: str = setting(
        "max", choices=["max", "mean"], doc="which of these candidates' values: the best, or the mean"
    )
    aggregate: str = setting("min", choices=["min", "mean"], doc="how the Q functions are combined in the target")
    pessimism: float = setting(
        0.0, ge=0.0, le=100.0, doc="standard deviations over the Q functions that the target is lowered by"
    )
    normalize: bool = setting(False, doc="divide a batch's targets by their standard deviation")
    subset: int | None = setting(
        None, ge=1, le=100, doc="Q functions, drawn anew at each update, that the target takes (REDQ); null: all"
    )

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """A subset is no larger than the whole, and one target alone has no standard deviation."""
        subset, ensemble = config.critic.subset, config.critic.ensemble
        if subset is not None and subset > ensemble:
            raise UserError(f"critic.subset={subset}: there are critic.ensemble={ensemble} Q functions to draw from")
        size = "critic_batch_size" if "critic_batch_size" in config.algo else "batch_size"
        if config.critic.normalize and config.algo.get(size) == 1:
            raise UserError(
                f"algo.{size}=1: critic.normalize divides by the std of a batch's targets; legal: 2 or more"
            )

    @classmethod
    def without_effect(cls, config: Node) -> dict[str, str]:
        single = {"critic.over_candidates": "with critic.candidates=1"} if config.critic.candidates == 1 else {}
        return super().without_effect(config) | single

    def draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """The numbers `members` [B, subset] of the Q functions that the target takes, in each row the same."""
        if self.subset is None:
            return {}
        order = torch.rand(self.ensemble, generator=generator, device=batch.reward.device).argsort()
        return {"members": order[: self.subset].expand(batch.size, -1)}

    def backup(self, q: Tensor) -> Tensor:
        """The value [B] of the next states, from Q^- [E, B, candidates] of the actions there."""
        return self.lower_bound(q.amax(2) if self.over_candidates == "max" else q.mean(2))

    def lower_bound(self, q: Tensor) -> Tensor:
        """What the Q functions say together, less `pessimism` of their standard deviations, [...] of q [E, ...]."""
        value = self.aggregated(q)
        return value - self.pessimism * q.std(0, correction=0) if self.pessimism else value

    def cost(self, batch: Transitions, draws: Draws) -> Tensor | float:
        """What the value of each action at s' loses, [B, candidates]: what the algorithm says, or nothing."""
        return draws.get("next_cost", 0.0)

    def aggregated(self, q: Tensor) -> Tensor:
        """The minimum or mean over the Q functions, [...] of q [E, ...]."""
        return q.amin(0) if self.aggregate == "min" else q.mean(0)

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """sum_j (Q_j(s, a) - target)^2 and V's loss [B], and metrics.

        draws: actions `next_action` [B, candidates, A] at s', and `next_cost` [B, candidates] if their values lose any.
        """
        with torch.no_grad():
            next_action, members = draws["next_action"], draws.get("members")
            observation = batch.next_observation.repeat_interleave(next_action.shape[1], 0)
            members = None if members is None else members[0]
            q_next = self.q_of_target(observation, next_action.flatten(0, 1), members)
            q_next = q_next.unflatten(1, next_action.shape[:2]) - self.cost(batch, draws)
            value_next = self.backup(q_next)
            target = self.backed_up(batch, value_next)
            if self.normalize:
                target = target / (target.std() + 1e-6)
        pairs = torch.cat([batch.observation, batch.action], -1)
        q = self.q_network(pairs)
        loss, metrics = self.squared_error(q, target), {"q": q.detach().mean(), "target": target.mean()}
        if self.expectile is not None:
            value = self.v(batch.observation)
            with torch.no_grad():
                q_data = self.q_target(pairs).amin(0)
            loss = loss + expectile_loss(q_data - value, self.expectile)
            metrics["v"] = value.detach().mean()
        return self.inside(batch, loss), metrics
