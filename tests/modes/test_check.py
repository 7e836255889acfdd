"""What `mode=check` says of errors."""

import numpy as np

from genpolicy.env.replay import Replay
from genpolicy.modes.check import _verdict


def replayed(parts: np.ndarray) -> Replay:
    no = np.zeros(len(parts), dtype=bool)
    return Replay(parts, np.zeros(len(parts)), no, no)


def test_the_parts_that_are_off_are_named():
    parts = np.zeros((10, 5))
    parts[:4, 2], parts[0, 0] = 1.0, 0.5
    told = _verdict(replayed(parts), 1e-3, "")
    assert "4 transitions (40.00%) are not within 0.001: a score here is not the same as" in told
    assert "part 2 in 40.00%, part 0 in 10.00% of the transitions; all others in 0.00%" in told


def test_data_without_the_whole_state_accuse_no_simulator():
    told = _verdict(replayed(np.ones((2, 3))), 1e-3, "the forces of contacts")
    assert "or that is because the data do not record the forces of contacts." in told
    assert "a score here" not in told
    assert "All within" in _verdict(replayed(np.zeros((2, 3))), 1e-3, "the forces of contacts")
