"""The settings of phases that several algorithms have, and the phases that these make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from genpolicy.algo.phase import PART, Phase, stream
from genpolicy.algo.update import Update, critic_updates, imitation
from genpolicy.config.legal import legal_options
from genpolicy.config.schema import component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.model.policy import Policy
from genpolicy.objective.objective import Draws


@component
class BehaviourSettings:
    """The settings of algorithms that train a behaviour model."""

    behaviour_steps: int = setting(10_000, ge=1, le=10**9, doc="updates of the behaviour model")
    behaviour_batch_size: int = setting(512, ge=1, le=2**20, doc="transitions a behaviour update")
    behaviour_lr: float = setting(3e-4, gt=0.0, le=1e30, doc="Adam's learning rate of the behaviour model")
    behaviour_schedule: str = setting(
        "constant", choices=["constant", "cosine"], doc="schedule of the learning rate; cosine ends at 0"
    )
    behaviour_weight_decay: float = setting(0.0, ge=0.0, le=1e6, doc="AdamW's weight decay of the behaviour model")

    def behaviour_phase(self) -> Phase:
        """The phase that fits the behaviour model."""
        more = {"schedule": self.behaviour_schedule, "weight_decay": self.behaviour_weight_decay}
        update = imitation(self.behaviour, self.objective, self.behaviour_lr, **more)
        return Phase(
            name="behaviour",
            steps=self.behaviour_steps,
            batch_size=self.behaviour_batch_size,
            updates={"": update},
            policy=self.behaviour,
            trains={"behaviour": self.behaviour},
            depends=("model", "network", "objective", *(f"algo.behaviour_{name}" for name in ("lr", *more))),
        )

    renewals: ClassVar[int] = 0  # how many times the prepared actions have been drawn anew, each time by other noise

    def with_behaviour_actions(
        self, num_samples: int, at: str = "", source: Policy | None = None
    ) -> Callable[[Transitions], Transitions]:
        """What extends a data set by K behaviour actions a state, `behaviour_action` [N, K, A]; a `Phase.prepare`.

        at: "next_" for the next states, `next_behaviour_action`. source: whose actions, if not the behaviour model's.
        """
        source = source or self.behaviour

        def prepare(transitions: Transitions) -> Transitions:
            device = transitions.device
            transitions = transitions.to(device, extra_columns=num_samples * transitions.action_size)
            table = transitions.table.device
            # The same at every call for the same actions, but not for those at a state and at the next one.
            seed = stream(num_samples, at) if at else num_samples + self.renewals
            generator = torch.Generator(device).manual_seed(seed)
            with torch.no_grad():
                states = transitions[f"{at}observation"].split(PART)
                parts = [
                    source.sample(part.to(device), generator, num_samples).to(table)
                    for part in self.watch("actions at all states", states)
                ]
            return transitions.extended(**{f"{at}behaviour_action": torch.cat(parts)})

        return prepare


@component
class CriticSettings:
    """The settings of algorithms that learn a critic before the policy, beside the critic's own."""

    critic_steps: int = setting(10_000, ge=1, le=10**9, doc="updates of the critic")
    critic_batch_size: int = setting(512, ge=1, le=2**20, doc="transitions a critic update")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """The critic must not need the policy, which is trained after it."""
        there = (None, "behaviour") if issubclass(cls, BehaviourSettings) else (None,)

        def fits(critic: type) -> bool:
            return critic.next_actions in there

        if not fits(locate(config.critic._target_)):
            raise UserError(
                f"critic: needs actions of the policy, trained after it; legal: {legal_options('critic', fits)}"
            )

    def support(self, action: Tensor) -> Tensor:
        """The behaviour model's actions [..., A] as the critic values them: clipped to the action space."""
        return self.clip(action)

    def critic_phase(self) -> Phase:
        """The phase that learns the critic, if need be from actions of the behaviour model at the next states."""
        critic = self.critic
        ahead = critic.next_actions == "behaviour"

        def draw(batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
            drawn = critic.draw(batch, generator, progress)
            return drawn | ({"next_action": self.support(batch["next_behaviour_action"])} if ahead else {})

        prepare = self.with_behaviour_actions(critic.candidates, "next_") if ahead else None
        return Phase(
            name="critic",
            steps=self.critic_steps,
            batch_size=self.critic_batch_size,
            updates=critic_updates(critic, draw=draw),
            prepare=prepare,
            trains={"critic": critic},
            depends=("critic", "solver") if ahead else ("critic",),
            reads=("behaviour",) if ahead else (),
        )


@component
class PolicySettings:
    """The settings of algorithms that train the policy in a phase of its own."""

    policy_steps: int = setting(10_000, ge=1, le=10**9, doc="updates of the policy")
    policy_batch_size: int = setting(512, ge=1, le=2**20, doc="transitions a policy update")
    policy_lr: float = setting(3e-4, gt=0.0, le=1e30, doc="Adam's learning rate of the policy")
    policy_schedule: str = setting(
        "constant", choices=["constant", "cosine"], doc="schedule of the learning rate; cosine ends at 0"
    )

    def policy_phase(self, update: Update, **more: Any) -> Phase:
        """The phase of the policy's updates; more: further fields of `Phase`."""
        return Phase(
            name="policy",
            steps=self.policy_steps,
            batch_size=self.policy_batch_size,
            updates={"": update},
            policy=self.policy,
            trains={"policy": self.policy},
            **more,
        )


def require_episodes(transitions: Transitions) -> Transitions:
    """Refuse data whose episodes are not known; a `Phase.prepare`."""
    if transitions.behaviour.unknown:
        raise UserError(f"this algorithm plans along episodes, which are not known: {transitions.behaviour.unknown}")
    return transitions
