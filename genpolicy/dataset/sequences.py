"""Batches of consecutive transitions: chunks of actions, and rewards summed over several steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError


@dataclass(frozen=True)
class Sequences(Transitions):
    """Transitions of which a batch takes `length` consecutive ones of an episode at a time, as one.

    A batch has the first one's observation and further fields, but the last one's where the name begins with `next_`;
    as `action` [B, chunk * A] the first `chunk` actions, one after the other; as `reward` the sum of discount^j r_j up
    to a termination; and it is `terminated` if any of them is. The rows are not copied: a batch gathers them.

    An episode that terminates ends its last sequences, and its last action stands for those that would follow. Where
    recorded episodes go on after that, as OGBench's do, the actions are the recorded ones, and no more rewards count.
    What a time limit cuts begins no sequence.

    starts [M]: the rows that batches begin with. ends [N] is where the table is. masked: as in the code of Q-chunking
    (Li et al. 2025) the starts are all but the last length - 1, and sequences go over the ends of episodes, and their
    rewards over terminations. Then
    `valid` [B] is 0 for those, and `valid_action` [B, chunk * A] for what is behind an end.
    """

    length: int = 1
    chunk: int = 1
    discount: float = 1.0
    masked: bool = False
    starts: Tensor | None = None

    @property
    def begins(self) -> Tensor:
        return self.starts.to(self.table.device)

    @classmethod
    def of_transitions(
        cls, transitions: Transitions, length: int, chunk: int, discount: float, masked: bool
    ) -> Sequences:
        """From transitions in the order of their episodes.

        Raises `UserError` if the episodes are not known, or none is long enough.
        """
        if transitions.ends is None:
            raise UserError(
                f"{transitions.source}: tells no episodes, which chunk.length and critic.steps above 1 need; give 1"
            )
        following = _following(transitions.ends, length)
        whole = following == length - 1
        if transitions.size and not whole.any():
            raise too_short(transitions.source, length)
        ended = transitions.terminated.cpu()[torch.arange(len(following)) + following]
        starts = torch.arange(max(0, transitions.size - length + 1)) if masked else torch.nonzero(whole | ended)
        held_out = transitions.held_out
        if held_out is not None:
            held_out = cls.of_transitions(held_out, length, chunk, discount, masked)
        known = {name: getattr(transitions, name) for name in Transitions.__dataclass_fields__}
        return cls(
            **known | {"held_out": held_out, "ends": transitions.ends.to(transitions.table.device)},
            length=length,
            chunk=chunk,
            discount=discount,
            masked=masked,
            starts=starts.flatten().to(transitions.device),
        )

    def to(self, device: torch.device | str, extra_columns: int = 0) -> Sequences:
        """As of any transitions."""
        moved = super().to(device, extra_columns)
        return replace(moved, starts=self.starts.to(moved.device), ends=self.ends.to(moved.table.device))

    def whole(self) -> Sequences:
        """These sequences, of masked ones those alone that are `valid`: what a policy is judged by."""
        if not self.masked:
            return self
        whole = _following(self.ends, self.length) == self.length - 1
        return replace(self, starts=torch.nonzero(whole).flatten().to(self.starts.device))

    def rows(self, index: slice | Tensor) -> Transitions:
        """The sequences that begin at the rows `index`, on the device, one after the other."""
        if isinstance(index, slice):
            index = torch.arange(*index.indices(self.size))
        index = index.to(self.table.device)
        steps = torch.arange(self.length, device=index.device)
        each = (index[:, None] + steps).clamp(max=self.size - 1)
        valid = torch.ones(each.shape, dtype=torch.int64, device=each.device)
        valid[:, 1:] = (~self.ends.index_select(0, each[:, :-1].flatten())).view(-1, self.length - 1).cumprod(1)
        if not self.masked:
            each = index[:, None] + steps.minimum(valid.sum(1, keepdim=True) - 1)
        rows = Transitions(self.table.index_select(0, each.flatten()), self.shapes)
        fields = {name: rows[name].unflatten(0, each.shape) for name in self.shapes}
        powers = self.discount ** steps.to(rows.table.dtype)
        counted = powers if self.masked else powers * valid * _until(fields["terminated"])
        columns = {name: values[:, -1 if name.startswith("next_") else 0] for name, values in fields.items()} | {
            "action": fields["action"][:, : self.chunk].flatten(1),
            "reward": (fields["reward"] * counted).sum(1),
            "terminated": fields["terminated"].any(1).to(rows.table),
        }
        if self.masked:
            valid = valid.to(rows.table)
            parts = valid[:, : self.chunk, None].expand(-1, -1, self.action_size)
            columns |= {"valid": valid[:, -1], "valid_action": parts.flatten(1)}
        made = Transitions.side_by_side(columns)
        return Transitions(made.table.to(self.device), made.shapes)

    def subset(self, count: int, generator: torch.Generator) -> Transitions:
        """At most `count` different sequences, drawn uniformly."""
        order = torch.randperm(len(self.starts), generator=generator, device=self.device)
        return self.rows(self.starts[order[:count]])

    def sample(self, batch_size: int, generator: torch.Generator) -> Transitions:
        """`batch_size` sequences drawn uniformly with replacement."""
        index = torch.randint(len(self.starts), (batch_size,), generator=generator, device=self.device)
        return self.rows(self.starts.index_select(0, index))


def too_short(source: str, length: int) -> UserError:
    """What is said of data without an episode of so many transitions."""
    return UserError(f"{source}: no episode has {length} transitions; give a smaller chunk.length or critic.steps")


def _until(terminated: Tensor) -> Tensor:
    """Whether no step [B, length] before each is terminated, 0 or 1."""
    return torch.cat([torch.ones_like(terminated[:, :1]), ~terminated[:, :-1]], 1).long().cumprod(1)


def _following(ends: Tensor, length: int) -> Tensor:
    """How many rows [N] of its episode come after each, at most length - 1, given which are the last of theirs [N]."""
    inside = ~ends.cpu()
    following = torch.zeros(len(inside), dtype=torch.int64)
    alive = torch.ones(len(inside), dtype=torch.bool)
    for step in range(length - 1):
        shifted = torch.zeros_like(inside)
        shifted[: max(0, len(inside) - step)] = inside[step:]
        alive = alive & shifted
        following += alive
    return following
