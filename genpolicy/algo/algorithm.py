"""What an algorithm is: phases of gradient updates, carried out in order, and the policy that comes out."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import InitVar, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.model.flow import FIELD
from genpolicy.model.policy import GenerativePolicy
from genpolicy.objective.objective import Draws, Objective
from genpolicy.settings import build, locate, setting

Metrics = dict[str, Tensor]


class Update:
    """One gradient step on a pure loss: (batch, draws) -> (loss [B], metrics), all randomness being in `draws`.

    draw: (batch, generator, progress) -> draws, progress being the share of the phase that is done, in [0, 1).
    after: called once after the step, e.g. for a target network.
    chunk: rows whose graph is kept at once; bounds memory and changes the result by rounding only.
    clip: largest norm of the whole gradient.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        loss: Callable[[Transitions, Draws], tuple[Tensor, Metrics]],
        draw: Callable[[Transitions, torch.Generator, float], Draws] = lambda batch, generator, progress: {},
        after: Callable[[], None] | None = None,
        chunk: int | None = None,
        clip: float | None = None,
    ):
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=lr, fused=True)
        self.loss, self.draw, self.after, self.chunk, self.clip = loss, draw, after, chunk, clip

    def __call__(self, batch: Transitions, generator: torch.Generator, progress: float) -> Metrics:
        """Draw, differentiate, step. The metrics are means over the batch, left on the device."""
        draws = self.draw(batch, generator, progress)
        self.optimizer.zero_grad(set_to_none=True)
        size = batch.size
        total: Metrics = {}
        for rows in range(0, size, self.chunk or size):
            part = slice(rows, rows + (self.chunk or size))
            piece = batch if self.chunk is None else batch.rows(part)
            loss, metrics = self.loss(piece, {name: draw[part] for name, draw in draws.items()})
            share = piece.size / size
            (loss.mean() * share).backward()
            for name, value in {"loss": loss.detach().mean(), **metrics}.items():
                total[name] = total.get(name, 0) + share * value
        if self.clip is not None:
            total["gradient"] = nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        if self.after is not None:
            self.after()
        return total

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.optimizer.load_state_dict(state)


class Updates:
    """Several updates on the same batch, in order; the metrics of each begin with its name."""

    def __init__(self, **updates: Update):
        self.updates = updates

    def __call__(self, batch: Transitions, generator: torch.Generator, progress: float) -> Metrics:
        """One step of each update."""
        return {
            f"{name}_{metric}": value
            for name, update in self.updates.items()
            for metric, value in update(batch, generator, progress).items()
        }

    def state_dict(self) -> dict[str, Any]:
        """The optimisers' states."""
        return {name: update.state_dict() for name, update in self.updates.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for name, update in self.updates.items():
            update.load_state_dict(state[name])


@dataclass
class Phase:
    """A stretch of training: `steps` updates on batches of `batch_size` transitions."""

    name: str  # prefix of its metrics
    steps: int
    batch_size: int
    update: Update | Updates
    policy: GenerativePolicy | None = None  # what is evaluated in this phase, if anything
    start: Callable[[], None] | None = None  # called once, before the first update
    # What the phase samples from, if not the data set itself. Called again when a run is resumed: must be repeatable.
    prepare: Callable[[Transitions], Transitions] | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class Algorithm(nn.Module):
    """Phases of training and the policy they end with; `state_dict` holds everything, optimisers included.

    action_low, action_high: the ends [A] of the action space, infinite unless set.
    policy: the result. behaviour: a policy trained to imitate the data, or None. critic: the value learner, or None if
    none is used. Subclasses set `behaviour` and `phases` in `__post_init__`, after that of this class.
    """

    uses_target: ClassVar[bool] = False  # whether it needs the policy's moving average

    policy: InitVar[GenerativePolicy]
    objective: InitVar[Objective]
    critic: InitVar[nn.Module | None]

    def __post_init__(self, policy, objective, critic):
        nn.Module.__init__(self)
        self.policy, self.objective, self.critic = policy, objective, critic
        self.behaviour: GenerativePolicy | None = None
        self.phases: list[Phase] = []
        infinite = torch.full((policy.action_size,), math.inf)
        self.register_buffer("action_low", -infinite, persistent=False)
        self.register_buffer("action_high", infinite.clone(), persistent=False)

    def act(self, observation: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Actions [B, A] of the trained policy at observations [B, O]; not clipped to the action space."""
        with torch.no_grad():
            return self.policy.sample(observation, generator)

    def log_prob(self, action: Tensor, observation: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """log pi(a|s) [B] in nats of the trained policy."""
        with torch.no_grad():
            return self.policy.log_prob(action, observation, generator)

    def get_extra_state(self) -> dict[str, Any]:
        """The optimisers' states, so that `state_dict` is all there is to save."""
        return {phase.name: phase.update.state_dict() for phase in self.phases}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_extra_state` gave."""
        for phase in self.phases:
            phase.update.load_state_dict(state[phase.name])


def imitation(
    policy: GenerativePolicy,
    objective: Objective,
    lr: float,
    weight: Callable[[Transitions, Draws], tuple[Tensor, Metrics]] | None = None,
    weight_draw: Callable[[Transitions, torch.Generator], Draws] = lambda batch, generator: {},
    clip: float | None = None,
) -> Update:
    """The update that fits a policy to the data's actions, each sample's loss multiplied by a weight.

    weight: (batch, draws) -> (weight [B], metrics), without gradient; None for plain behaviour cloning. weight_draw:
    (batch, generator) -> what is random in it.
    """

    # Weighting pairs whose noise depends on the action would weight the noise as well, which must stay N(0, I). So for
    # a coupling path the actions are resampled with the weights first, and then coupled.
    resample = weight is not None and policy.path.couples

    def draw(batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        draws = weight_draw(batch, generator)
        if resample:
            index = torch.multinomial(weight(batch, draws)[0], batch.size, replacement=True, generator=generator)
            batch, draws = batch.rows(index), {"index": index, **draws}
        return draws | objective.draw(policy, batch.action, batch.observation, generator, progress)

    def loss(batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        chosen = batch.rows(draws["index"]) if resample else batch
        losses = objective.loss(policy, chosen.action, chosen.observation, draws)
        if weight is None:
            return losses, {}
        factor, metrics = weight(batch, draws)
        return losses if resample else factor * losses, metrics

    return Update(policy.parameters(), lr, loss, draw, after=policy.update_target, clip=clip)


def weight_metrics(weight: Tensor) -> Metrics:
    """The mean of the weights [B], and the share of the batch that as much information is in (Kish)."""
    return {"weight": weight.mean(), "effective_share": weight.mean().square() / weight.square().mean()}


@dataclass(kw_only=True, eq=False, repr=False)
class BehaviourSettings:
    """The settings of algorithms that train a behaviour model."""

    behaviour_steps: int = setting(10_000, ge=1, doc="updates of the behaviour model")
    behaviour_batch_size: int = setting(512, ge=1, doc="transitions a behaviour update")
    behaviour_lr: float = setting(3e-4, gt=0.0, doc="Adam's learning rate of the behaviour model")

    def behaviour_phase(self, policy: GenerativePolicy, objective: Objective) -> Phase:
        """The phase that fits the behaviour model."""
        update = imitation(policy, objective, self.behaviour_lr)
        return Phase("behaviour", self.behaviour_steps, self.behaviour_batch_size, update, policy)


@dataclass(kw_only=True, eq=False, repr=False)
class CriticSettings:
    """The settings of algorithms that learn a critic, beside the critic's own."""

    critic_steps: int = setting(10_000, ge=1, doc="updates of the critic")
    critic_batch_size: int = setting(512, ge=1, doc="transitions a critic update")

    @classmethod
    def partners(cls, config) -> None:
        """The critic must not need the policy, which is trained after it."""
        if locate(config.critic._target_).evaluates_policy:
            raise UserError("critic: is learned before the policy here, and must not evaluate one; legal: critic=iql")

    def critic_phase(self, critic) -> Phase:
        """The phase that learns the critic."""

        def loss(batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
            return critic.loss(batch)

        update = Update(critic.parameters(), critic.lr, loss, after=critic.update_target)
        return Phase("critic", self.critic_steps, self.critic_batch_size, update)


@contextlib.contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Gradients pass through these modules but not to their parameters."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def assemble(config, observation_size: int, action_low: Tensor, action_high: Tensor) -> Algorithm:
    """The algorithm that a checked configuration describes, with freshly initialised networks.

    action_low, action_high: the ends [A] of the action space.
    """
    sizes = {"observation_size": observation_size, "action_size": len(action_low)}
    objective = build(config.objective)
    policy = build(
        config.model,
        network=build(config.network, **sizes, times=locate(config.model._target_).times),
        prediction=objective.prediction,
        solver=build(config.solver),
        likelihood=build(config.likelihood),
        has_density=FIELD in objective.learns,
        averaged=objective.uses_target or locate(config.algo._target_).uses_target,
    )
    critic = build(config.critic, **sizes)
    algorithm = build(config.algo, policy=policy, objective=objective, critic=critic)
    algorithm.action_low.copy_(action_low)
    algorithm.action_high.copy_(action_high)
    return algorithm
