"""What is checked of runs before they are made, beyond their configurations: their data, memory and device."""

from collections.abc import Sequence

from genpolicy.config.schema import build
from genpolicy.runs.job import Job


def check(jobs: Sequence[Job], memory: float | None = None, here: bool = True) -> None:
    """Raises `UserError` if runs that are to be made lack their data or a GPU, or do not fit into so many bytes.

    memory: of where they will train; None for this machine's. here: whether that is this machine.
    """
    if here:
        devices(jobs)
    complete(jobs)
    training = [job for job in jobs if job.config.mode == "train"]
    if training:
        from genpolicy.network.encoder import require_parts  # which need torch, as some jobs do not
        from genpolicy.runs import provenance
        from genpolicy.training import memory as networks

        networks.check(training, memory)
        provenance.probe(training)
        encoding = (job.config for job in training if job.config.observation_parts)
        for config in {f"{config.env} {config.observation_parts}": config for config in encoding}.values():
            require_parts(config.observation_parts, build(config.env).observation_size)


def devices(jobs: Sequence[Job]) -> None:
    """Raises `UserError` if one of them needs a GPU, and there is none."""
    wanted = {(job.config.device, job.config.get("compile", "none")) for job in jobs}
    for device, mode in sorted(wanted):
        if device == "cuda" or mode == "cudagraphs":
            from genpolicy.training.setup import choose_device  # which needs torch

            choose_device(device, mode)


def complete(jobs: Sequence[Job]) -> None:
    """Completes the configurations of runs that begin with parts of others; raises `UserError` if there are none."""
    if given := [job for job in jobs if job.config.mode == "train" and any(job.config.init.values())]:
        from genpolicy.training import initial  # which needs torch

        initial.resolve(given)
