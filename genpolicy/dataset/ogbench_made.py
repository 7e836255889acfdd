"""OGBench's data sets made here, by the package's own oracles and its authors' parameters (`ogbench_oracle`).

They are not OGBench's files: other seeds, other versions of the simulator. The file has the same layout, in the folder
of this program's data, and the versions that it was made with are part of its name. Episodes are made in parts, which
are kept until the file is complete, so that what was stopped goes on; each has a seed of its own, so that the file does
not depend on that, nor on how many processes make it. It depends on the processor, by which OpenBLAS and the C library
choose their kernels: contacts make a last digit another episode.
"""

import functools
import importlib.metadata
import itertools
import os
import shutil
import time
import zipfile
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import ClassVar

import numpy as np

from genpolicy.config.schema import component, digest, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.dataset import cached_file, require_space
from genpolicy.dataset.ogbench import OGBenchFile
from genpolicy.dataset.ogbench_oracle import Recorder, published_size
from genpolicy.env.ogbench import PREFIX, OGBench
from genpolicy.errors import UserError
from genpolicy.system.console import remark
from genpolicy.system.files import no_link
from genpolicy.system.forked import cores, forked, receive
from genpolicy.system.progress import shown

VERSION = 1  # to be raised whenever other data would come out
PART_ROWS = 2000  # at least so many are made between two times that they are kept
ALONE_SECONDS = 10.0  # work that takes one process no longer is not shared
EXPERTS = ("antmaze", "humanoidmaze", "antsoccer")


@component
class OGBenchMade(OGBenchFile):
    """The data set of the task as OGBench's authors make it, made once and kept."""

    option: ClassVar[str] = "ogbench_made"
    remedy: ClassVar[str] = "delete it, and it is made again"

    episodes: int | None = setting(None, ge=1, le=10**6, doc="episodes to make; null: as many as OGBench's has")
    steps: int | None = setting(None, ge=1, le=10**5, doc="transitions of each; null: as many as OGBench's have")
    seed: int = setting(0, ge=0, le=2**32 - 1, doc="seed of the data, not of the run")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """Ants and humanoids are recorded with experts, which the package does not have."""
        super().check_compatibility(config)
        if config.env.name.removeprefix(PREFIX).startswith(EXPERTS):
            raise UserError(
                f"dataset=ogbench_made does not go with env={config.env.name}: its data are made by trained experts, "
                "which are not in the package ogbench; give dataset=ogbench, or a point, cube, scene or puzzle"
            )

    def made(self, task: OGBench) -> tuple[int, int]:
        """As many as OGBench's has, or as is said."""
        episodes, steps = published_size(task.data.removesuffix("-v0"))
        return self.episodes or episodes, self.steps or steps

    def location(self, task: OGBench) -> Path:
        """The file of these settings, and of the versions that it is made with."""
        episodes, steps = self.made(task)
        versions = [importlib.metadata.version(package) for package in ("ogbench", "mujoco", "numpy")]
        settings = f"{episodes}x{steps}-seed{self.seed}-{digest([VERSION, *versions])}"
        return self.directory / f"genpolicy-made-{task.name}-{settings}.npz"

    def file(self, task: OGBench) -> Path:
        """The file of these settings, made first if it does not exist yet."""
        return cached_file(self.location(task), functools.partial(self._make, task))

    def _make(self, task: OGBench, path: Path) -> None:
        episodes, steps = self.made(task)
        recorder = Recorder(task.data.removesuffix("-v0"), steps)
        folder = no_link(path.with_suffix(".parts"))
        folder.mkdir(exist_ok=True)
        parts = _parts(folder, episodes, max(1, PART_ROWS // (steps + 1)))
        missing = {part: numbers for part, numbers in parts.items() if not part.exists()}
        left = sum(map(len, missing.values()))
        require_space(path.parent, (left + episodes) * (steps + 1) * recorder.row_bytes, path.name)
        with shown(f"making transitions of {task.data}", episodes * steps, (episodes - left) * steps) as advance:
            counted = itertools.count(episodes - left + 1)
            try:
                _record(recorder, self.seed, missing, lambda: advance(next(counted) * steps))
            except (KeyboardInterrupt, SystemExit):
                remark(f"{folder}: has what was made; the same command goes on with it")
                raise
        _join(list(parts), path)
        shutil.rmtree(folder)


def _parts(folder: Path, episodes: int, size: int) -> dict[Path, range]:
    """The files of the parts, and the numbers of the episodes in each."""
    return {folder / f"{start:07}.npz": range(start, min(start + size, episodes)) for start in range(0, episodes, size)}


def _record(recorder: Recorder, seed: int, parts: dict[Path, range], done: Callable[[], None]) -> None:
    """Makes the parts: the first ones here, and, if more would take long, the others on all cores."""
    begin = time.monotonic()
    for made, (part, numbers) in enumerate(parts.items(), start=1):
        _record_part(recorder, seed, part, numbers, done)
        left = len(parts) - made
        if left and min(cores(), left) > 1 and (time.monotonic() - begin) / made * left > ALONE_SECONDS:
            _record_beside(recorder, seed, dict(itertools.islice(parts.items(), made, None)), done)
            break


def _record_beside(recorder: Recorder, seed: int, parts: dict[Path, range], done: Callable[[], None]) -> None:
    count = min(cores(), len(parts))

    def work(worker: int, connection: Connection) -> None:
        for part, numbers in itertools.islice(parts.items(), worker, None, count):
            _record_part(recorder, seed, part, numbers, lambda: connection.send(False))
        connection.send(True)

    with forked(work, count) as connections:
        working = list(connections)
        while working:
            for connection in wait(working):
                if receive(connection):
                    working.remove(connection)
                else:
                    done()


def _record_part(recorder: Recorder, seed: int, part: Path, numbers: range, done: Callable[[], None]) -> None:
    played = []
    for number in numbers:
        played.append(recorder.episode(int(np.random.SeedSequence([seed, number]).generate_state(1)[0])))
        done()
    unfinished = part.with_suffix(".part")
    with unfinished.open("wb") as file:
        np.savez(file, **{name: np.concatenate([columns[name] for columns in played]) for name in played[0]})
    os.replace(unfinished, part)


def _join(parts: list[Path], path: Path) -> None:
    """Writes the file of all parts, a column at a time, as `numpy.savez_compressed` does."""
    unfinished = no_link(path.with_suffix(".part"))
    names = list(_read(parts[0]))
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name in names:
            column = np.concatenate([_read(part, name)[name] for part in parts])
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, column, allow_pickle=False)
    os.replace(unfinished, path)


def _read(part: Path, *names: str) -> dict[str, np.ndarray]:
    """Columns of a part by name; all without a name."""
    try:
        with np.load(part, allow_pickle=False) as file:
            return {name: file[name] for name in names or file}
    except (zipfile.BadZipFile, ValueError, EOFError, KeyError) as error:
        raise UserError(f"{part}: damaged; delete it, and it is made again") from error
