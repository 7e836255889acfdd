"""Batches of consecutive transitions, against loops over the rows."""

import numpy as np
import pytest
import torch
from composed import task
from hypothesis import given, settings
from hypothesis import strategies as st

from genpolicy.dataset import transitions
from genpolicy.dataset.nothing import Nothing
from genpolicy.dataset.sequences import Sequences
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError


def made(lengths: list[int], terminated: float = 0.0, **known) -> Transitions:
    """Episodes of these lengths, whose rows are told by their first observation."""
    draw, rows = np.random.default_rng(0), sum(lengths)
    observation = np.arange(rows)[:, None] + np.zeros((1, 2))
    arrays = {
        "observation": observation,
        "action": draw.uniform(-1, 1, (rows, 2)),
        "reward": draw.standard_normal(rows),
        "next_observation": observation + 1,
        "terminated": draw.uniform(size=rows) < terminated,
        "more": 10 * np.arange(rows),
    }
    ends = torch.zeros(rows, dtype=torch.bool)
    ends[np.cumsum(lengths) - 1] = True
    return Transitions.of(arrays, ends=ends, source="rows", **known)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(2, 5), st.booleans(), st.booleans())
def test_a_sequence_is_so_many_rows_of_an_episode(lengths, length, masked, chunked):
    transitions = made([*lengths, length], terminated=0.2)
    chunk = length if chunked else 1
    found = Sequences.of_transitions(transitions, length, chunk, 0.9, masked)
    assert torch.equal(found.table, transitions.table)  # nothing is copied several times
    episode = np.repeat(np.arange(len(lengths) + 1), [*lengths, length])
    last = transitions.size - length
    terminated = transitions.terminated.numpy()
    stops = np.searchsorted(episode, episode, side="right")  # the row after each one's episode
    begin = [row for row in range(len(episode)) if row + length <= stops[row] or terminated[stops[row] - 1]]
    assert found.starts.tolist() == (list(range(last + 1)) if masked else begin)
    batch = found.rows(found.starts)
    rewards = transitions.reward.double().numpy()
    for number, row in enumerate(found.starts.tolist()):
        stop = row + length if masked else min(row + length, stops[row])
        over = np.flatnonzero(terminated[row:stop])
        paid = stop if masked or not len(over) else row + over[0] + 1  # a reward counts up to a termination
        steps = np.arange(paid - row)
        assert batch.observation[number, 0] == row
        assert batch["more"][number] == 10 * row
        assert batch.next_observation[number, 0] == stop
        played = np.minimum(row + np.arange(chunk), stop - 1)
        assert torch.equal(batch.action[number], transitions.action[torch.from_numpy(played)].flatten())
        assert batch.reward[number].item() == pytest.approx((rewards[row:paid] * 0.9**steps).sum(), abs=1e-5)
        assert batch.terminated[number].item() == bool(len(over))
        if masked:
            inside = episode[row : row + length] == episode[row]
            assert batch["valid"][number].item() == inside.all()
            assert batch["valid_action"][number].tolist() == np.repeat(inside[:chunk], 2).astype(float).tolist()
    drawn = found.sample(50, torch.Generator().manual_seed(0))
    assert set(drawn.observation[:, 0].tolist()) <= set(found.starts.tolist())
    assert ("valid" in drawn.shapes) == masked


def test_a_subset_has_each_sequence_once():
    found = Sequences.of_transitions(made([5, 2, 4]), 3, 3, 0.9, masked=False)
    rows = found.subset(100, torch.Generator().manual_seed(0)).observation[:, 0].tolist()
    assert sorted(rows) == [0, 1, 2, 7, 8]


def test_a_batch_is_on_the_device_whatever_that_has_room_for(monkeypatch):
    data = Sequences.of_transitions(made([5, 7]), 3, 3, 0.9, masked=False)
    monkeypatch.setattr(transitions, "too_large", lambda *_: pytest.fail("asked the device for each batch"))
    assert data.sample(4, torch.Generator().manual_seed(0)).size == 4


def test_those_held_out_are_sequences_too():
    transitions = made([4, 4, 4]).split_held_out(torch.arange(4, 8))
    found = Sequences.of_transitions(transitions, 3, 3, 0.9, masked=True)
    whole = found.held_out.whole()
    assert whole.starts.tolist() == [0, 1]
    assert whole.rows(whole.starts).observation[:, 0].tolist() == [4, 5]
    assert found.sample(4, torch.Generator()).action_size == 6


@pytest.mark.parametrize("masked", [False, True])
def test_a_policy_is_judged_by_no_sequence_over_an_end(masked):
    """Nor, where the loss has left those out, by one that a termination cuts short."""
    transitions = made([5, 2, 4], terminated=1.0)
    found = Sequences.of_transitions(transitions, 3, 3, 0.9, masked).whole()
    assert found.starts.tolist() == ([0, 1, 2, 7, 8] if masked else list(range(11)))
    if masked:
        drawn = found.sample(50, torch.Generator().manual_seed(0))
        assert drawn["valid"].all()
    assert transitions.whole() is transitions


def test_further_fields_are_those_of_the_first_row_and_of_the_last_where_they_are_of_the_next_state():
    found = Sequences.of_transitions(made([5, 5]), 2, 2, 0.9, masked=False)
    batch = found.extended(column=torch.arange(10.0), next_column=torch.arange(10.0)).rows(slice(0, 4))
    assert batch["column"].tolist() == [0, 1, 2, 3]
    assert batch["next_column"].tolist() == [1, 2, 3, 4]


def test_no_data_have_no_sequences(tmp_path):
    nothing = Nothing(directory=tmp_path).load(task("multi-goal"))
    found = Sequences.of_transitions(nothing, 3, 3, 0.9, masked=False)
    assert (found.size, len(found.starts), len(found.ends)) == (0, 0, 0)


def test_episodes_must_be_known_and_long_enough():
    for length in (4, 9):
        with pytest.raises(UserError, match=f"^rows: no episode has {length} transitions"):
            Sequences.of_transitions(made([3, 2]), length, length, 0.9, masked=True)
    parted = made([4, 2]).split_held_out(torch.arange(4, 6))
    with pytest.raises(UserError, match=r"^rows, what is held out of it: no episode has 4 transitions"):
        Sequences.of_transitions(parted, 4, 4, 0.9, masked=False)
    unknown = Transitions.of({"observation": np.zeros((9, 1)), "action": np.zeros((9, 1))}, source="rows")
    with pytest.raises(UserError, match="tells no episodes"):
        Sequences.of_transitions(unknown, 2, 2, 0.9, masked=False)
