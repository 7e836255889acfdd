"""Folders of runs that come from other people: nothing outside them is read, written or shipped."""

import os

import pytest

from genpolicy.errors import UserError
from genpolicy.files import Lock, is_locked, make_folder, open_regular, read_regular, regular_files, write_atomically


@pytest.fixture
def private(tmp_path):
    """A file of the user's own, outside the folder `run`."""
    (tmp_path / "run").mkdir()
    (tmp_path / "private").write_bytes(b"secret")
    return tmp_path / "private"


def odd(folder, kind, target):
    """Something at `folder` / "file" that is no regular file."""
    path = folder / "file"
    match kind:
        case "link":
            path.symlink_to(target)
        case "dangling link":
            path.symlink_to(folder / "nowhere")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
    return path


ODD = ("link", "dangling link", "pipe", "folder", "device")


@pytest.mark.parametrize("kind", ODD)
def test_only_regular_files_are_read_appended_to_and_locked(tmp_path, private, kind):
    path = odd(tmp_path / "run", kind, private)
    before = sorted(tmp_path.rglob("*"))
    for use in (
        lambda: open_regular(path),
        lambda: read_regular(path),
        lambda: open_regular(path, "ab"),
        lambda: Lock(path).acquire(),
        lambda: is_locked(path),
    ):
        with pytest.raises(UserError, match="file"):
            use()
    assert Lock(path).holder() == "another process"
    assert list(regular_files(tmp_path / "run", "*")) == []
    assert private.read_bytes() == b"secret"
    assert sorted(tmp_path.rglob("*")) == before


def test_writing_replaces_a_link_and_knows_no_name_that_a_link_could_have(tmp_path, private):
    for name in ("file", ".file.tmp", ".file.0.tmp"):
        (tmp_path / "run" / name).symlink_to(private)
    write_atomically(tmp_path / "run" / "file", b"content")
    assert (tmp_path / "run" / "file").read_bytes() == b"content"
    assert not (tmp_path / "run" / "file").is_symlink()
    assert private.read_bytes() == b"secret"


def test_folders_that_are_links_are_none_of_a_run(tmp_path, private):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").write_bytes(b"private picture")
    (tmp_path / "run" / "figures").symlink_to(tmp_path / "elsewhere")
    assert list(regular_files(tmp_path / "run", "figures/*")) == []
    with pytest.raises(UserError, match="no regular file"):
        read_regular(tmp_path / "run" / "figures" / "a.png")
    with pytest.raises(UserError, match="a link, where genpolicy makes a folder"):
        make_folder(tmp_path / "run" / "figures")
    assert make_folder(tmp_path / "run" / "more").is_dir()


def test_a_file_of_any_size_is_not_read_into_memory(tmp_path):
    with open(tmp_path / "file", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match="more than 67,108,864 bytes"):
        read_regular(tmp_path / "file")


def test_what_is_missing_is_told_from_what_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "folder" / "file")
    with open_regular(tmp_path / "file", "ab") as file:
        file.write(b"one")
    with open_regular(tmp_path / "file", "ab") as file:
        file.write(b"two")
    assert read_regular(tmp_path / "file") == b"onetwo"
