"""The updates of several algorithms that differ in their seeds alone, computed as one over a leading dimension [S].

The parameters, buffers and moments of each algorithm become views into tensors [S, ...]: whatever else is done with an
algorithm, its evaluation or its checkpoint, sees what the common updates have made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from genpolicy.algo.algorithm import Algorithm
from genpolicy.algo.phase import prefixed
from genpolicy.algo.update import Metrics, Update
from genpolicy.dataset.transitions import Transitions
from genpolicy.objective.objective import Draws

T = TypeVar("T")


class VectorisedPhase:
    """One phase's updates for S algorithms that stand at the same step of it; called once a step.

    What is random is drawn for each algorithm by itself, in the order of a single run. Losses and gradients are those
    of the first algorithm's functions, vectorised by torch.func.vmap. Raises RuntimeError or ValueError for losses that
    cannot be: those that call autograd themselves, or decide by a tensor's value.
    """

    def __init__(self, algorithms: Sequence[Algorithm], phase: int):
        named = [_tensors(algorithm) for algorithm in algorithms]
        whole = {name: torch.stack([tensors[name].detach() for tensors in named]) for name in named[0]}
        for i, tensors in enumerate(named):
            for name, tensor in tensors.items():
                tensor.data = whole[name][i]
        self.phases = [algorithm.phases[phase] for algorithm in algorithms]
        updates = [phase.updates for phase in self.phases]
        self.updates = {
            name: _Vectorised(algorithms[0], whole, [each[name] for each in updates]) for name in updates[0]
        }

    def __call__(
        self, batches: Sequence[Transitions], generators: Sequence[torch.Generator], step: int
    ) -> list[Metrics]:
        """Step number `step` of each algorithm on its batch; the metrics of each, as its own update would name them."""
        found: list[Metrics] = [{} for _ in batches]
        first = self.phases[0]
        if first.extend is not None:
            batches = [own.extend(batch) for own, batch in zip(self.phases, batches, strict=True)]
        given = batches, _Batches.of(batches), generators, first.progress(step)
        due = {name: update for name, update in self.updates.items() if update.updates[0].due(step)}
        drawn = {name: update.drawn(*given) for name, update in due.items()} if first.draws_first else {}
        for name, update in due.items():
            for own, metrics in zip(found, update(*given, drawn.get(name)), strict=True):
                own |= prefixed(name, metrics)
        return found


class _Vectorised:
    """The same `Update` of S algorithms as one."""

    def __init__(self, algorithm: Algorithm, whole: dict[str, Tensor], updates: list[Update]):
        self.updates = updates
        first = updates[0]
        names = {id(tensor): name for name, tensor in _tensors(algorithm).items()}
        trained = {names[id(parameter)]: None for parameter in first.parameters}
        self.tensors = whole | {name: whole[name].detach().requires_grad_() for name in trained}
        parameters = [self.tensors[name] for name in trained]
        optimizer = first.optimizer.like(parameters)
        for number, parameter in enumerate(parameters):
            states = [update.optimizer.state[update.parameters[number]] for update in updates]
            optimizer.state[parameter] = _shared(states, parameter, optimizer.STATE)
        self.common = first.variant(
            parameters=parameters,
            optimizer=optimizer,
            leading=1,
            frozen_modules=[],
            loss=self._vectorise(algorithm, first.loss),
            derive=None if first.derive is None else self._vectorise(algorithm, first.derive),
            before=None if first.before is None else self._before,
            after=None,
            observe=None,
            counted=[update.optimizer for update in updates],
        )

    def drawn(
        self, batches: Sequence[Transitions], stacked: _Batches, generators: Sequence[torch.Generator], progress: float
    ) -> Draws:
        """The draws of each and what is derived from them, [S, B, ...]. stacked: the batches as one."""
        each = zip(self.updates, batches, generators, strict=True)
        drawn = [update.draw(batch, generator, progress) for update, batch, generator in each]
        return self.common.derived(stacked, {name: torch.stack([own[name] for own in drawn]) for name in drawn[0]})

    def __call__(
        self,
        batches: Sequence[Transitions],
        stacked: _Batches,
        generators: Sequence[torch.Generator],
        progress: float,
        draws: Draws | None = None,
    ) -> list[Metrics]:
        draws = self.drawn(batches, stacked, generators, progress) if draws is None else draws
        total = self.common.step(stacked, draws, progress)
        each = [{name: value[i] for name, value in total.items()} for i in range(len(batches))]
        for update, metrics in zip(self.updates, each, strict=True):
            update.end(metrics)
        return each

    def _before(self) -> None:
        for update in self.updates:
            update.before()

    def _vectorise(self, algorithm: Algorithm, function: Callable[[Transitions, Draws], T]) -> Callable[..., T]:
        """A function of the first algorithm for all: of their batches and draws [S, B, ...].

        What it gives has the dimension [S] before its own.
        """
        module = _Function(algorithm, function)

        def each(batches: _Batches, draws: Draws) -> T:
            def one(tensors: dict[str, Tensor], table: Tensor, draws: Draws) -> T:
                batch = Transitions(table, batches.shapes, batches.behaviour)  # its default cannot be compiled
                # Each module once, by its first name: swapped twice, a shared one would not be put back as it was.
                return torch.func.functional_call(module, tensors, (batch, draws), tie_weights=False)

            named = {f"algorithm.{name}": tensor for name, tensor in self.tensors.items()}
            return torch.func.vmap(one)(named, batches.table, draws)

        return each


class _Batches(Transitions):
    """Batches of S algorithms, of the same fields, in one table [S, B, W]."""

    @classmethod
    def of(cls, batches: Sequence[Transitions]) -> _Batches:
        return cls(torch.stack([batch.table for batch in batches]), batches[0].shapes, batches[0].behaviour)

    @property
    def size(self) -> int:
        """B"""
        return self.table.shape[1]

    def rows(self, index: slice) -> _Batches:
        return replace(self, table=self.table[:, index])


class _Function(nn.Module):
    """A function as the forward pass of the module that its closures belong to, for `functional_call`."""

    def __init__(self, algorithm: Algorithm, function: Callable[[Transitions, Draws], Any]):
        super().__init__()
        self.algorithm, self.function = algorithm, function

    def forward(self, batch: Transitions, draws: Draws) -> Any:
        return self.function(batch, draws)


def _tensors(algorithm: Algorithm) -> dict[str, Tensor]:
    return dict(algorithm.named_parameters()) | dict(algorithm.named_buffers())


def _shared(states: list[dict], parameter: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    """The optimiser's state of a parameter [S, ...], from those of its parts, which become views of it.

    They stand at the same step. It is one tensor for all, and a new one: what leaves the group keeps its own.
    """
    shared = {}
    for name in names:
        if name == "step":
            fresh = torch.zeros((), dtype=torch.float32, device=parameter.device)
            shared[name] = states[0].get(name, fresh).clone()
            continue
        parts = [state.get(name, torch.zeros_like(parameter[i])) for i, state in enumerate(states)]
        shared[name] = torch.stack([part.detach() for part in parts])
    for i, state in enumerate(states):
        state |= {name: value if name == "step" else value[i] for name, value in shared.items()}
    return shared
