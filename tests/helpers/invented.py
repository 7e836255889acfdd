"""Transitions of nothing at all, of fixed sizes, for the tests of updates."""

import numpy as np

from genpolicy.dataset.transitions import Transitions

OBSERVATION, ACTION = 5, 2


def transitions(size: int) -> Transitions:
    """Random observations [size, 5], actions [size, 2] within -1 and 1, rewards and terminations; always the same."""
    draw = np.random.default_rng(0).standard_normal
    arrays = {"observation": draw((size, OBSERVATION)), "action": draw((size, ACTION)).clip(-1, 1)}
    arrays |= {"reward": draw(size), "next_observation": draw((size, OBSERVATION)), "terminated": draw(size) > 1}
    return Transitions.of(arrays)
