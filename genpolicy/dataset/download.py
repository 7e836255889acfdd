"""Files fetched over http: whole or not at all, resumed after a break; data sets that are such a file."""

import functools
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from genpolicy.config import plugins
from genpolicy.dataset.dataset import Dataset, cached_file, require_space
from genpolicy.env.task import Task
from genpolicy.errors import UserError
from genpolicy.system.files import no_link
from genpolicy.system.progress import shown

ATTEMPTS = 3
CHUNK = 2**20
TIMEOUT = 30.0  # seconds without a byte


class Downloaded(Dataset):
    """A data set that is one file, at the address that the task knows, and in the cache that its own package keeps."""

    def source(self, task: Task) -> str:
        """The address of the file."""
        return task.url

    def location(self, task: Task) -> Path:
        """The file in the cache, under the name that the package gives it."""
        return task.data_file(self.directory)

    def probe(self, task: Task, length: int = 1) -> None:
        """The file must be in the cache, or its address one that may be asked."""
        place = self.location(task)
        if not place.exists():
            plugins.require_address(task.url)
        elif place.is_dir():
            raise UserError(f"env.url: {task.url} is the address of no file")

    def fetched(self, task: Task, check: Callable[[Path], None], kind: str) -> Path:
        """The file in the cache, downloaded first if it is not there. check, kind: as for `download`."""
        self.probe(task)
        return cached_file(self.location(task), functools.partial(download, task.url, check=check, kind=kind))


def download(url: str, path: Path, check: Callable[[Path], None], kind: str = "HDF5") -> None:
    """Fetches a file to `path`, which appears only when it is complete and readable: where `check` raises no `OSError`.

    What was fetched before a break stays in `<path>.part`; the download resumes there, at once and in the next run.
    Raises `UserError` if the file cannot be had, with what to do by hand.
    """
    if urllib.parse.urlparse(url).scheme not in ("http", "https"):
        raise UserError(f"env.url: {url} is not an http or https address")
    part = no_link(path.with_name(path.name + ".part"))
    reason = ""
    for _ in range(ATTEMPTS):
        try:
            if _fetch(url, part):
                break
            reason = "the connection broke off"
        except urllib.error.HTTPError as error:
            reason = f"the server says {error.code} {error.reason}"
            if error.code < 500:
                raise _refusal(url, path, reason) from error
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
    else:
        raise _refusal(url, path, reason)
    try:
        check(part)
    except OSError as error:
        part.unlink()
        raise _refusal(url, path, f"what came is not a readable {kind} file") from error
    os.replace(part, path)


def _fetch(url: str, part: Path) -> bool:
    """Appends what `part` lacks; true if it is then complete, as far as the server tells its size."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise
        if error.headers.get("Content-Range") == f"bytes */{start}":
            return True
        part.unlink()  # longer than the file itself: not a part of it
        return False
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            start = 0  # the server sends the whole file again
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        if total:
            require_space(part.parent, total - start, url)
        with part.open("ab" if start else "wb") as file, shown(f"downloading {url}", total, start) as done:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                done(file.tell())
            return total is None or file.tell() == total


def _refusal(url: str, path: Path, reason: str) -> UserError:
    return UserError(
        f"{path.name} cannot be downloaded from {url} ({reason}); run again to resume the download, "
        f"or get the file elsewhere and place it at {path}"
    )
