"""Atomic writing and locks, with real processes that are really killed."""

import contextlib
import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from genpolicy.errors import UserError
from genpolicy.system.files import Lock, is_locked, make_folder, write_atomically

WRITER = """
import sys
from pathlib import Path
from genpolicy.system.files import write_atomically
number = 0
while True:
    number += 1
    write_atomically(Path(sys.argv[1]), bytes([number % 256]) * 3_000_000)
    if number == 1:
        print("begun", flush=True)
"""
HOLDER = """
import os, sys, time
from pathlib import Path
from genpolicy.system.files import Lock
print(Lock(Path(sys.argv[1])).acquire(), flush=True)
if os.fork() == 0:              # as a simulator's worker would be: it outlives its parent
    print(os.getpid(), flush=True)
time.sleep(60)
"""


def python(code, *arguments):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("seconds", [0.0, 0.003, 0.011, 0.017, 0.029, 0.041])
def test_a_killed_writer_leaves_a_whole_file(tmp_path, seconds):
    writer = python(WRITER, tmp_path / "file")
    assert writer.stdout.readline() == "begun\n"
    time.sleep(seconds)
    writer.kill()
    writer.communicate()
    content = (tmp_path / "file").read_bytes()
    assert len(content) == 3_000_000
    assert len(set(content)) == 1
    write_atomically(tmp_path / "file", b"after")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_lock_keeps_others_out_and_ends_with_a_killed_holder(tmp_path):
    path = tmp_path / "lock"
    holder = python(HOLDER, path)
    assert holder.stdout.readline() == "True\n"
    worker = int(holder.stdout.readline())
    try:
        lock = Lock(path)
        assert not lock.acquire()
        assert is_locked(path)
        assert lock.holder().startswith(f"process {holder.pid} on ")
        holder.kill()
        holder.wait()
        assert lock.acquire(timeout=1.0)
        assert not Lock(path).acquire()
        lock.release()
        assert not is_locked(path)
    finally:
        os.kill(worker, signal.SIGKILL)
        holder.stdout.close()


def test_a_lock_on_a_file_that_its_last_holder_has_deleted_is_none(tmp_path, monkeypatch):
    """Deleted after it was opened, and before it was locked: the next one locks a new file."""
    lock, real = Lock(tmp_path / "lock"), fcntl.flock

    def deleted(*arguments):
        monkeypatch.setattr(fcntl, "flock", real)
        lock.path.unlink()
        real(*arguments)

    monkeypatch.setattr(fcntl, "flock", deleted)
    assert lock.acquire(timeout=1.0)
    assert not Lock(lock.path).acquire()


def test_is_locked_of_a_lock_that_never_was(tmp_path):
    assert not is_locked(tmp_path / "lock")


def test_a_file_system_without_locks_is_one_line(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    (tmp_path / "lock").touch()
    monkeypatch.setattr(fcntl, "flock", flock)
    for asked in (lambda: is_locked(tmp_path / "lock"), Lock(tmp_path / "lock").acquire):
        with pytest.raises(UserError, match=r"lock: the file system has no locks \(No locks available\); mount it"):
            asked()


def test_a_full_disk_is_one_line_and_keeps_the_old_file(tmp_path):
    code = """
import resource, signal, sys
from pathlib import Path
from genpolicy.system.files import write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomically(Path(sys.argv[1]), bytes(5000))
except Exception as error:
    print(type(error).__name__, error)
"""
    (tmp_path / "file").write_bytes(b"old")
    said = python(code, tmp_path / "file").communicate()[0]
    assert said == f"UserError {tmp_path}/file: cannot be written: File too large\n"
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("way", ["file", "link"])
def test_what_is_in_the_way_of_a_folder_is_named(tmp_path, way):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(UserError, match=f"^{tmp_path / way}: a file stands where a folder is needed"):
        make_folder(tmp_path / way / "study" / "run")


def test_a_folder_in_the_way_is_one_line(tmp_path):
    (tmp_path / "file" / "inside").mkdir(parents=True)
    with pytest.raises(UserError, match="a file stands where a folder is needed"):
        write_atomically(tmp_path / "file", b"content")


@pytest.mark.parametrize(("number", "written"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_a_file_system_that_syncs_no_folders_is_written_to(tmp_path, monkeypatch, number, written):
    def sync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", sync)
    with contextlib.nullcontext() if written else pytest.raises(UserError, match="cannot be written"):
        write_atomically(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
