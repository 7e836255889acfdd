"""How much memory the networks of a run take, known before there are any."""

import contextlib
import functools
import json
import operator
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from genpolicy.errors import UserError

FEW = 1e7  # products of neighbouring widths: with no more, networks fit anywhere
PARTS = ("algo", "model", "objective", "solver", "likelihood", "network", "critic", "select", "scaling", "chunk")
WIDTHS = ("hidden", "width", "ensemble", "time_size")  # end the names of settings on which it depends


def check(jobs: Sequence, there: float | None = None) -> None:
    """Raises `UserError` for the first training job (`runs.job.Job`) whose networks do not fit into memory.

    there: bytes where the runs will be; None for those of this machine, or of its GPU if one is used.
    """
    for config in (job.config for job in jobs):
        parts = {name: OmegaConf.to_container(config[name]) for name in PARTS}
        runs = max(1, len(config.seeds))
        if runs * _products(parts) <= FEW:
            continue  # so that nearly no command has to make networks for this
        size, count = _needed(json.dumps(parts, sort_keys=True))
        if runs * size <= (limit := there or here(config.device)):
            continue
        lower = " or ".join(_widths(config, parts, size))
        raise UserError(
            f"the networks take {runs * size / 2**30:,.1f} GiB of memory, more than there is ({limit / 2**30:,.1f} "
            f"GiB): {count:,} parameters, averages and copies included, with gradients, Adam's moments and room for a "
            f"checkpoint{f', of {runs} runs' if runs > 1 else ''}; lower {lower}"
        )


@functools.lru_cache(maxsize=1000)
def _needed(parts: str) -> tuple[int, int]:
    """Bytes that the networks of components take in training, without batches, and how many parameters they have."""
    import torch

    from genpolicy.algo.algorithm import assemble

    end = torch.ones(1)  # sizes of actions and observations hardly matter: with these no simulator is needed
    with torch.device("meta"):
        algorithm = assemble(OmegaConf.create(json.loads(parts) | {"observation_parts": []}), 1, -end, end)
    updates = [update for phase in algorithm.phases for update in phase.updates.values()]
    trained = sum(parameter.numel() for update in updates for parameter in update.parameters)
    count = sum(parameter.numel() for parameter in algorithm.parameters())
    return 4 * ((count + 3 * trained) + (count + 2 * trained)), count


def _products(parts: dict) -> int:
    """The products of neighbouring widths of all layers, roughly the number of weights of the largest networks."""
    total = 0
    for group in PARTS:
        for name, value in parts[group].items():
            if name.endswith(WIDTHS):
                widths = value if isinstance(value, list) else [value]
                times = 8 * parts[group]["blocks"] if name == "width" else parts[group].get("ensemble", 1)
                total += times * sum(map(operator.mul, widths, [*widths[:1], *widths]))
    return total


def here(device: str) -> float:
    """Bytes of memory on this machine, as far as this process may use it, or of its GPU."""
    import torch

    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory  # mem_get_info would take some for itself
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with contextlib.suppress(OSError, ValueError):  # where there is no such limit
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(limits)


def _widths(config: DictConfig, parts: dict, size: int) -> Iterator[str]:
    """The settings that matter: with each at its least, a tenth of `size` at least would not be needed."""
    for group in ("network", "critic", "algo"):
        for name, value in parts[group].items():
            if name.endswith(WIDTHS):
                least = parts | {group: parts[group] | {name: [1] if isinstance(value, list) else 1}}
                if _needed(json.dumps(least, sort_keys=True))[0] < 0.9 * size:
                    yield f"{group}.{name}"
