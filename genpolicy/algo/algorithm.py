"""What an algorithm is: phases of gradient updates, run in order, and the policy that comes out."""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import InitVar, field
from typing import Any, ClassVar, TypeVar

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from genpolicy.algo.actor import Actor
from genpolicy.algo.update import Metrics, Update, critic_updates, imitation
from genpolicy.config.legal import legal_options
from genpolicy.config.schema import build, component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.critic.critic import Critic
from genpolicy.dataset.scaling import Scaling
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.model.generative import GenerativePolicy, field_follows
from genpolicy.model.policy import Policy
from genpolicy.network.encoder import encoded, require_parts
from genpolicy.objective.objective import Draws, Objective
from genpolicy.objective.regression import Regression
from genpolicy.select.selection import NoSelection, Selection

T = TypeVar("T")

PART = 4096  # transitions that a long `Phase.prepare` takes at once


@component
class Phase:
    """A stretch of training: `steps` times its updates, in order, on a batch of `batch_size` transitions.

    updates: by the prefix of their metrics and states; a phase with one update has one entry, "", and no prefix.
    trains: the parts that it changes, by name. depends, reads: what these then follow from, beside the data and the
    seed: groups and settings of the configuration by their dotted names, and earlier phases by theirs. Runs that agree
    on all of it share the phase (`genpolicy.runs.phases`); without `depends`, it is not shared.
    """

    name: str  # prefix of all its metrics
    steps: int
    batch_size: int
    updates: dict[str, Update]
    policy: Policy | None = None  # what is evaluated in this phase, if anything
    start: Callable[[], None] | None = None  # called once, before the first update
    exact: bool = False  # whether it is always computed in float32
    # Whether the draws of all updates are made before the first of them, as where one optimiser has all parameters.
    draws_first: bool = False
    # What the phase samples from, if not the data set itself. Called again when a run is resumed: must be repeatable.
    prepare: Callable[[Transitions], Transitions] | None = None
    extend: Callable[[Transitions], Transitions] | None = None  # adds to a batch what several updates take of it
    refresh: int | None = None  # after each so many steps `start` and `prepare` are called again
    trains: dict[str, nn.Module] = field(default_factory=dict)
    depends: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    online: bool = False  # whether transitions are added while it goes on
    goes_on: bool = False  # whether it trains what phases before it, or other runs, have trained to their ends
    finished: bool = False  # whether what it trains stays as it is in online training

    def progress(self, step: int) -> float:
        """The share of the phase that is done, in [0, 1); of one that goes on where others have ended, 1."""
        return 1.0 if self.goes_on else step / self.steps

    def update(self, batch: Transitions, generator: torch.Generator, step: int) -> Metrics:
        """Step number `step`, from 0, of each update that is due, on a batch."""
        batch = batch if self.extend is None else self.extend(batch)
        metrics, given = {}, (batch, generator, self.progress(step))
        due = {name: update for name, update in self.updates.items() if update.due(step)}
        drawn = {name: update.drawn(*given) for name, update in due.items()} if self.draws_first else {}
        for name, update in due.items():
            metrics |= prefixed(name, update(*given, drawn.get(name)))
        return metrics

    def precision(self, configured: str) -> str:
        """The precision that it is computed in, where so much is configured."""
        return "float32" if self.exact else configured

    def compile(self, mode: str) -> None:
        """Compile each update."""
        for update in self.updates.values():
            update.compile(mode)

    def state_dict(self) -> dict[str, Any]:
        """The optimisers' states."""
        states = {name: update.state_dict() for name, update in self.updates.items()}
        return states.get("", states)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for name, update in self.updates.items():
            update.load_state_dict(state[name] if name else state)


def prefixed(name: str, named: dict[str, T]) -> dict[str, T]:
    """Metrics, or updates, by their names with this one before them; either may be empty."""
    return {"_".join(filter(None, (name, part))): value for part, value in named.items()}


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


def require_flow(config: Node) -> None:
    """Refuse a model that has no flow."""

    def fits(model: type) -> bool:
        return issubclass(model, GenerativePolicy)

    if not fits(locate(config.model._target_)):
        raise UserError(f"model: this algorithm needs a generative model; legal: {legal_options('model', fits)}")


def require_velocity(config: Node, *times: float) -> None:
    """Refuse a flow whose velocity does not follow from its network's prediction at some times."""
    require_flow(config)
    if not field_follows(config, *times):
        raise UserError(
            f"objective.prediction={config.objective.prediction}: this algorithm takes the flow's velocity where there "
            "is no noise or no signal, which does not follow from it; legal: auto, velocity, preconditioned"
        )


def require_independent_noise(config: Node, what: str) -> None:
    """Refuse a model that pairs actions with noise. what: is done with actions and noise."""

    def fits(model: Node) -> bool:
        return "path" not in model or not locate(model["path"]["_target_"]).couples

    if not fits(config.model):
        legal = legal_options("model", having=fits)
        raise UserError(f"model: {what}, which must be independent; legal: {legal}")


def require_denoiser(config: Node) -> None:
    """Refuse an objective that does not regress a prediction at a noisy action."""
    require_flow(config)

    def fits(objective: type) -> bool:
        return issubclass(objective, Regression)

    if not fits(locate(config.objective._target_)):
        raise UserError(f"objective: this algorithm needs a denoiser; legal: {legal_options('objective', fits)}")


def stream(seed: int, name: str) -> int:
    """The seed of random numbers of their own: of a part's initial weights, or of a phase's draws.

    With it they are the same in every algorithm that has the part, or the phase.
    """
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8]) >> 1


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
