"""A phase of an algorithm's training: gradient updates on batches of the same kind, so many times."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import field
from typing import Any, TypeVar

import torch
from torch import nn

from genpolicy.algo.update import Metrics, Update
from genpolicy.config.schema import component
from genpolicy.dataset.transitions import Transitions
from genpolicy.model.policy import Policy

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

    @property
    def functions(self) -> list[Callable[..., Any]]:
        """All that its weights are made by."""
        found = [self.start, self.prepare, self.extend]
        for update in self.updates.values():
            found += [update.draw, update.derive, update.loss, update.before, update.after, update.observe]
        return [function for function in found if function is not None]

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


def stream(seed: int, name: str) -> int:
    """The seed of random numbers of their own: of a part's initial weights, or of a phase's draws.

    With it they are the same in every algorithm that has the part, or the phase.
    """
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8]) >> 1
