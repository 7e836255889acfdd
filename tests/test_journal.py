"""The journal: nothing twice, nothing lost, whatever a crash leaves of the file."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genpolicy.errors import UserError
from genpolicy.journal import Journal, read

STEPS = range(0, 60, 3)


def write(path, steps=STEPS, shift=0.0):
    journal = Journal(path)
    for step in steps:
        journal.log(
            step,
            {"a/loss": step / 7 + shift, "b": float("nan")} if step % 2 else {"a/loss": step / 7 + shift},
        )
        if step % 5 == 0:
            journal.log(step, {"eval/return_mean": shift + step}, returns=[1.0, 2.0])
    journal.close()


def plain(path):
    return [json.loads(line) for line in path.read_bytes().decode().splitlines()]


def keys(path):
    return [(name, event["step"]) for event in plain(path) for name in event["metrics"]]


@given(cut=st.floats(0, 1), garbage=st.binary(max_size=20))
def test_a_torn_journal_is_completed_without_a_double(tmp_path_factory, cut, garbage):
    folder = tmp_path_factory.mktemp("journal")
    write(folder / "whole")
    whole = (folder / "whole").read_bytes()
    kept = whole[: int(cut * len(whole))]
    (folder / "torn").write_bytes(kept + garbage)
    write(folder / "torn", shift=0.5)  # what is logged again may differ: the first record stands
    assert sorted(keys(folder / "torn")) == sorted(keys(folder / "whole"))
    complete = kept[: kept.rfind(b"\n") + 1]
    assert (folder / "torn").read_bytes().startswith(complete)


def test_reading_ends_before_a_line_still_being_written(tmp_path):
    write(tmp_path / "journal")
    content = (tmp_path / "journal").read_bytes()
    with open(tmp_path / "journal", "ab") as file:
        file.write(b'{"time": 1, "step": 60, "metr')
    found = list(read(tmp_path / "journal"))
    assert found[-1][1] == len(content)
    assert found[0][0] == json.loads(content.split(b"\n")[0])
    middle = found[4][1]
    assert list(read(tmp_path / "journal", middle)) == found[5:]


def test_every_event_is_readable_at_once_and_has_its_time(tmp_path):
    journal = Journal(tmp_path / "journal")
    journal.log(5, {"x": 1.5}, returns=[0.5, 2.5])
    (event,) = plain(tmp_path / "journal")
    assert event.pop("time") > 1_700_000_000_000
    assert event == {"step": 5, "metrics": {"x": 1.5}, "returns": [0.5, 2.5]}
    journal.log(5, {"x": 2.5})
    journal.log(4, {"x": 2.5, "y": 0.0})
    assert plain(tmp_path / "journal")[1]["metrics"] == {"y": 0.0}
    journal.close()


def test_a_folder_in_the_way(tmp_path):
    with pytest.raises(UserError, match="a file stands where a folder"):
        Journal(tmp_path)
