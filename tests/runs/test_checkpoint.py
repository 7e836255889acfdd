"""Checkpoints: what is saved comes back, and damage of any kind is one line."""

import pytest
import torch
from tiny import same

from genpolicy.errors import UserError
from genpolicy.runs import checkpoint

STATE = {
    "algorithm": {
        "weight": torch.arange(6.0).reshape(2, 3),
        "_extra_state": {"adam": {"step": torch.tensor(3.0)}},
    },
    "state": {"updates": 7, "best": {}, "results": {"final": {"score": 0.1}}},
    "generators": {"run": torch.Generator().manual_seed(3).get_state()},
}


def test_what_is_saved_comes_back(tmp_path):
    checkpoint.save(tmp_path / "last.pt", STATE)
    assert same(checkpoint.load(tmp_path / "last.pt"), STATE)


def test_damage_at_any_byte_is_found_or_harmless(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, STATE)
    whole, found = path.read_bytes(), []
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            assert same(checkpoint.load(path), STATE)
        except UserError as error:
            found.append(str(error))
    assert len(found) > 300
    assert all(line.startswith(f"{path}: not a readable checkpoint") and "\n" not in line for line in found)


def test_a_truncated_file_is_one_line(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, STATE)
    whole = path.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="not a readable checkpoint"):
            checkpoint.load(path)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no such checkpoint"):
        checkpoint.load(tmp_path / "last.pt")


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_code_in_a_checkpoint_is_not_run(tmp_path, capsys):
    torch.save({"algorithm": Evil()}, tmp_path / "last.pt")
    with pytest.raises(UserError, match=r"not a readable checkpoint \(it holds more than tensors and plain values\);"):
        checkpoint.load(tmp_path / "last.pt")  # and not how to load it all the same
    assert "executed" not in capsys.readouterr().out
