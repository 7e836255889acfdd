"""What is checked of runs before they are made, beyond their configurations: their data, and their memory."""

from collections.abc import Sequence

from genpolicy.runs.job import Job


def check(jobs: Sequence[Job], memory: float | None = None) -> None:
    """Raises `UserError` if runs that are to be made lack their data, or do not fit into so many bytes of memory.

    memory: of where they will train; None for this machine's.
    """
    complete(jobs)
    training = [job for job in jobs if job.config.mode == "train"]
    if training:
        from genpolicy.runs import provenance  # which need torch, as some jobs do not
        from genpolicy.training import memory as networks

        networks.check(training, memory)
        provenance.probe(training)


def complete(jobs: Sequence[Job]) -> None:
    """Completes the configurations of runs that begin with parts of others; raises `UserError` if there are none."""
    if given := [job for job in jobs if job.config.mode == "train" and any(job.config.init.values())]:
        from genpolicy.training import initial  # which needs torch

        initial.resolve(given)
