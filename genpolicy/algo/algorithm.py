"""What an algorithm is: phases of gradient updates, carried out in order, and the policy that comes out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import InitVar, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genpolicy.dataset.transitions import Transitions
from genpolicy.model.policy import GenerativePolicy
from genpolicy.settings import build, setting

Metrics = dict[str, Tensor]
Draws = dict[str, Tensor]


class Update:
    """One gradient step on a pure loss: (batch, draws) -> (loss [B], metrics), all randomness being in `draws`.

    chunk: rows whose graph is kept at once; bounds memory and changes the result by rounding only.
    after: called once after the step, e.g. for a target network.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        loss: Callable[[Transitions, Draws], tuple[Tensor, Metrics]],
        draw: Callable[[Transitions, torch.Generator], Draws] = lambda batch, generator: {},
        after: Callable[[], None] | None = None,
        chunk: int | None = None,
    ):
        self.optimizer = torch.optim.Adam(parameters, lr=lr, fused=True)
        self.loss, self.draw, self.after, self.chunk = loss, draw, after, chunk

    def __call__(self, batch: Transitions, generator: torch.Generator) -> Metrics:
        """Draw, differentiate, step. The metrics are means over the batch, left on the device."""
        draws = self.draw(batch, generator)
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
        self.optimizer.step()
        if self.after is not None:
            self.after()
        return total


@dataclass
class Phase:
    """A stretch of training: `steps` updates on batches of `batch_size` transitions."""

    name: str  # prefix of its metrics
    steps: int
    batch_size: int
    update: Update
    policy: GenerativePolicy | None = None  # what is evaluated in this phase, if anything
    start: Callable[[], None] | None = None  # called once, before the first update
    # What the phase samples from, if not the data set itself. Called again when a run is resumed: must be repeatable.
    prepare: Callable[[Transitions], Transitions] | None = None


@dataclass(kw_only=True, eq=False, repr=False)
class Algorithm(nn.Module):
    """Phases of training and the policy they end with; `state_dict` holds everything, optimisers included.

    policy: the result. behaviour: a policy trained to imitate the data, or None. critic: the value learner, or None if
    none is used. Subclasses set `behaviour` and `phases` in `__post_init__`, after that of this class.
    """

    policy: InitVar[GenerativePolicy]
    objective: InitVar[Any]
    critic: InitVar[nn.Module | None]

    def __post_init__(self, policy, objective, critic):
        nn.Module.__init__(self)
        self.policy, self.objective, self.critic = policy, objective, critic
        self.behaviour: GenerativePolicy | None = None
        self.phases: list[Phase] = []

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
        return {phase.name: phase.update.optimizer.state_dict() for phase in self.phases}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_extra_state` gave."""
        for phase in self.phases:
            phase.update.optimizer.load_state_dict(state[phase.name])


def imitation(
    name: str, policy: GenerativePolicy, objective, steps: int, batch_size: int, lr: float, weight=None
) -> Phase:
    """The phase that fits a policy to the data's actions, each sample's loss multiplied by weight(batch).

    weight: batch -> (weight [B], metrics), without gradient; None for plain behaviour cloning.
    """

    # Weighting pairs whose noise depends on the action would weight the noise as well, which must stay N(0, I). So for
    # a coupling path the actions are resampled with the weights first, and then coupled.
    resample = weight is not None and policy.path.couples

    def draw(batch: Transitions, generator: torch.Generator) -> Draws:
        if not resample:
            return objective.draw(policy, batch.action, batch.observation, generator)
        index = torch.multinomial(weight(batch)[0], batch.size, replacement=True, generator=generator)
        batch = batch.rows(index)
        return {"index": index, **objective.draw(policy, batch.action, batch.observation, generator)}

    def loss(batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        chosen = batch.rows(draws["index"]) if resample else batch
        losses = objective.loss(policy, chosen.action, chosen.observation, draws)
        if weight is None:
            return losses, {}
        factor, metrics = weight(batch)
        return losses if resample else factor * losses, metrics

    return Phase(name, steps, batch_size, Update(policy.parameters(), lr, loss, draw), policy)


@dataclass(kw_only=True, eq=False, repr=False)
class BehaviourSettings:
    """The settings of algorithms that train a behaviour model."""

    behaviour_steps: int = setting(10_000, ge=1, doc="updates of the behaviour model")
    behaviour_batch_size: int = setting(512, ge=1, doc="transitions a behaviour update")
    behaviour_lr: float = setting(3e-4, gt=0.0, doc="Adam's learning rate of the behaviour model")

    def behaviour_phase(self, policy: GenerativePolicy, objective) -> Phase:
        """The phase that fits the behaviour model."""
        sizes = self.behaviour_steps, self.behaviour_batch_size
        return imitation("behaviour", policy, objective, *sizes, self.behaviour_lr)


@dataclass(kw_only=True, eq=False, repr=False)
class CriticSettings:
    """The settings of algorithms that learn a critic, beside the critic's own."""

    critic_steps: int = setting(10_000, ge=1, doc="updates of the critic")
    critic_batch_size: int = setting(512, ge=1, doc="transitions a critic update")

    def critic_phase(self, critic) -> Phase:
        """The phase that learns the critic."""

        def loss(batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
            return critic.loss(batch)

        learned = [parameter for parameter in critic.parameters() if parameter.requires_grad]
        update = Update(learned, critic.lr, loss, after=critic.update_target)
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


def assemble(config, observation_size: int, action_size: int) -> Algorithm:
    """The algorithm that a checked configuration describes, with freshly initialised networks."""
    sizes = {"observation_size": observation_size, "action_size": action_size}
    objective = build(config.objective)
    policy = build(
        config.model,
        network=build(config.network, **sizes),
        prediction=objective.prediction,
        solver=build(config.solver),
        likelihood=build(config.likelihood),
    )
    critic = build(config.critic, **sizes)
    return build(config.algo, policy=policy, objective=objective, critic=critic)
