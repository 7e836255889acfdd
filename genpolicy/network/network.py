"""What the backbones have in common."""

from typing import ClassVar

from torch import nn


class Network(nn.Module):
    """A backbone: x [B, input_size], times t [B] or [B, times], observations [B, O] -> an output [B, A].

    It is made with `action_size`, `observation_size`, `num_times` (times that it is told at once) and `input_size`
    (of x; None: an action's), which only a run knows, and keeps the sizes of x and of an action as attributes.
    """

    takes_chunks: ClassVar[bool] = False  # whether it is made with `chunk_length`, the actions of a chunk
    takes_heads: ClassVar[bool] = False  # whether it is made with `heads`, how many outputs [B, A] it gives
