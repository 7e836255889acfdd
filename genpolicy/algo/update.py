"""Gradient updates on a batch, which the phases of an algorithm are made of."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.model.policy import Policy
from genpolicy.objective.objective import Draws, Objective

Metrics = dict[str, Tensor]


class Update:
    """One gradient step on a pure loss: (batch, draws) -> (loss [B], metrics), all randomness being in `draws`.

    through: modules that the loss passes through, whose own parameters are not to get gradients.
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
        frozen_modules: Sequence[nn.Module] = (),
        chunk: int | None = None,
        clip: float | None = None,
    ):
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=lr, fused=True)
        self.loss, self.draw, self.after, self.chunk, self.clip = loss, draw, after, chunk, clip
        self.frozen_modules = [parameter for module in frozen_modules for parameter in module.parameters()]
        self.mode, self._loss = "none", loss

    def compile(self, mode: str) -> None:
        """From now on compute the loss and its gradient by what torch.compile makes of them, in a mode of its own."""
        self.mode, self._loss = mode, compiled(self.loss, mode)

    def __call__(self, batch: Transitions, generator: torch.Generator, progress: float) -> Metrics:
        """Draw, differentiate, step. The metrics are means over the batch, left on the device."""
        draws = self.draw(batch, generator, progress)
        self.optimizer.zero_grad(set_to_none=True)

        def losses(part: slice) -> tuple[Tensor, Metrics]:
            piece = batch if self.chunk is None else batch.rows(part)
            with frozen(self.frozen_modules):
                return self._loss(piece, {name: draw[part] for name, draw in draws.items()})

        total = accumulate(losses, batch.size, self.chunk)
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


def accumulate(losses: Callable[[slice], tuple[Tensor, Metrics]], size: int, chunk: int | None) -> Metrics:
    """Add the gradient of the mean loss of a batch, chunk by chunk, to the parameters'; the means of loss and metrics.

    losses: rows of the batch -> (loss [..., rows], metrics [...]); leading dimensions are trained independently.
    """
    total: Metrics = {}
    for start in range(0, size, chunk or size):
        stop = min(start + (chunk or size), size)
        loss, metrics = losses(slice(start, stop))
        share = (stop - start) / size
        (loss.mean(-1).sum() * share).backward()
        for name, value in {"loss": loss.mean(-1), **metrics}.items():
            total[name] = total.get(name, 0) + share * value.detach()
    return total


def imitation(
    policy: Policy,
    objective: Objective,
    lr: float,
    weight: Callable[[Transitions, Draws], tuple[Tensor, Metrics]] | None = None,
    weight_draw: Callable[[Transitions, torch.Generator, float], Draws] = lambda batch, generator, progress: {},
    clip: float | None = None,
) -> Update:
    """The update that fits a policy to the data's actions, each sample's loss multiplied by a weight.

    weight: (batch, draws) -> (weight [B], metrics), without gradient; None for plain behaviour cloning. weight_draw:
    (batch, generator, progress) -> what is random in it, as `draw` of an `Update`.
    """

    # Weighting pairs whose noise depends on the action would weight the noise as well, which must stay N(0, I). So for
    # a coupling path the actions are resampled with the weights first, and then coupled.
    resample = weight is not None and policy.couples

    def draw(batch: Transitions, generator: torch.Generator, progress: float) -> Draws:
        draws = weight_draw(batch, generator, progress)
        if resample:
            index = torch.multinomial(weight(batch, draws)[0], batch.size, replacement=True, generator=generator)
            batch, draws = batch.rows(index), {"index": index, **draws}
        return draws | objective.draw(policy, batch.observation, batch.action, generator, progress)

    def loss(batch: Transitions, draws: Draws) -> tuple[Tensor, Metrics]:
        chosen = batch.rows(draws["index"]) if resample else batch
        losses = objective.loss(policy, chosen.observation, chosen.action, draws)
        if weight is None:
            return losses, {}
        factor, metrics = weight(batch, draws)
        return losses if resample else factor * losses, metrics

    return Update(policy.parameters(), lr, loss, draw, after=policy.update_target, clip=clip)


def weight_metrics(weight: Tensor) -> Metrics:
    """The mean of the weights [B], and their effective share."""
    return {"weight": weight.mean(), "effective_sample_size": effective_sample_size(weight)}


def effective_sample_size(weight: Tensor) -> Tensor:
    """The share [] of the samples that as much information is in as in all with their weights [...] (Kish)."""
    return weight.mean().square() / weight.square().mean()


def compiled(function: Callable[..., Any], mode: str) -> Callable[..., Any]:
    """A pure function as torch.compile makes it, for each shape of its arguments; itself for the mode 'none'.

    Raises `UserError` when it is first called, if it cannot be compiled.
    """
    if mode == "none":
        return function
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch._inductor")  # its own affair
    made, known = torch.compile(function, mode=mode, dynamic=False), False

    def call(*given):
        nonlocal known
        if known:
            return made(*given)
        with torch.no_grad():
            function(*given)  # models keep coefficients of the solvers' times, the making of which cannot be traced
        try:
            result, known = made(*given), True
        except RuntimeError as error:  # as written, it works: so it is the compiler's
            reason = str(error).partition("\n")[0]
            raise UserError(f"compile={mode}: {reason}; compile=none does without") from error
        return result

    return call


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
