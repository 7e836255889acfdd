"""D4RL's own files, in the cache that d4rl keeps, downloaded when they are missing."""

import functools
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import h5py

from genpolicy.config import plugins
from genpolicy.config.schema import component
from genpolicy.config.validation import Node
from genpolicy.dataset.dataset import cached_file
from genpolicy.dataset.hdf5 import FileDataset
from genpolicy.env.task import Task
from genpolicy.errors import UserError
from genpolicy.system.files import no_link
from genpolicy.system.progress import shown

ATTEMPTS = 3
CHUNK = 2**20
TIMEOUT = 30.0  # seconds without a byte


@component
class D4RL(FileDataset):
    """The data set that D4RL publishes for the task."""

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """Only D4RL's tasks have a file of D4RL's."""
        if config.env.url is None:
            raise UserError(f"dataset=d4rl does not go with env={config.env.name}: D4RL has no data for it")

    def source(self, task: Task) -> str:
        """D4RL's address of the file."""
        return task.url

    def location(self, task: Task) -> Path:
        """The file in the cache, under the name that d4rl gives it."""
        return cached(task.url, self.directory)

    def probe(self, task: Task) -> None:
        """The file must be in the cache, or its address one that may be asked."""
        place = self.location(task)
        if not place.exists():
            plugins.require_address(task.url)
        elif place.is_dir():
            raise UserError(f"env.url: {task.url} is the address of no file")

    def file(self, task: Task) -> Path:
        """The file in the cache, downloaded first if it is not there."""
        self.probe(task)
        return cached_file(self.location(task), functools.partial(download, task.url))


def cached(url: str, folder: Path) -> Path:
    """Where d4rl keeps the file of an address in its cache."""
    return folder / Path(urllib.parse.urlparse(url).path).name


def download(url: str, path: Path) -> None:
    """Fetches an HDF5 file to `path`, which appears only when it is complete and readable.

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
        with h5py.File(part, "r") as file:
            list(file)
    except OSError as error:
        part.unlink()
        raise _refusal(url, path, "what came is not a readable HDF5 file") from error
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
        with part.open("ab" if start else "wb") as file, shown(f"downloading {url}", total) as done:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                done(file.tell())
            return total is None or file.tell() == total


def _refusal(url: str, path: Path, reason: str) -> UserError:
    return UserError(
        f"{path.name} cannot be downloaded from {url} ({reason}); run again to resume the download, "
        f"or get the file elsewhere and place it at {path}"
    )
