"""What an algorithm is: phases of gradient updates, run in order, and the policy that comes out."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import InitVar
from typing import Any, ClassVar, TypeVar

import torch
from omegaconf import DictConfig
from torch import Tensor

from genpolicy.algo.actor import Actor
from genpolicy.algo.phase import Phase, prefixed, stream
from genpolicy.config.schema import build, component, locate
from genpolicy.critic.critic import Critic
from genpolicy.dataset.scaling import Scaling
from genpolicy.dataset.transitions import Transitions
from genpolicy.model.policy import Policy
from genpolicy.network.encoder import encoded, require_parts
from genpolicy.objective.objective import Draws, Objective
from genpolicy.select.selection import NoSelection, Selection

T = TypeVar("T")


@component
class Algorithm(Actor, ABC):
    """Phases of training and the policy they end with; `state_dict` holds everything, optimisers included.

    scaling: between the environment's units and those of everything else here. selection: chooses among several actions
    of the policy. policy: the result. behaviour: a policy trained to imitate the data, or None. critic: the value
    learner, or None if none is used.
    """

    learns_critic: ClassVar[bool] = True
    uses_target: ClassVar[bool] = False  # whether it needs the policy's moving average
    uses_samples: ClassVar[bool] = True  # whether updates sample from the model, beside what the critic asks for
    takes_one_step: ClassVar[bool] = False  # whether the policy has no solver, though the model may have one
    uses_density: ClassVar[bool] = False  # whether updates take log-densities of the model
    selects: ClassVar[bool] = False  # whether updates choose among actions as acting does
    single_steps: ClassVar[str] = ""  # why it takes no chunks of actions, if it does not
    offline_only: ClassVar[str] = ""  # why it cannot go on learning from data that grow, if it cannot
    scheduled: ClassVar[bool] = False  # whether updates depend on the share of the training that is done, beside rates
    masks: ClassVar[bool] = False  # whether losses leave out what is behind the end of an episode, a batch's `valid`

    begins_online: ClassVar[bool] = False  # whether online training, if there is any, comes without phases before it

    given: ClassVar[frozenset[str]] = frozenset()  # the parts that are taken from other runs

    policy: InitVar[Policy]
    objective: InitVar[Objective]
    critic: InitVar[Critic | None]
    scaling: InitVar[Scaling]
    selection: InitVar[NoSelection | Selection | None] = None

    def __post_init__(
        self,
        policy: Policy,
        objective: Objective,
        critic: Critic | None,
        scaling: Scaling,
        selection: NoSelection | Selection | None,
    ) -> None:
        Actor.__init__(self, policy, critic if self.learns_critic else None, selection or NoSelection(), scaling)
        self.objective = objective
        self.policy, self.behaviour = self.policies(policy)
        self.phases = self.plan()

    def policies(self, model: Policy) -> tuple[Policy, Policy | None]:
        """The policy and the behaviour model, from the configured model: that itself, and none."""
        return model, None

    @staticmethod
    def watch(what: str, parts: Sequence[T]) -> Iterable[T]:
        """The parts of a long `Phase.prepare`, in order. A trainer's says how far it is, and stops at a signal."""
        return parts

    @property
    def inverse_temperature(self) -> float | None:
        """beta, if the policy's optimum is the behaviour tilted by values, mu(a|s) exp(beta Q(s, a)) / Z(s); else None.

        Limits on weights, and on how many actions stand for mu, are left out of account.
        """
        return None

    @abstractmethod
    def plan(self) -> list[Phase]:
        """The phases, in order."""

    def draw(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """What is random in the policy's loss: what its objective draws, if nothing else is said."""
        return self.objective.draw(self.policy, batch.observation, batch.action, generator, progress)

    def online_phase(self, steps: int, goes_on: bool = True) -> Phase:
        """All updates of all phases on each batch, for transitions to which those of the policy are added.

        What several phases train, by one optimiser, is trained as in the last of them. goes_on: whether the policy has
        been trained before; if not, it begins as in the last phase.
        """
        phases, updates = [phase for phase in self.phases if not phase.finished], {}
        last = {id(update.optimizer): phase for phase in phases for update in phase.updates.values()}
        several = len({phase.name for phase in last.values()}) > 1
        for phase in phases:
            own = {name: update for name, update in phase.updates.items() if last[id(update.optimizer)] is phase}
            own = {name: update.unscheduled(ended=goes_on) for name, update in own.items()}
            updates |= prefixed(phase.name if several else "", own)
        fields = {"name": "online", "steps": steps, "updates": updates, "policy": self.policy, "online": True}
        fields |= {"goes_on": goes_on, "start": None if goes_on else self.phases[-1].start}
        return dataclasses.replace(self.phases[-1], **fields, trains={}, depends=(), reads=())

    def get_extra_state(self) -> dict[str, Any]:
        """The optimisers' states, so that `state_dict` is all there is to save."""
        return {phase.name: phase.state_dict() for phase in self.phases}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_extra_state` gave."""
        for phase in self.phases:
            phase.load_state_dict(state[phase.name])

    def actor(self, policy: Policy | None = None) -> Actor:
        """What acting and densities take, of the same networks: the policy, and the critic where it chooses.

        policy: the trained one, if it is not given; of another, as the behaviour model, nothing is chosen.
        """
        if policy not in (None, self.policy):
            return Actor(policy, None, NoSelection(), self.scaling)
        critic = self.critic if self.selection.num_candidates > 1 else None
        return Actor(self.policy, critic, self.selection, self.scaling)


def horizon(config: Mapping) -> int:
    """How many transitions one of a batch stands for: those of a chunk of actions, or of a critic's n-step returns."""
    learned = locate(config["algo"]["_target_"]).learns_critic
    return max(config["chunk"]["length"], config["critic"]["steps"] if learned else 1)


def assemble(
    config: DictConfig, observation_size: int, action_low: Tensor, action_high: Tensor, seed: int | None = None
) -> Algorithm:
    """The algorithm that a checked configuration describes, with freshly initialised networks.

    action_low, action_high: the ends [A] of the action space; where the policy plays chunks of h actions, its own
    action is a whole one, [h * A]. seed: what the weights follow from, each part's by itself; None: torch's generator
    as it is.
    """

    def begin(part: str) -> None:
        if seed is not None:
            torch.manual_seed(stream(seed, part))

    action_low, action_high = (end.repeat(config.chunk.length) for end in (action_low, action_high))
    sizes = {"observation_size": observation_size, "action_size": len(action_low)}
    parts = list(config.observation_parts)
    require_parts(parts, observation_size)
    objective = build(config.objective)
    model = locate(config.model._target_)
    scaling = Scaling(observation_size, action_low, action_high, **config.scaling)
    shape = {"num_times": model.num_times, "input_size": None if model.takes_noise else 0}
    shape |= {"heads": model.heads} if model.heads > 1 else {}
    if getattr(locate(config.network._target_), "takes_chunks", False):
        shape["chunk_length"] = config.chunk.length
    begin("policy")
    network = build(config.network, **sizes | {"observation_size": (2 if parts else 1) * observation_size}, **shape)
    policy = build(
        config.model,
        network=encoded(network, parts) if parts else network,
        **model.parts(config, *scaling.bounds),
    )
    if objective.uses_target or locate(config.algo._target_).uses_target:
        policy.keep_average()
    begin("critic")
    critic = build(config.critic, **sizes, horizon=horizon(config), observation_parts=parts)
    begin("algo")
    return build(
        config.algo,
        policy=policy,
        objective=objective,
        critic=critic,
        selection=build(config.select),
        scaling=scaling,
    )
