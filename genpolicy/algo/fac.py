"""Flow Actor-Critic (ICLR 2026, arXiv 2602.18015)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from genpolicy.algo.compatibility import require_velocity
from genpolicy.algo.fql import OneStepActor
from genpolicy.algo.phase import PART, Phase
from genpolicy.algo.settings import BehaviourSettings
from genpolicy.algo.update import Metrics, Update
from genpolicy.config.legal import legal_options
from genpolicy.config.schema import component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.model.direct import normal_log_prob
from genpolicy.model.flow import Capability, exact_divergence, rademacher
from genpolicy.model.path import ICFM
from genpolicy.objective.objective import Draws


@component
class FAC(BehaviourSettings, OneStepActor):
    """FQL whose critic is pushed down at actions of the policy that are unlikely under the behaviour flow.

    The flow is fitted first, and frozen. alpha_q mean_k w(s, a) Q_k(s, a), for an action a of the policy, is added to
    the critic's loss, with w = clip(1 - beta(a|s) / epsilon, 0, 1): nothing inside the support {beta(.|s) >= epsilon}.

    log beta is that of Euler steps in time from the action to noise (the instantaneous change of variables).
    """

    offline_only = "as its densities of the data are computed beforehand"

    alpha_q: float = setting(1.0, ge=0.0, le=1e6, doc="weight of the penalty on Q outside of the behaviour's support")
    threshold: str = setting(
        "row",
        choices=["row", "batch", "data"],
        doc="epsilon, the density of the data's action in the same row, the least of the batch, or of all data",
    )
    density_steps: int = setting(10, ge=1, le=10**4, doc="Euler steps of the log-density")
    probes: int | None = setting(
        None, ge=1, le=10**4, doc="Rademacher probes a step that estimate the flow's divergence; null: it is exact"
    )

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)

        def fits(model: Node) -> bool:
            field = Capability.FIELD in getattr(locate(model["_target_"]), "supports", ())
            return field and issubclass(locate(model["path"]["_target_"]), ICFM)

        if not fits(config.model):
            legal = legal_options("model", having=fits)
            raise UserError(f"model: FAC's log-densities are those of a flow on straight paths; legal: {legal}")
        if Capability.FIELD not in locate(config.objective._target_).teaches:
            legal = legal_options("objective", lambda objective: Capability.FIELD in objective.teaches)
            raise UserError(f"objective: FAC's log-densities are those of a learned field; legal: {legal}")
        require_velocity(config, 0.0)

    def plan(self) -> list[Phase]:
        [training] = super().plan()
        first = training.prepare

        def prepare(transitions: Transitions) -> Transitions:
            return self.with_threshold(transitions if first is None else first(transitions))

        # Log-densities must not be rounded.
        return [self.behaviour_phase(), replace(training, prepare=prepare, exact=True)]

    def critic_updates(self, **more: Any) -> dict[str, Update]:
        return super().critic_updates(penalty=self.penalty, **more)

    def draw_for_critic(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """What is random at the next states, in the policy's action that is penalised, and in that one's density."""
        draws = super().draw_for_critic(batch, generator, progress)
        draws |= self.draw_target(batch, generator, 1, "penalised")
        return draws | self.draw_probes(batch.action, generator)

    @property
    def derive_for_critic(self) -> Callable[[Transitions, Draws], Draws]:
        return self.penalised

    def penalised(self, batch: Transitions, draws: Draws) -> Draws:
        """The action [B, A] that is penalised, and those at the next states, if the critic takes some."""
        evaluated = {} if self.critic.next_actions is None else self.evaluated(batch, draws)
        return evaluated | {"penalised_action": self.target_action(batch.observation, draws, "penalised")[:, 0]}

    def draw_probes(self, action: Tensor, generator: torch.Generator) -> Draws:
        """The probes [B, density_steps, probes, A] of the log-density of actions [B, A], if it takes some."""
        if self.probes is None:
            return {}
        shape = len(action), self.density_steps, self.probes, self.behaviour.action_size
        return {"probes": rademacher(shape, generator, action)}

    def penalty(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """What is added to the critic's loss [B], and metrics."""
        action = draws["penalised_action"]
        weight = self.weight(batch, action, draws.get("probes"))
        penalty = self.alpha_q * self.critic.total(weight * self.critic.q(batch.observation, action))
        return penalty, {"penalty": penalty.detach().mean(), "outside": weight.mean()}

    @torch.no_grad()
    def weight(self, batch: Transitions, action: Tensor, probes: Tensor | None) -> Tensor:
        """w [B] of actions [B, A] in a batch's states: 0 inside the support, 1 far away from it."""
        threshold = batch["log_threshold"]
        threshold = threshold.amin() if self.threshold == "batch" else threshold
        ratio = (self.log_density(batch.observation, action, probes) - threshold).exp()
        return (1 - ratio).clamp(0, 1)

    @torch.no_grad()
    def with_threshold(self, transitions: Transitions) -> Transitions:
        """The transitions, extended by `log_threshold` [N], the log-density of each action or the least of all."""
        device = transitions.device
        transitions = transitions.to(device, extra_columns=1)
        generator, parts = torch.Generator(device).manual_seed(self.density_steps), []  # the same at every call
        for start in self.watch("log-densities of the data", range(0, transitions.size, PART)):
            rows = transitions.rows(slice(start, start + PART))
            probes = self.draw_probes(rows.action, generator).get("probes")
            parts.append(self.log_density(rows.observation, rows.action, probes).to(transitions.table.device))
        density = torch.cat(parts)
        if self.threshold == "data":  # of chunks, those that batches are of: not what a time limit has cut
            density = density[transitions.begins].amin().expand(density.shape)
        return transitions.extended(log_threshold=density)

    def log_density(self, observation: Tensor, action: Tensor, probes: Tensor | None = None) -> Tensor:
        """log beta(a|s) [B] in nats of actions [B, A] at observations [B, O]; probes: as `draw_probes` has them."""
        x, total, length = action, torch.zeros_like(action[:, 0]), 1 / self.density_steps

        def velocity(t: Tensor, x: Tensor) -> Tensor:
            return self.behaviour.velocity(x, t, observation)

        for step in range(self.density_steps):
            t = action.new_full((), step * length)
            if probes is None:
                rate, divergence = exact_divergence(velocity, t, x)
            else:
                rate, divergence = estimated_divergence(velocity, t, x, probes[:, step])
            x, total = x + length * rate, total + length * divergence
        return normal_log_prob(x, torch.zeros_like(x), torch.ones_like(x)) + total


def estimated_divergence(
    field: Callable[[Tensor, Tensor], Tensor], t: Tensor, x: Tensor, probes: Tensor
) -> tuple[Tensor, Tensor]:
    """A field [B, A] and Hutchinson's estimate of its divergence [B], the mean over several probes [B, P, A]."""
    value, vjp = torch.func.vjp(lambda x: field(t, x), x)
    (products,) = torch.func.vmap(vjp, in_dims=1, out_dims=1)(probes)
    return value, (products * probes).sum(-1).mean(-1)
