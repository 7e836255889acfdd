"""The journal: nothing twice, nothing lost, whatever a crash leaves of the file."""

import errno
import json
import os
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genpolicy.errors import UserError
from genpolicy.runs.journal import Journal, read

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


def test_an_event_of_which_only_a_part_could_be_written_is_none(tmp_path):
    """Though what is written after it is whole, and the index, too."""
    path, (soft, hard) = tmp_path / "journal.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)
    write(path, range(0, 30, 3))
    journal, whole = Journal(path), keys(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
    try:
        with pytest.raises(UserError, match="cannot be written"):
            journal.log(100, {"a/loss": 1.0})
        journal.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    write(path, [100, 103])
    assert keys(path)[: len(whole)] == whole
    assert [step for name, step in keys(path)[len(whole) :] if name == "a/loss"] == [100, 103]


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


def test_a_disk_that_says_late_that_it_is_full_is_one_line(tmp_path, monkeypatch):
    """As one behind a network does, whose writes are made later."""

    def full(_):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    journal = Journal(tmp_path / "journal.jsonl")
    journal.log(1, {"loss": 1.0})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        journal.sync()
    journal.close()


def test_a_folder_in_the_way(tmp_path):
    with pytest.raises(UserError, match="a file stands where a folder"):
        Journal(tmp_path)


@given(kept=st.floats(0, 1), synced=st.integers(0, 20))
def test_a_killed_writer_is_gone_on_from_the_index_without_a_double(tmp_path_factory, kept, synced):
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    journal = Journal(path)
    for step in STEPS:
        journal.log(step, {"a": float(step), "once": 1.0} if step < 6 else {"a": float(step)})
        if step // 3 == synced:
            journal.sync()
            whole = len(path.read_bytes())
    whole = max(whole if synced < len(STEPS) else 0, int(kept * path.stat().st_size))
    os.truncate(path, whole)  # killed: what was synced is there, of the rest a part
    again = Journal(path)
    for step in STEPS:
        again.log(step, {"a": float(step), "once": 1.0} if step < 6 else {"a": float(step)})
    again.close()
    assert sorted(keys(path)) == sorted(
        {("a", step) for step in STEPS} | {("once", step) for step in STEPS if step < 6}
    )


def test_opening_reads_what_follows_the_index_only(tmp_path, monkeypatch):
    path = tmp_path / "journal.jsonl"
    write(path)
    offsets, real = [], read
    monkeypatch.setattr(
        "genpolicy.runs.journal.read", lambda path, offset=0: offsets.append(offset) or real(path, offset)
    )
    Journal(path).close()
    content = path.read_bytes()
    path.write_bytes(content.replace(b"a/loss", b"b/loss"))  # another journal of the same length: read from its start
    Journal(path).close()
    path.write_bytes(content[:100])
    Journal(path).close()
    assert offsets == [len(content), 0, 0]


def test_damage_before_the_end_is_said_and_nothing_is_cut_off(tmp_path):
    path = tmp_path / "journal.jsonl"
    write(path)
    (tmp_path / "journal.index").unlink()
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = b"".join([*lines[:3], lines[3].replace(b'"step"', b'"stop"'), *lines[4:]])
    path.write_bytes(damaged)
    for attempt in (lambda: Journal(path), lambda: list(read(path))):
        with pytest.raises(UserError, match=f"damaged at byte {sum(map(len, lines[:3]))}"):
            attempt()
    assert path.read_bytes() == damaged
