"""Files that several processes share: atomic writing, and locks that die with their holder.

Folders of runs may come from other people: only regular files are opened there, never what a link points to.
"""

import contextlib
import errno
import fcntl
import json
import math
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

from genpolicy.errors import UserError, printable

LARGEST = 2**26  # bytes of a file that is read at once
LOG_BYTES = 4096  # at the end of a log, in which its last line is looked for
_READING = os.O_RDONLY | os.O_NONBLOCK  # so that a pipe is not waited for


def write_atomically(path: Path, data: bytes) -> None:
    """Write the file so that a crash at any moment leaves the old content or the new, never a part.

    Only one process may write a given path at a time (the callers hold a lock). A link is replaced, not followed.
    Raises `UserError` when the folder cannot be written or the disk is full; the old file is then still there.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        _remove_leftovers(path)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def _remove_leftovers(path: Path) -> None:
    """Delete what killed writers of the file have left."""
    left = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}\.tmp")
    with os.scandir(path.parent) as entries:
        for entry in entries:
            if left.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def open_regular(path: Path, mode: str = "rb") -> BinaryIO:
    """A regular file, to read ("rb") or, made if it is not there, to append ("ab").

    Raises FileNotFoundError if there is none to read, and `UserError` for anything else: a link, a pipe, a folder, a
    device, a file that may not be opened.
    """
    flags = {"rb": _READING, "ab": os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK}[mode]
    try:
        handle = _open(path, flags)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and mode == "rb":
            raise
        raise (unwritable(path, error) if mode == "ab" else unreadable(path, error)) from error
    return open(handle, mode)


def read_regular(path: Path, largest: int = LARGEST) -> bytes:
    """The content of a file that `open_regular` opens; what it raises, and `UserError` above `largest` bytes."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > largest:
            raise UserError(f"{path}: of more than {largest:,} bytes, which genpolicy never writes there; move it away")
        try:
            return file.read()
        except OSError as error:
            raise unreadable(path, error) from error


def regular_files(folder: Path, *patterns: str) -> Iterator[Path]:
    """The regular files of a folder that match patterns such as "figures/*", in order; links are left out."""
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            if stat.S_ISREG(path.lstat().st_mode) and not path.parent.is_symlink():
                yield path


def make_folder(path: Path) -> Path:
    """The folder, made if it is not there, as are those above it. Raises `UserError` if it cannot be, or is a link."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    return no_link(path)


def no_link(path: Path) -> Path:
    """The path of what will be written by others than `write_atomically`. Raises `UserError` if it is a link."""
    if path.is_symlink():
        raise UserError(f"{path}: a link, where genpolicy makes a file or folder of its own; move it away")
    return path


def last_line(log: Path) -> str:
    """The last line with something in it; empty if there is no such file, or it is no regular one."""
    try:
        with open_regular(log) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except (FileNotFoundError, UserError):
        return ""
    return next((printable(line.strip()) for line in reversed(lines) if line.strip()), "")


def _open(path: Path, flags: int) -> int:
    """A handle of the regular file; a link is not followed."""
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.ELOOP, "not a regular file")
    return handle


@contextlib.contextmanager
def new_folder(path: Path, own: int = 0) -> Iterator[list[Path]]:
    """Makes the folder, with its parents, for what is then written there; yields those that were not there before.

    If that fails, they are removed again, unless something is in them. Raises `UserError` in place of any OSError, and
    if one of the last `own` folders of the path is a link.
    """
    made = []
    for folder in (path, *path.parents)[:own]:
        no_link(folder)
    try:
        made = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
        path.mkdir(parents=True, exist_ok=True)
        yield made
    except BaseException as error:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise unwritable(path, error) from error
        raise


def unreadable(path: Path, error: OSError) -> UserError:
    """The one line for a file of a run that is there and cannot be read."""
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR):
        return UserError(f"{path}: a link, a folder or something else that is no regular file; move it away")
    return UserError(f"{path}: cannot be read: {error.strerror or error}")


def unwritable(path: Path, error: OSError) -> UserError:
    """The one line for a file that the system refuses to write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"{path}: the disk is full; free some space, or choose another place, as by paths.outputs=")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError(f"{path}: no permission to write; choose another place, as by paths.outputs=")
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        blocked = (each for each in (path, *path.parents) if each.is_symlink() or each.is_file())
        return UserError(
            f"{next(blocked, path)}: a file stands where a folder is needed (or a link, or the reverse); move it away"
        )
    if error.errno in (errno.ELOOP, errno.ENXIO):
        return UserError(f"{path}: a link or something else that is no regular file; move it away")
    return UserError(f"{path}: cannot be written: {error.strerror or error}")


def _sync_folder(folder: Path) -> None:
    """Make a rename outlast a power failure, where the file system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of those that sync no folders, as some networks'
            raise
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
        with contextlib.suppress(OSError):  # a full disk: only who holds the lock is then not known
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
            owner = json.loads(read_regular(self.path))
            return f"process {owner['pid']} on {owner['host']}"
        except (OSError, UserError, ValueError, KeyError, TypeError):
            return "another process"

    def __enter__(self) -> Self:
        self.acquire(timeout=math.inf)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _try(self) -> bool:
        try:
            handle = _open(self.path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK)
        except OSError as error:
            raise unwritable(self.path, error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        except OSError as error:
            os.close(handle)
            raise _no_locks(self.path, error) from error
        if os.fstat(handle).st_nlink == 0:  # its last holder has deleted the file; others lock another one
            os.close(handle)
            return False
        self._handle = handle
        _HELD.add(self)
        return True


@contextlib.contextmanager
def being_written(path: Path) -> Iterator[None]:
    """While this process alone makes the file. Raises `UserError` if another one does."""
    lock = Lock(path.with_name(path.name + ".lock"))
    if not lock.acquire():
        raise UserError(f"{path}: another process is writing it")
    try:
        yield
    finally:
        lock.path.unlink()
        lock.release()


_HELD: set[Lock] = set()


def _release_all() -> None:
    for lock in list(_HELD):
        lock.release()


os.register_at_fork(after_in_child=_release_all)  # a forked worker would keep the lock of a killed run alive


def is_locked(path: Path) -> bool:
    """Whether a living process holds the `Lock` on the file.

    Raises `UserError` for what is no regular file, or if the file system has no locks.
    """
    try:
        handle = _open(path, _READING)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # for a blink, which `acquire` must outwait
    except BlockingIOError:
        return True
    except OSError as error:
        raise _no_locks(path, error) from error
    finally:
        os.close(handle)
    return False


def _no_locks(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{path}: the file system has no locks ({error.strerror}); mount it with flock, or choose another "
        "paths.outputs="
    )
