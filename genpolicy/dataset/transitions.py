"""Transitions of an offline data set, kept together and sampled on the device."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from genpolicy.dataset.follow import follows

if TYPE_CHECKING:
    from genpolicy.dataset.scaling import Scaling

SHARE = 0.25  # of a GPU's free memory: what a table may take. Extended, it is there beside all that it is joined of.


@dataclass(frozen=True)
class Behaviour:
    """Raw returns of the finished episodes of a data set: what its behaviour policy earned.

    unknown: why the data tell no episodes; empty if they do.
    """

    return_mean: float = float("nan")
    return_std: float = float("nan")
    episodes: int = 0
    unknown: str = ""

    @classmethod
    def of(cls, returns: np.ndarray) -> Behaviour:
        """Of the returns [episodes] of finished episodes."""
        if len(returns) == 0:
            return cls()
        return cls(float(np.mean(returns)), float(np.std(returns)), len(returns))


@dataclass(frozen=True)
class Transitions:
    """N transitions in one table on the device, so that a batch is one gather.

    observation [N,O], action [N,A], reward [N], next_observation [N,O], all float32; terminated [N], bool; and what
    else was given, by name: `transitions["reward"]` and `transitions.reward` are the same. The end of an episode by a
    time limit is not a termination.

    table [N, W], float32: the fields side by side. shapes: of one row of each, in the order of the table.
    `reward_transform` holds the constants by which the rewards were transformed for training, `behaviour` the raw
    returns of the data, `held_out` transitions of other episodes, which are for evaluation only, `source` where the
    data come from, `loaded_digest` their digest before observations and actions were scaled, `scaling` how. `ends` [N],
    bool, on the host, tells which are the last of their episode; None if the data tell no episodes.

    A table that is too large for the device stays in the host's memory. Then `target` is the device: what `sample` and
    `rows` give is there, while the fields above are on the host. Batches are the same to the bit.
    """

    table: Tensor
    shapes: dict[str, torch.Size]
    behaviour: Behaviour = field(default_factory=Behaviour)
    reward_transform: dict[str, float | str] = field(default_factory=dict)
    held_out: Transitions | None = None
    source: str = ""
    loaded_digest: str = ""
    scaling: Scaling | None = None
    target: torch.device | None = None
    ends: Tensor | None = None

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray], **known: Any) -> Transitions:
        """From arrays [N, ...] by the names above."""
        tensors = {name: torch.from_numpy(np.asarray(array, dtype=np.float32)) for name, array in arrays.items()}
        return cls.side_by_side(tensors, **known)

    @classmethod
    def side_by_side(cls, columns: dict[str, Tensor], **known: Any) -> Transitions:
        """From tensors [N, ...] by the names above."""
        return cls(*_side_by_side(columns), **known)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.shapes:
            raise KeyError(name)
        start = 0
        for other, shape in self.shapes.items():
            if other == name:
                break
            start += shape.numel()
        column = self.table[:, start : start + shape.numel()].view(self.size, *shape)
        return column != 0 if name == "terminated" else column

    @property
    def observation(self) -> Tensor:
        """[N,O]"""
        return self["observation"]

    @property
    def action(self) -> Tensor:
        """[N,A]"""
        return self["action"]

    @property
    def reward(self) -> Tensor:
        """[N]"""
        return self["reward"]

    @property
    def next_observation(self) -> Tensor:
        """[N,O]"""
        return self["next_observation"]

    @property
    def terminated(self) -> Tensor:
        """[N], bool: nothing follows this transition."""
        return self["terminated"]

    @property
    def size(self) -> int:
        """N, the number of transitions."""
        return len(self.table)

    @property
    def observation_size(self) -> int:
        """O"""
        return self.shapes["observation"][0]

    @property
    def action_size(self) -> int:
        """A"""
        return self.shapes["action"][0]

    @property
    def begins(self) -> Tensor:
        """The rows [M] that those of batches begin with, where the table is."""
        return torch.arange(self.size, device=self.table.device)

    @property
    def device(self) -> torch.device:
        """Where batches are, and the table if it is not too large."""
        return self.target or self.table.device

    def digest(self) -> str:
        """Eight hexadecimal digits of the SHA-256 of the table, as it was loaded, and its shapes.

        Reads the whole table if it is not known, at 1 to 2 GB a second.
        """
        if self.loaded_digest:
            return self.loaded_digest
        layout = json.dumps({name: list(shape) for name, shape in self.shapes.items()})
        content = hashlib.sha256(layout.encode())
        content.update(self.table.cpu().numpy())
        return content.hexdigest()[:8]

    def to(self, device: torch.device | str, extra_columns: int = 0) -> Transitions:
        """The same transitions for `device`: on it, or, if too large with so many `extra_columns`, on the host."""
        device = torch.device(device)
        held_out = self.held_out and self.held_out.to(device)
        size = self.table.nbytes + self.table.itemsize * self.size * extra_columns
        target = device if too_large(size, device) else None
        table, scaling = self.table.to("cpu" if target else device), self.scaling
        if scaling is not None and scaling.mean.device.type != device.type:  # that of others stays where it is
            scaling = copy.deepcopy(scaling).to(device)
        return replace(self, table=table, held_out=held_out, target=target, scaling=scaling)

    def split_held_out(self, index: Tensor) -> Transitions:
        """These transitions without those at numbers `index` [M], which become the held-out ones."""
        kept = torch.ones(self.size, dtype=torch.bool, device=self.device).index_fill(0, index, False)
        ends, others = (None, None) if self.ends is None else (self.ends[kept], self.ends[index])
        held_out = replace(self.rows(index), ends=others, source=f"{self.source}, what is held out of it")
        return replace(self, table=self.table[kept], ends=ends, held_out=held_out)

    def rows(self, index: slice | Tensor) -> Transitions:
        """The transitions at `index`, on the device: a slice, which copies nothing that is there, or numbers [M]."""
        if isinstance(index, slice):
            table = self.table[index]
        else:
            table = self.table.index_select(0, index.to(self.table.device))
        return Transitions(table.to(self.device), self.shapes)

    def subset(self, count: int, generator: torch.Generator) -> Transitions:
        """At most `count` different transitions, drawn uniformly."""
        return self.rows(torch.randperm(self.size, generator=generator, device=self.device)[:count])

    def whole(self) -> Transitions:
        """These transitions; of sequences those that do not go over the end of an episode."""
        return self

    def extended(self, **columns: Tensor) -> Transitions:
        """These transitions with further fields [N, ...], which are sampled along with the others."""
        table, shapes = _side_by_side(columns)
        return replace(self, table=torch.cat([self.table, table], 1), shapes=self.shapes | shapes)

    def with_next_actions(self) -> Transitions:
        """These transitions with `next_action` [N, A], the next row's, and `followed` [N], whether that row follows."""
        there = self.to(self.device, self.action_size + 1)  # or on the host
        return there.extended(next_action=there.action.roll(-1, 0), followed=there.followed().to(there.table))

    def followed(self) -> Tensor:
        """Whether the episode of each transition goes on with the next row, [N], where the table is."""
        observation, after = (self[name].cpu().numpy() for name in ("observation", "next_observation"))
        followed = torch.from_numpy(np.append(follows(observation, after), False))
        if self.ends is not None:
            followed &= ~self.ends.cpu()
        return followed.to(self.table.device) & ~self.terminated

    def sample(self, batch_size: int, generator: torch.Generator) -> Transitions:
        """`batch_size` transitions drawn uniformly with replacement, without leaving the device if the table is there.

        `generator` must be one of the device; all it is asked for, wherever the table is, is one `torch.randint`.
        """
        if self.target is not None:
            return self._sample_from_host(batch_size, generator)
        index = torch.randint(self.size, (batch_size,), generator=generator, device=self.device)
        # On a CPU twice as fast as indexing.
        return Transitions(self.table.index_select(0, index), self.shapes)

    def _sample_from_host(self, batch_size: int, generator: torch.Generator) -> Transitions:
        """The same batch, gathered by the host while a GPU still computes the updates that it was given before.

        For that the draw must not queue behind them. It need not, although they draw from `generator`, too: the state
        of a CUDA generator is kept by the host, and moves on when a kernel is launched.
        """
        with torch.cuda.stream(_beside(self.target)):
            index = torch.randint(self.size, (batch_size,), generator=generator, device=self.target).cpu()
        # Torch does not give this memory to others before it has been copied.
        rows = torch.empty(batch_size, self.table.shape[1], pin_memory=self.target.type == "cuda")
        torch.index_select(self.table, 0, index, out=rows)
        return Transitions(rows.to(self.target, non_blocking=True), self.shapes)


def too_large(size: int, device: torch.device) -> bool:
    """Whether a table of `size` bytes stays in the host's memory: above a quarter of what a GPU has free."""
    if device.type != "cuda":
        return False
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for what it makes next
    return size > SHARE * (torch.cuda.mem_get_info(device)[0] + kept)


@functools.cache
def _beside(device: torch.device) -> torch.cuda.Stream | None:
    """A stream of a GPU, before all that is queued on the usual one; None, which is the usual one, for a CPU."""
    return torch.cuda.Stream(device, priority=-1) if device.type == "cuda" else None


def _side_by_side(columns: dict[str, Tensor]) -> tuple[Tensor, dict[str, torch.Size]]:
    """A table [N, W] of columns [N, ...], and the shape of one row of each."""
    table = torch.cat([column.flatten(1) if column.dim() > 1 else column[:, None] for column in columns.values()], 1)
    return table, {name: column.shape[1:] for name, column in columns.items()}
