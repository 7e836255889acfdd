"""Transitions of an offline data set, kept together and sampled on the device."""

import hashlib
import json
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Behaviour:
    """Raw returns of the finished episodes of a data set: what its behaviour policy earned."""

    return_mean: float = float("nan")
    return_std: float = float("nan")
    episodes: int = 0

    @classmethod
    def of(cls, returns: np.ndarray) -> "Behaviour":
        """Of the returns [episodes] of finished episodes."""
        if len(returns) == 0:
            return cls()
        return cls(float(np.mean(returns)), float(np.std(returns)), len(returns))


@dataclass(frozen=True)
class Transitions:
    """N transitions in one table on one device, so that a batch is one gather.

    observation [N,O], action [N,A], reward [N], next_observation [N,O], all float32; terminated [N], bool; and what
    else was given, by name: `transitions["reward"]` and `transitions.reward` are the same. The end of an episode by a
    time limit is not a termination.

    table [N, W], float32: the fields side by side. shapes: of one row of each, in the order of the table.
    `reward_transform` holds the constants by which the rewards were transformed for training, `behaviour` the raw
    returns of the data, `held_out` transitions of other episodes, which are for evaluation only, `source` where the
    data come from.
    """

    table: Tensor
    shapes: dict[str, torch.Size]
    behaviour: Behaviour = field(default_factory=Behaviour)
    reward_transform: dict[str, float | str] = field(default_factory=dict)
    held_out: "Transitions | None" = None
    source: str = ""

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray], **known) -> "Transitions":
        """From arrays [N, ...] by the names above."""
        tensors = {name: torch.from_numpy(np.asarray(array, dtype=np.float32)) for name, array in arrays.items()}
        return cls(*_side_by_side(tensors), **known)

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
    def device(self) -> torch.device:
        """Where the table is."""
        return self.table.device

    def digest(self) -> str:
        """Eight hexadecimal digits of the SHA-256 of the table and its shapes: of what is trained on, to the bit.

        Reads the whole table, at 1 to 2 GB a second.
        """
        layout = json.dumps({name: list(shape) for name, shape in self.shapes.items()})
        content = hashlib.sha256(layout.encode())
        content.update(self.table.cpu().numpy())
        return content.hexdigest()[:8]

    def to(self, device: torch.device | str) -> "Transitions":
        """The same transitions on `device`."""
        held_out = self.held_out and self.held_out.to(device)
        return replace(self, table=self.table.to(device), held_out=held_out)

    def apart(self, index: Tensor) -> "Transitions":
        """These transitions without those at numbers `index` [M], which become the held-out ones."""
        kept = torch.ones(self.size, dtype=torch.bool, device=self.device).index_fill(0, index, False)
        return replace(self, table=self.table[kept], held_out=self.rows(index))

    def rows(self, index: slice | Tensor) -> "Transitions":
        """The transitions at `index`: a slice, which copies nothing, or numbers [M]."""
        return Transitions(self.table[index], self.shapes)

    def extended(self, **columns: Tensor) -> "Transitions":
        """These transitions with further fields [N, ...], which are sampled along with the others."""
        table, shapes = _side_by_side(columns)
        return replace(self, table=torch.cat([self.table, table], 1), shapes=self.shapes | shapes)

    def sample(self, batch_size: int, generator: torch.Generator) -> "Transitions":
        """`batch_size` transitions drawn uniformly with replacement, without leaving the device.

        `generator` must be one of that device; all it is asked for is one `torch.randint`.
        """
        index = torch.randint(self.size, (batch_size,), generator=generator, device=self.device)
        # On a CPU twice as fast as indexing.
        return Transitions(self.table.index_select(0, index), self.shapes)


def _side_by_side(columns: dict[str, Tensor]) -> tuple[Tensor, dict[str, torch.Size]]:
    """A table [N, W] of columns [N, ...], and the shape of one row of each."""
    table = torch.cat([column.flatten(1) if column.dim() > 1 else column[:, None] for column in columns.values()], 1)
    return table, {name: column.shape[1:] for name, column in columns.items()}
