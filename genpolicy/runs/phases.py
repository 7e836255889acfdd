"""Phases that runs share: trained once, and loaded by every other run that has the same.

    outputs/phases/<key>/
        weights.pt      the parts that the phase has trained, and the states of its optimisers
        journal.jsonl   its metrics, over its own updates
        phase.json      who trained it, from what, with what, for how long; written last: with it the phase is there
        lock            held by the process that trains it

The key is a digest of all that the weights follow from: the phase's settings and those of its parts, the earlier
phases that it reads, the data, the seed, the precision. What else may change the last bits (`circumstances`) is noted.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.util
import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, OmegaConf

from genpolicy.algo.algorithm import Algorithm, horizon
from genpolicy.algo.phase import Phase
from genpolicy.config.schema import TARGET, always_training, digest, modules
from genpolicy.errors import UserError
from genpolicy.runs import checkpoint, journal, records
from genpolicy.system.files import Lock, make_folder, no_link, regular_files, write_atomically

if TYPE_CHECKING:
    from genpolicy.runs.run import Run

FOLDER = "phases"
DIGITS = 16
FILES = ("phase.json", "journal.jsonl", "weights.pt", "lock")
ROOMS = ("network", "model", "solver", "objective", "dataset", "critic", "algo")  # whose code makes weights
CORE = ("genpolicy.algo.algorithm", "genpolicy.algo.settings", "genpolicy.algo.update")
CORE += ("genpolicy.dataset.scaling", "genpolicy.dataset.sequences")
RECORD = {"name": str, "run": str, "commit": records.Text, "steps": int, "seconds": records.Number}
RECORD |= {"made": records.Number, "circumstances": {str: str}, "evaluations": str, "key": dict}


class SharedPhase:
    """The place of one phase in the folder of all runs, which may be empty. Raises `UserError` for what is no place.

    content: what its key is the digest of.
    """

    def __init__(self, outputs: Path, content: dict):
        self.content, self.key = content, digest(content, DIGITS)
        self.directory = make_folder(Path(outputs) / FOLDER) / self.key
        self.lock = Lock(self.directory / "lock")

    def claim(self, timeout: float) -> bool:
        """Take the lock, waiting so many seconds; whether it was taken."""
        make_folder(self.directory)
        return self.lock.acquire(timeout)

    def load(self) -> tuple[dict, list[dict]]:
        """The weights and states, as `save` took them, and the events of the journal. Raises `UserError` if damaged."""
        return checkpoint.load(self.directory / "weights.pt"), journal.events(self.directory / "journal.jsonl")

    def save(self, weights: dict, events: Iterable[dict], **facts: Any) -> None:
        """Write the phase down; the caller holds the lock. facts: those of `RECORD` that are not known here."""
        make_folder(self.directory)
        (self.directory / "phase.json").unlink(missing_ok=True)
        checkpoint.save(self.directory / "weights.pt", weights)
        lines = "".join(json.dumps(event) + "\n" for event in events)
        write_atomically(self.directory / "journal.jsonl", lines.encode())
        record = {"key": self.content, "made": time.time(), **facts}
        write_atomically(self.directory / "phase.json", json.dumps(record, indent=1).encode())


def shared(outputs: Path) -> Iterator[Path]:
    """The folders of phases below the folder of all runs, in order. Raises `UserError` if theirs is a link."""
    for path in sorted(no_link(Path(outputs) / FOLDER).glob("*")):
        if re.fullmatch(f"[0-9a-f]{{{DIGITS}}}", path.name) and path.is_dir() and not path.is_symlink():
            yield path


def size(directory: Path) -> int:
    """The bytes of a phase's files."""
    return sum(path.lstat().st_size for path in regular_files(directory, *FILES))


def delete(directory: Path) -> bool:
    """Delete a phase, unless a process has it; whether it was deleted."""
    lock = Lock(directory / "lock")
    if not lock.acquire():
        return False
    try:
        for path in regular_files(directory, *FILES):
            path.unlink()
        with contextlib.suppress(OSError):  # somebody else's files
            directory.rmdir()
        return True
    finally:
        lock.release()


def read_record(directory: Path) -> dict | None:
    """The phase.json of a phase's folder; None if there is none. Raises `UserError` for a damaged one."""
    record = records.read(directory / "phase.json", RECORD)
    if record is not None and record.keys() != RECORD.keys():
        raise UserError(f"{directory / 'phase.json'}: not what genpolicy writes there; move it away")
    return record


def recipe(config: DictConfig, phases: Sequence[Phase], name: str) -> dict | None:
    """What a phase's weights follow from, beside the data, the seed and the arithmetic; None if it is not shared."""
    phase = next(phase for phase in phases if phase.name == name)
    if not phase.depends:
        return None
    found: dict[str, Any] = {"phase": name, "steps": phase.steps, "batch_size": phase.batch_size}
    for part in phase.depends:
        value = OmegaConf.select(config, part)
        found[part] = always_training(value) if OmegaConf.is_config(value) and TARGET in value else value
    if (length := horizon(config)) > 1:
        found["sequences"] = {"length": length, "chunk": config.chunk.length}
    if config.observation_parts:
        found["observation_parts"] = list(config.observation_parts)
    # Which tensors there are: a moving average is kept or not, as others need it.
    found["trains"] = {part: sorted(module.state_dict()) for part, module in phase.trains.items()}
    names = [other.name for other in phases]
    found["reads"] = {earlier: recipe(config, phases, earlier) for earlier in phase.reads if earlier in names}
    found["init"] = OmegaConf.to_container(config.init.digests)
    found["code"] = sorted({function.__module__ for function in phase.functions} - {*CORE})
    return None if None in found["reads"].values() else found


def content(run: Run, algorithm: Algorithm, data: str, phase: Phase) -> dict | None:
    """What the key of a phase of a run is the digest of; None if the phase is not shared. data: the data's digest."""
    made = recipe(run.config, algorithm.phases, phase.name)
    if made is None:
        return None
    space = {"low": algorithm.scaling.low.tolist(), "high": algorithm.scaling.high.tolist()}
    return {
        "recipe": made,
        "data": data,
        "scaling": OmegaConf.to_container(run.config.scaling) | space,
        "seed": run.config.seed,
        "precision": phase.precision(run.config.precision),
    }


def circumstances(run: Run, made: dict, device: torch.device, together: bool) -> dict[str, str]:
    """What may change the last bits of a phase's weights beside its key, as text. made: its `recipe`.

    together: whether it is trained with other seeds at once.
    """
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    told = {"torch": torch.__version__, "device": kind, "threads": run.config.threads, "compile": run.config.compile}
    told |= {"together": together, "code": code(used(made))}
    return {name: str(value) for name, value in told.items()}


def used(made: dict) -> set[str]:
    """The modules of a recipe, and of those that it reads; of a configuration those of its components."""
    earlier = (name for each in made.get("reads", {}).values() for name in used(each))
    return {*modules(made), *made.get("code", ()), *earlier}


def code(modules: Iterable[str]) -> str:
    """Eight digits of the code that weights depend on (`sources`)."""
    return digest(sources(modules))


def sources(modules: Iterable[str]) -> dict[str, str]:
    """Modules, those of `CORE` and what these import of `ROOMS`, with digests of their code without comments."""
    seen: dict[str, str] = {}
    waiting = [*CORE, *modules]
    while waiting:
        name = waiting.pop()
        package, *room = name.split(".")
        if name not in seen and (package != "genpolicy" or room[0] in ROOMS):
            seen[name], imported = _module(name)
            waiting += imported
    return seen


@functools.cache
def _module(name: str) -> tuple[str, list[str]]:
    """The digest of a module's code, without comments and docstrings, and what it imports of genpolicy."""
    tree = ast.parse(Path(importlib.util.find_spec(name).origin).read_text())
    imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    digits = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
    own = ("genpolicy.", f"{name.partition('.')[0]}.")
    return digits, [module for module in imported if module.startswith(own)]
