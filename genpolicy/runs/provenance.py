"""What data a run was made of: noted in its folder when they are first loaded, and held against them at every opening.

data.json      the digests of what is trained on and of what is held out, and the file or folder: path, size, last
               change
"""

from __future__ import annotations

import collections
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from genpolicy.config.schema import build
from genpolicy.errors import UserError
from genpolicy.runs import records
from genpolicy.runs.state import read_status
from genpolicy.system.files import write_atomically

if TYPE_CHECKING:
    from genpolicy.dataset.transitions import Transitions

NAME = "data.json"


class DataChanged(UserError):
    """A run was made of other data than its file holds now."""


def stamp(config: DictConfig) -> list | None:
    """The file of a configuration's data as it is now (`Dataset.stamp`); None without one."""
    return build(config.dataset, directory=config.paths.data).stamp(build(config.env))


def verify(directory: Path, config: DictConfig) -> None:
    """Raises `DataChanged` if the file of the data of a run directory has changed; one of the same time is not read.

    config: says where they are.
    """
    if (known := _noted(directory)) is None:
        return
    now = stamp(config)
    if now is not None and now != known.get("file"):
        parts = {name: OmegaConf.to_container(config[name]) for name in ("env", "dataset", "paths")}
        _compare(directory, known, _digests(json.dumps(parts), tuple(now)), now)


def keep(directory: Path, transitions: Transitions, now: list | None) -> None:
    """Writes down what the run of this process is made of, the first time; the next times as `compare`.

    now: the `stamp` before the transitions were loaded.
    """
    known, found = _noted(directory), _facts(transitions)
    if known is not None:
        _compare(directory, known, found, now)
    if known is None or known.get("file") != now:
        write_atomically(directory / NAME, json.dumps(found | {"file": now}, indent=1).encode())


def compare(directory: Path, transitions: Transitions, now: list | None) -> None:
    """Raises `DataChanged` if a run was made of other transitions than these. now: as for `keep`."""
    if (known := _noted(directory)) is not None:
        _compare(directory, known, _facts(transitions), now)


def digest_of(directory: Path) -> str | None:
    """The digest of what a run was trained on, if it is known."""
    return (_noted(directory) or {}).get("digest")


def _noted(directory: Path) -> dict | None:
    """What a run was made of, as far as it is known: older ones have noted a digest in their status only."""
    known = records.read(directory / NAME, records.STATUS["data"]) or read_status(directory).get("data")
    return known if known and "digest" in known else None


def _facts(transitions: Transitions) -> dict:
    held_out = transitions.held_out and transitions.held_out.digest()
    return {"digest": transitions.digest(), "held_out": held_out, "source": transitions.source}


@functools.lru_cache(maxsize=1000)
def _digests(parts: str, _stamp: tuple) -> dict:
    """`_facts` of a file, which the runs of a sweep share."""
    config = OmegaConf.create(json.loads(parts))
    return _facts(build(config.dataset, directory=config.paths.data).load(build(config.env)))


def _compare(directory: Path, known: dict, found: dict, now: list | None) -> None:
    names = [name for name in ("digest", "held_out") if known.get(name, found[name]) != found[name]]
    if not names:
        return
    then, here = (" and ".join(str(facts[name]) for name in names) for facts in (known, found))
    if now is not None and known.get("file") == now:
        raise DataChanged(
            f"{directory}: made of the data {then}, but this version of genpolicy reads {here} from the same file, "
            f"{now[0]}; take the version that made it, or overwrite=true trains anew"
        )
    raise DataChanged(
        f"{directory}: its data have changed: it was made of {then}, and {found['source']} has {here} now; put the old "
        "data back, or overwrite=true trains anew"
    )


def probe(jobs: Sequence) -> None:
    """Probes the data of runs that are to be made (`Dataset.probe`), each once; raises `UserError` for bad ones."""
    from genpolicy.algo.algorithm import horizon  # which imports torch

    configs, lengths = {}, collections.defaultdict(int)
    for job in jobs:
        config = job.config
        node = json.dumps([OmegaConf.to_container(config[name]) for name in ("env", "dataset")], sort_keys=True)
        if not all(directory.exists() for directory in job.directories):
            configs[node], lengths[node] = config, max(lengths[node], horizon(config))
    for node, config in configs.items():
        build(config.dataset, directory=config.paths.data).probe(build(config.env), lengths[node])
