"""Gradient updates on a batch, which the phases of an algorithm are made of."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genpolicy.algo.compilation import CUDA_GRAPHS, Captured, compiled, owned
from genpolicy.algo.optimizer import AdamW, Momentum, Optimizer
from genpolicy.critic.critic import Critic, Metrics
from genpolicy.dataset.transitions import Transitions
from genpolicy.model.policy import Policy
from genpolicy.objective.objective import Draws, Objective


def cosine(progress: float) -> float:
    """(1 + cos(pi progress)) / 2, which ends at 0."""
    return (1 + math.cos(math.pi * progress)) / 2


def warm_cosine(progress: float, warm_up: float = 0.05, last: float = 0.1) -> float:
    """From 0 to 1 in a straight line, and down to `last` by a cosine."""
    if progress <= warm_up:
        return progress / warm_up
    return last + (1 - last) * cosine((progress - warm_up) / (1 - warm_up))


SCHEDULES = {"cosine": cosine, "warm_cosine": warm_cosine}  # what the learning rate is multiplied by


class Update:
    """One gradient step on a pure loss: (batch, draws) -> (loss [B], metrics), all randomness being in `draws`.

    draw: (batch, generator, progress) -> draws, progress being the share of the phase that is done, in [0, 1).
    derive: (batch, draws) -> further draws that follow from these, without gradient, as actions do from their noise.
    frozen_modules: what the loss passes through, whose own parameters are not to get gradients.
    before, after: called once before and after the optimiser's step, e.g. for a target network. before: must do the
    same at each step, as a CUDA graph records it.
    observe: called after both with the step's metrics, for what follows from them, e.g. a dual variable.
    chunk: rows whose graph is kept at once; bounds memory and changes the result by rounding only.
    clip: largest norm of the whole gradient; clip_each: of each member of an ensemble, the first dimension of all
    parameters, by itself.
    every: the update is made at every so manieth step of the phase only. first: at which number, from 0 and below
    every, it is made first; every - 1 if it is not given.
    schedule: of the learning rate, "constant" or one of `SCHEDULES`. scheduled: the progress that it takes, if not the
    phase's.
    momentum: of gradient descent with momentum, in place of AdamW.
    weight_decay: AdamW's, the share of the parameters that lr times this takes away at each step.
    """

    leading = 0  # dimensions of parameters, batches and draws before their own: of algorithms, each by itself

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        loss: Callable[[Transitions, Draws], tuple[Tensor, Metrics]],
        draw: Callable[[Transitions, torch.Generator, float], Draws] = lambda batch, generator, progress: {},
        after: Callable[[], None] | None = None,
        frozen_modules: Sequence[nn.Module] = (),
        chunk: int | None = None,
        clip: float | None = None,
        clip_each: bool = False,
        every: int = 1,
        schedule: str = "constant",
        before: Callable[[], None] | None = None,
        weight_decay: float = 0.0,
        momentum: float | None = None,
        observe: Callable[[Metrics], None] | None = None,
        first: int | None = None,
        scheduled: Callable[[], float] | None = None,
        derive: Callable[[Transitions, Draws], Draws] | None = None,
    ):
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.optimizer: Optimizer = (
            AdamW(self.parameters, lr, weight_decay) if momentum is None else Momentum(self.parameters, lr, momentum)
        )
        self.loss, self.draw, self.chunk, self.clip, self.clip_each = loss, draw, chunk, clip, clip_each
        self.before, self.after, self.observe = before, after, observe
        self.frozen_modules = [parameter for module in frozen_modules for parameter in module.parameters()]
        self.lr, self.every, self.first = lr, every, every - 1 if first is None else first
        self.schedule, self.scheduled = schedule, scheduled
        self.derive = derive
        self.counted: Sequence[Optimizer] = ()  # others whose step this one's is, too
        self.compile("none")

    @property
    def count(self) -> int:
        """Steps made, those before a restart and the one that `before` and `after` are called with included."""
        return self.optimizer.count

    def unscheduled(self, ended: bool) -> Update:
        """The same update, of the same parameters by the same optimiser, for training without its schedule.

        ended: whether that has ended before: the learning rate is what it ends at, or the whole one where that is 0.
        """
        last = self.scheduled_lr(1.0) if ended else self.lr
        return self.variant(schedule="constant", lr=last or self.lr)

    def variant(self, **changes: Any) -> Update:
        """The same update, of the same parameters by the same optimiser, with other attributes."""
        other = copy.copy(self)
        vars(other).update(changes)
        other.compile(self.mode)
        return other

    def compile(self, mode: str) -> None:
        """From now on compute the loss and its gradient by what torch.compile makes of them, in a mode of its own.

        So is what is derived from the draws. As CUDA graphs the optimiser's step is part of it, unless its learning
        rate changes.
        """
        self.mode, self._loss = mode, compiled(self.loss, mode)
        self._derive = self._differentiate = self._change = None
        make = Captured if mode == CUDA_GRAPHS else functools.partial(compiled, mode=mode)
        if self.derive is not None and mode != "none":
            self._derive = make(self.derive)
        if mode == CUDA_GRAPHS and self.schedule == "constant":
            self._change = Captured(self.change)
        elif mode == CUDA_GRAPHS:
            self._differentiate = Captured(self.differentiate)

    def due(self, step: int) -> bool:
        """Whether the update is made at this step of its phase."""
        return step % self.every == self.first

    def __call__(
        self, batch: Transitions, generator: torch.Generator, progress: float, draws: Draws | None = None
    ) -> Metrics:
        """Draw, if nothing is given, and step. The metrics are means over the batch, left on the device."""
        return self.step(batch, self.drawn(batch, generator, progress) if draws is None else draws, progress)

    def drawn(self, batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        """All that the loss takes beside the batch: what is drawn, and what is derived from it."""
        return self.derived(batch, self.draw(batch, generator, progress))

    def derived(self, batch: Transitions, draws: Draws) -> Draws:
        """Draws, and what is derived from them."""
        derive = self._derive or self.derive
        if derive is None:
            return draws
        with torch.no_grad():
            return draws | owned(derive(batch, draws), self.mode)

    def step(self, batch: Transitions, draws: Draws, progress: float = 0.0) -> Metrics:
        """Differentiate and step, with given draws."""
        self.set_lr(progress)
        for optimizer in (self.optimizer, *self.counted):
            optimizer.count += 1
        metrics = (self._change or self.change)(batch, draws)
        self.end(metrics)
        return metrics

    def change(self, batch: Transitions, draws: Draws) -> Metrics:
        """Differentiate, and let the optimiser make its step with the learning rate that it has."""
        metrics, gradients = (self._differentiate or self.differentiate)(batch, draws)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        if self.before is not None:
            self.before()
        self.optimizer.step()
        return metrics

    def differentiate(self, batch: Transitions, draws: Draws) -> tuple[Metrics, list[Tensor | None]]:
        """The means of loss and metrics, and the gradient of each parameter."""
        self.optimizer.zero_grad()

        def losses(part: slice) -> tuple[Tensor, Metrics]:
            piece, at = batch if self.chunk is None else batch.rows(part), (*[slice(None)] * self.leading, part)
            with frozen(self.frozen_modules):
                return self._loss(piece, {name: draw[at] for name, draw in draws.items()})

        total = accumulate(losses, batch.size, self.chunk)
        if self.clip is not None:
            total["gradient"] = self.clip_gradients()
        return total, [parameter.grad for parameter in self.parameters]

    def clip_gradients(self) -> Tensor:
        """Limit the gradients of the parameters to `clip`; their norm before."""
        dimensions = self.leading + int(self.clip_each)
        if not dimensions:
            return nn.utils.clip_grad_norm_(self.parameters, self.clip)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        squares = [gradient.square().reshape(*gradient.shape[:dimensions], -1).sum(-1) for gradient in gradients]
        norm = torch.stack(squares).sum(0).sqrt()
        factor = (self.clip / (norm + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factor.view(*factor.shape, *[1] * (gradient.dim() - dimensions)))
        return torch.linalg.vector_norm(norm, dim=-1) if self.clip_each else norm

    def end(self, metrics: Metrics) -> None:
        """What is after a step of the optimiser, which had these metrics."""
        if self.after is not None:
            self.after()
        if self.observe is not None:
            self.observe(metrics)

    def set_lr(self, progress: float) -> None:
        """Give the optimiser the learning rate that is due."""
        progress = progress if self.scheduled is None else self.scheduled()
        for group in self.optimizer.param_groups:
            group["lr"] = self.scheduled_lr(progress)

    def scheduled_lr(self, progress: float) -> float:
        """The learning rate where so much of the phase is done."""
        return self.lr if self.schedule == "constant" else self.lr * SCHEDULES[self.schedule](progress)

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.optimizer.load_state_dict(state)
        self.compile(self.mode)  # for tensors in other places


def accumulate(losses: Callable[[slice], tuple[Tensor, Metrics]], size: int, chunk: int | None) -> Metrics:
    """Add the gradient of the mean loss of a batch, chunk by chunk, to the parameters'; the means of loss and metrics.

    losses: rows of the batch -> (loss [..., rows], metrics [...]); leading dimensions are trained independently.
    """
    total: Metrics = {}
    for start in range(0, size, chunk or size):
        stop = min(start + (chunk or size), size)
        loss, metrics = losses(slice(start, stop))
        share = (stop - start) / size
        mean = loss.mean(-1)
        (mean.sum() * share).backward()
        for name, value in {"loss": mean, **metrics}.items():
            total[name] = total.get(name, 0) + share * value.detach()
    return total


def imitation(
    policy: Policy,
    objective: Objective,
    lr: float,
    weight: Callable[[Transitions, Draws], tuple[Tensor, Metrics]] | None = None,
    weight_draw: Callable[[Transitions, torch.Generator, float], Draws] = lambda batch, generator, progress: {},
    **more: Any,
) -> Update:
    """The update that fits a policy to the data's actions, each sample's loss multiplied by a weight.

    weight: (batch, draws) -> (weight [B], metrics), without gradient; None for plain behaviour cloning. weight_draw:
    (batch, generator, progress) -> what is random in it, as `draw` of an `Update`. more: what else an `Update` takes;
    after each, the policy's moving average follows, if nothing else is said.
    """
    more.setdefault("after", policy.update_target)

    # Weighting pairs whose noise depends on the action would weight the noise as well, which must stay N(0, I). So for
    # a coupling path the actions are resampled with the weights first, and then coupled.
    resample = weight is not None and policy.couples

    def draw(batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        draws = weight_draw(batch, generator, progress)
        if resample:
            index = torch.multinomial(weight(batch, draws)[0], batch.size, replacement=True, generator=generator)
            batch, draws = batch.rows(index), {"index": index, **draws}
        drawn = objective.draw(policy, batch.observation, batch.action, generator, progress)
        return draws | drawn | valid_parts(batch)

    def loss(batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        chosen = batch.rows(draws["index"]) if resample else batch
        losses = objective.loss(policy, chosen.observation, chosen.action, draws)
        if weight is None:
            return losses, {}
        factor, metrics = weight(batch, draws)
        return losses if resample else factor * losses, metrics

    return Update(policy.parameters(), lr, loss, draw, **more)


def valid_parts(batch: Transitions) -> Draws:
    """Which parts of the actions an objective counts, `valid` [B, A]; nothing if all of them."""
    return {"valid": batch["valid_action"]} if "valid_action" in batch.shapes else {}


def critic_updates(
    critic: Critic,
    penalty: Callable[[Transitions, Draws], tuple[Tensor, Metrics]] | None = None,
    **more: Any,
) -> dict[str, Update]:
    """The updates of a critic by the names of its losses; its target follows with the last.

    penalty: (batch, draws) -> (what is added to the last loss [B], metrics). more: what else an `Update` takes; what
    is drawn, if nothing else is said, is what the critic draws itself.
    """
    more.setdefault("draw", critic.draw)

    def update(
        module: nn.Module, loss: Callable[..., tuple[Tensor, Metrics]], penalty: Any = None, **last: Any
    ) -> Update:
        def losses(batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
            value, metrics = loss(batch, draws)
            if penalty is None:
                return value, metrics
            added, own = penalty(batch, draws)
            return value + added, metrics | own

        return Update(module.parameters(), critic.lr, losses, **last, **more)

    after = more.pop("after", critic.update_target)
    follow = {"before": critic.update_target} if critic.lagged_target else {"after": after}
    *first, (name, last) = critic.losses().items()
    return {name: update(*parts) for name, parts in first} | {name: update(*last, penalty, **follow)}


def limited_exp(exponent: Tensor, limit: float) -> Tensor:
    """min(exp(exponent), limit) [...], which cannot overflow."""
    return exponent.clamp(max=math.log(limit)).exp()


def exponential_weight(exponent: Tensor, limit: float) -> tuple[Tensor, Metrics]:
    """min(exp(exponent), limit) [B], without gradient, and its statistics."""
    with torch.no_grad():
        weight = limited_exp(exponent, limit)
        clamped = (exponent >= math.log(limit)).to(weight.dtype)
        return weight, weight_metrics(weight) | {"clamped": clamped.mean()}


def weight_metrics(weight: Tensor) -> Metrics:
    """The mean of the weights [B], and their effective share."""
    return {"weight": weight.mean(), "effective_sample_size": effective_sample_size(weight)}


def effective_sample_size(weight: Tensor) -> Tensor:
    """The share [] of the samples that as much information is in as in all with their weights [...] (Kish)."""
    return weight.mean().square() / weight.square().mean()


@contextlib.contextmanager
def frozen(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Gradients pass through what these are parameters of, but not to them."""
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
