"""Transitions of an offline data set, kept together and sampled on the device."""

from dataclasses import dataclass, field

import numpy as np
import torch
from tensordict import TensorDict


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
    """N transitions on one device; `transitions["reward"]` and `transitions.reward` are the same tensor.

    observation [N,O], action [N,A], reward [N], next_observation [N,O], all float32; terminated [N], bool.
    The end of an episode by a time limit is not a termination. `reward_transform` holds the constants by
    which the rewards were transformed for training, `behaviour` the raw returns of the data.
    """

    fields: TensorDict
    behaviour: Behaviour = field(default_factory=Behaviour)
    reward_transform: dict[str, float | str] = field(default_factory=dict)

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray], **known) -> "Transitions":
        """From arrays by the names above, without copying those that have their type already."""
        tensors = {
            name: torch.from_numpy(array.astype(bool if name == "terminated" else np.float32, copy=False))
            for name, array in arrays.items()
        }
        return cls(TensorDict(tensors, batch_size=[len(arrays["reward"])]), **known)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.fields[name]

    @property
    def observation(self) -> torch.Tensor:
        """[N,O]"""
        return self.fields["observation"]

    @property
    def action(self) -> torch.Tensor:
        """[N,A]"""
        return self.fields["action"]

    @property
    def reward(self) -> torch.Tensor:
        """[N]"""
        return self.fields["reward"]

    @property
    def next_observation(self) -> torch.Tensor:
        """[N,O]"""
        return self.fields["next_observation"]

    @property
    def terminated(self) -> torch.Tensor:
        """[N], bool: nothing follows this transition."""
        return self.fields["terminated"]

    @property
    def size(self) -> int:
        """N, the number of transitions."""
        return self.fields.batch_size[0]

    @property
    def observation_size(self) -> int:
        """O"""
        return self.observation.shape[-1]

    @property
    def action_size(self) -> int:
        """A"""
        return self.action.shape[-1]

    def to(self, device) -> "Transitions":
        """The same transitions on `device`."""
        return Transitions(self.fields.to(device), self.behaviour, self.reward_transform)

    def rows(self, index: slice | torch.Tensor) -> "Transitions":
        """The transitions at `index`: a slice, which copies nothing, or numbers [M]."""
        return Transitions(self.fields[index])

    def extended(self, **columns: torch.Tensor) -> "Transitions":
        """These transitions with further fields [N, ...], which are sampled along with the others."""
        extended = TensorDict({**self.fields, **columns}, batch_size=self.fields.batch_size)
        return Transitions(extended, self.behaviour, self.reward_transform)

    def sample(self, batch_size: int, generator: torch.Generator) -> "Transitions":
        """`batch_size` transitions drawn uniformly with replacement, without leaving the device.

        `generator` must be one of that device; all it is asked for is one `torch.randint`.
        """
        index = torch.randint(self.size, (batch_size,), generator=generator, device=self.reward.device)
        # on a CPU, several times faster than indexing
        drawn = {name: column.index_select(0, index) for name, column in self.fields.items()}
        return Transitions(TensorDict(drawn, batch_size=[batch_size]))
