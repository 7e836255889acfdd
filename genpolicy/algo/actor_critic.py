"""Actor-critic algorithms with a generative actor: both are trained on every batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genpolicy.algo.algorithm import Algorithm
from genpolicy.algo.compatibility import require_flow
from genpolicy.algo.phase import Phase, prefixed
from genpolicy.algo.update import Metrics, Update, critic_updates
from genpolicy.config.legal import legal_options, refuse_unused
from genpolicy.config.schema import component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.objective.objective import Draws


@component
class PolicyEvaluation(Algorithm, ABC):
    """An algorithm whose critic evaluates the policy while both are trained."""

    evaluates: ClassVar[tuple[str | None, ...]] = (None, "policy")  # whose actions at the next states a critic gets
    needs: ClassVar[str | None] = None  # in words, of its critic, if it is not any

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """The critic evaluates the policy, or needs none."""

        def fits(critic: type) -> bool:
            return critic.next_actions in cls.evaluates

        critic = locate(config.critic._target_)
        if fits(critic):
            return
        legal = legal_options("critic", fits)
        if cls.needs:
            raise UserError(f"critic: {cls.__name__} needs {cls.needs}; legal: {legal}")
        needed = {"behaviour": "a behaviour model", "anchored": "a flow that anchors the policy"}
        needed["chain"] = "a chain that is held to a behaviour model's"
        what = needed.get(critic.next_actions, "planned returns")
        raise UserError(f"critic: needs {what}, which this algorithm lacks; legal: {legal}")

    def training_phase(self, steps: int, batch_size: int, updates: dict[str, Update]) -> Phase:
        """The one phase, whose batches have what the critic's loss takes."""
        prepare = Transitions.with_next_actions if self.critic.uses_next_action_of_data else None
        trained = {"policy": self.policy, "behaviour": self.behaviour, "critic": self.critic}
        return Phase(
            name="training",
            steps=steps,
            batch_size=batch_size,
            updates=updates,
            policy=self.policy,
            prepare=prepare,
            trains={name: part for name, part in trained.items() if part is not None},
        )

    @property
    def candidates(self) -> int:
        """How many actions of the policy each is chosen from that the critic evaluates."""
        return self.selection.num_candidates if self.selects else 1

    def draw_target(self, batch: Transitions, generator: torch.Generator, num_samples: int, at: str) -> Draws:
        """What is random in `num_samples` actions that the critic evaluates, at each state of a batch.

        `{at}_noise` [B, num_samples * candidates, noises, A] and, if the choice is random, `{at}_choice`
        [B, num_samples, candidates].
        """
        size, like = batch.size * num_samples, batch.action
        noise = self.policy.draw_noise(size * self.candidates, generator, like)
        drawn = {f"{at}_noise": noise.unflatten(0, (batch.size, -1))}
        if self.candidates > 1:
            choice = self.selection.draw_noise((size, self.candidates), generator, like)
            drawn |= {} if choice is None else {f"{at}_choice": choice.unflatten(0, (batch.size, -1))}
        return drawn

    def target_action(self, observation: Tensor, draws: Draws, at: str) -> Tensor:
        """Actions [B, num_samples, A] that the critic evaluates, of what was drawn for them; in the action space.

        Of the policy's moving average, if the algorithm uses it; each the chosen of several, if it `selects`.
        """
        policy = self.policy.target if self.uses_target else self.policy
        noise, choice = draws[f"{at}_noise"], draws.get(f"{at}_choice")
        action = self.clip(policy.sample(observation, num_samples=noise.shape[1], noise=noise.flatten(0, 1)))
        if self.candidates == 1:
            return action
        several = action.unflatten(1, (-1, self.candidates))
        repeated = observation.repeat_interleave(several.shape[1], 0)
        choice = None if choice is None else choice.flatten(0, 1)
        chosen = self.selection.choose(self.critic, repeated, several.flatten(0, 1), noise=choice)
        return chosen.unflatten(0, several.shape[:2])

    def draw_for_critic(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """What is random in the critic's loss and in the actions at the next states, if it takes some."""
        drawn = self.critic.draw(batch, generator, progress)
        if self.critic.next_actions is None:
            return drawn
        return drawn | self.draw_target(batch, generator, self.critic.candidates, "next")

    @property
    def derive_for_critic(self) -> Callable[[Transitions, Draws], Draws] | None:
        """`evaluated`, if the critic's loss takes actions at the next states."""
        return None if self.critic.next_actions is None else self.evaluated

    def evaluated(self, batch: Transitions, draws: Draws) -> Draws:
        """What of the policy the critic's loss takes: `next_action` [B, critic.candidates, A] at the next states."""
        return {"next_action": self.target_action(batch.next_observation, draws, "next")}

    def critic_loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """All losses of the critic together, [B], for an update that has more of them, and metrics."""
        total, metrics = torch.zeros_like(batch.reward), {}
        for _, loss in self.critic.losses().values():
            value, own = loss(batch, draws)
            total = total + value
            metrics |= prefixed("critic", {"loss": value.detach().mean(), **own})
        return total, metrics


def require_one_rate(config: Node) -> None:
    """Refuse a critic that has a learning rate of its own."""
    if config.critic.lr != config.algo.lr:
        raise UserError(f"critic.lr={config.critic.lr}: one optimiser trains all; legal: {config.algo.lr}, as algo.lr")


def target_first(config: Node) -> dict[str, str]:
    """That a critic's target cannot be asked to follow, where one optimiser trains all; for `without_effect`."""
    return {} if config.critic.lagged_target else {"critic.lagged_target": "where one optimiser trains all"}


@component
class JointTraining(PolicyEvaluation, ABC):
    """One optimiser of critic, behaviour model and policy, as in QAM's code: all step together, moving averages first.

    Here the losses of critic and behaviour model; a subclass has those of its policy.
    """

    steps: int = setting(20_000, ge=1, le=10**9, doc="updates of critic, behaviour model and policy")
    batch_size: int = setting(256, ge=1, le=2**20, doc="transitions an update")
    lr: float = setting(3e-4, gt=0.0, le=1e30, doc="Adam's learning rate; that of the critic must be the same")
    gradient_norm: float | None = setting(
        None, gt=0.0, le=1e30, doc="largest norm of the whole gradient; null: no clipping"
    )

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)
        require_flow(config)
        require_one_rate(config)

    @classmethod
    def without_effect(cls, config: Node) -> dict[str, str]:
        """What joint training decides (`remark_unused`)."""
        return target_first(config)

    def plan(self) -> list[Phase]:
        more = {"before": self.update_targets, "clip": self.gradient_norm, "derive": self.derive_for_critic}
        update = Update(dict.fromkeys(self.trained()), self.lr, self.loss, self.draw, **more)
        return [self.training_phase(self.steps, self.batch_size, {"": update})]

    def trained(self) -> list[nn.Parameter]:
        """The parameters of all that steps together."""
        return [*self.critic.parameters(), *self.behaviour.parameters(), *self.policy.parameters()]

    def update_targets(self) -> None:
        """One step of the moving averages of the critic and of the behaviour model."""
        self.critic.update_target()
        self.behaviour.update_target()

    def draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """What the critic and the behaviour model's objective draw."""
        drawn = self.draw_for_critic(batch, generator, progress)
        return drawn | self.objective.draw(self.behaviour, batch.observation, batch.action, generator, progress)

    def loss(self, batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        """The losses of critic and behaviour model together, [B], and metrics."""
        total, metrics = self.critic_loss(batch, draws)
        matching = self.objective.loss(self.behaviour, batch.observation, batch.action, draws)
        return total + matching, metrics | {"matching": matching.detach().mean()}


@component
class ActorCritic(PolicyEvaluation, ABC):
    """A critic that evaluates the actor's moving average, and an actor that a subclass improves by the critic."""

    uses_target = True

    steps: int = setting(20_000, ge=1, le=10**9, doc="updates of critic and actor")
    batch_size: int = setting(256, ge=1, le=2**20, doc="transitions an update")
    lr: float = setting(3e-4, gt=0.0, le=1e30, doc="Adam's learning rate of the actor")
    gradient_norm: float | None = setting(
        None, gt=0.0, le=1e30, doc="largest gradient norm, for actor and critic each; null: no clipping"
    )
    clip_each_q: bool = setting(
        False, doc="clip the gradient norm of each Q function separately; false: that of all together"
    )
    schedule: str = setting(
        "constant", choices=["constant", "cosine"], doc="schedule of both learning rates; cosine ends at 0"
    )
    policy_delay: int = setting(
        1, ge=1, le=10**6, doc="critic updates per update of the actor, and of the target networks that follow with it"
    )

    ema_start: int = setting(0, ge=0, le=10**9, doc="actor updates before its moving average (EMA) starts")
    ema_every: int = setting(1, ge=1, le=10**6, doc="actor updates per update of its moving average")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        super().check_compatibility(config)
        if not cls.uses_target:
            refuse_unused(
                config, "algo", ("ema_start", "ema_every"), "this algorithm keeps no moving average of its actor"
            )
        critic = config.critic
        if critic.expectile is not None and not critic.get("value_first") and config.algo.gradient_norm is not None:
            refuse_unused(config, "algo", ("clip_each_q",), "Q is updated together with V, which is no Q function")

    @classmethod
    def without_effect(cls, config: Node) -> dict[str, str]:
        """How gradients are clipped that are not (`remark_unused`)."""
        return {} if config.algo.gradient_norm else {"algo.clip_each_q": "without algo.gradient_norm"}

    def plan(self) -> list[Phase]:
        updates = prefixed("critic", self.critic_updates()) | {"actor": self.actor_update()}
        for update in updates.values():
            update.schedule = self.schedule
        return [self.training_phase(self.steps, self.batch_size, updates)]

    def critic_updates(self, **more: Any) -> dict[str, Update]:
        """The critic's updates, made before the actor's on the same batch. more: for the function of this name."""
        given = {"draw": self.draw_for_critic, "derive": self.derive_for_critic, "after": None}
        given |= {"clip": self.gradient_norm, "clip_each": self.clip_each_q}
        return critic_updates(self.critic, **given | more)

    @abstractmethod
    def actor_update(self) -> Update:
        """The actor's update, after the critic's on the same batch; `update_targets` comes after it."""

    def maximising_update(self, parameters: Iterable[nn.Parameter], **more: Any) -> Update:
        """The update of these by `loss` and `draw`, through the critic as it is. more: what else an `Update` takes."""
        given = {"frozen_modules": [self.critic], "clip": self.gradient_norm, "every": self.policy_delay}
        return Update(parameters, self.lr, self.loss, self.draw, **given, **more)

    def update_targets(self) -> None:
        """One step of the moving average of the critic, and of the actor's if it is due."""
        self.update_target_q()
        self.update_average()

    def update_target_q(self) -> None:
        """One step of the moving average of the critic, if it has not made it before the critic's update."""
        if not self.critic.lagged_target:
            self.critic.update_target()

    def update_average(self) -> None:
        """One step of the moving average of the actor, if it is due."""
        number = self.phases[-1].updates["actor"].count - 1
        if number >= self.ema_start and (number - self.ema_start) % self.ema_every == 0:
            self.policy.update_target()

    def from_the_same_parameters(self, phase: Phase) -> Phase:
        """The phase with all steps from the same parameters: the actor's first, all draws before, the target Q last."""
        *critic, actor = phase.updates.items()
        critic[-1][1].after = self.update_target_q
        return replace(phase, updates=dict([actor, *critic]), draws_first=True)
