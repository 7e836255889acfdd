"""Files that several processes share: atomic writing, and locks that die with their holder."""

import errno
import fcntl
import json
import math
import os
import socket
import time
from pathlib import Path

from genpolicy.errors import UserError


def write_atomically(path: Path, data: bytes) -> None:
    """Write the file so that a crash at any moment leaves the old content or the new, never a part.

    Only one process may write a given path at a time (the callers hold a lock). Raises `UserError` when the
    folder cannot be written or the disk is full; the old file is then still there.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> UserError:
    """The one line for a file that the system refuses to write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"{path}: the disk is full; free some space, or choose another paths.outputs=")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError(f"{path}: no permission to write; choose another paths.outputs=")
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return UserError(f"{path}: a file stands where a folder is needed (or the reverse); move it away")
    return UserError(f"{path}: cannot be written: {error.strerror or error}")


def _sync_folder(folder: Path) -> None:
    """Make a rename outlast a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Lock:
    """An exclusive `flock` on a file; the system lifts it when the holder ends, however it ends.

    It works between the machines of a cluster if the file system passes flock on: NFS does from Linux 2.6.12
    on unless mounted with `nolock` or `local_lock=flock`, Lustre when mounted with `-o flock`. Where there
    are no locks at all, `acquire` raises `UserError` and nothing starts. The file itself stays; it tells who
    holds the lock.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._handle: int | None = None

    def acquire(self, timeout: float = 0.0) -> bool:
        """Take the lock, waiting at most `timeout` seconds; returns whether it was taken."""
        deadline = time.monotonic() + timeout
        while not self._try():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        owner = {"pid": os.getpid(), "host": socket.gethostname()}
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, json.dumps(owner).encode(), 0)
        return True

    def release(self) -> None:
        """Give the lock back; nothing happens if it is not held."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
            _HELD.discard(self)

    def holder(self) -> str:
        """Who holds the lock, for a message: 'process 123 on host'."""
        try:
            owner = json.loads(self.path.read_text())
            return f"process {owner['pid']} on {owner['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"

    def __enter__(self):
        self.acquire(timeout=math.inf)
        return self

    def __exit__(self, *_):
        self.release()

    def _try(self) -> bool:
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise unwritable(self.path, error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        except OSError as error:
            os.close(handle)
            raise UserError(
                f"{self.path}: the file system has no locks ({error.strerror}); mount it with flock, "
                "or choose another paths.outputs="
            ) from error
        self._handle = handle
        _HELD.add(self)
        return True


_HELD: set[Lock] = set()


def _release_all() -> None:
    for lock in list(_HELD):
        lock.release()


os.register_at_fork(after_in_child=_release_all)  # a forked worker would keep the lock of a killed run alive


def is_locked(path: Path) -> bool:
    """Whether a living process holds the `Lock` on the file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # for a blink, which `acquire` must outwait
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
