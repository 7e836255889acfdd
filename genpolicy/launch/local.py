"""Sweeps on this machine, several runs at a time: one a GPU, or `launch.runs_per_gpu`."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from genpolicy.errors import UserError
from genpolicy.launch import pool
from genpolicy.launch.sweep import Sweep, claimed, common_launch, missing
from genpolicy.system.files import last_line
from genpolicy.system.forecast import shown_left, time_left
from genpolicy.system.signals import Interrupted, Signals
from genpolicy.tracking import follower


def launch(jobs: Sequence, name: str | None = None) -> None:
    """Run what is missing of a sweep of checked jobs (`runs.job.Job`; `Sweep.of` has the `name`).

    On SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 has the runs save their checkpoints, and raises `Interrupted`. Raises
    `UserError` at the end if runs have failed.
    """
    settings = common_launch(jobs)
    sweep = Sweep.of(jobs, name)
    gpus = pool.visible_gpus()
    at_once = settings.parallel or len(gpus) * settings.runs_per_gpu or os.cpu_count()
    if settings.dry_run:
        for directory in missing(jobs, sweep):
            print(f"  {sweep.runs[directory]}")
        sweep.check()
        return
    with claimed(jobs, sweep) as runs:
        pass  # another command that looks at them while they wait here starts them too; the locks keep them apart
    if not runs:
        sweep.check()
        return
    took: list[float] = []

    def ended(directory: Path, code: int) -> None:
        if code == 0:
            took.append(children.seconds(directory))
            running = [children.seconds(other) for other in children.running]
            outcome = "finished" + shown_left(time_left(took, running, len(children.waiting), at_once))
        else:
            outcome = last_line(directory / "log.txt")
        print(f"{len(children.codes)} of {len(runs)}: {sweep.runs[directory]}: {outcome}", flush=True)

    children = pool.Pool(runs, pool.slots(gpus, at_once), ended)
    with sweep.in_progress(), Signals() as signals, signals.deferred():
        follower.start_follower(jobs[0].config)  # which ends when no run is left to wait for
        print(f"at most {at_once} at once; watch: {sweep.watch}", flush=True)
        try:
            children.run(signals.check)
        except Interrupted:
            children.stop(signal.SIGTERM)
            children.run()
            print("stopped; the same command resumes it", flush=True)
            raise
    if said := follower.complaint(sweep.outputs):
        print(said, flush=True)
    if failed := [run for run, code in children.codes.items() if code]:
        logs = ", ".join(str(run / "log.txt") for run in failed[:3])
        raise UserError(f"{len(failed)} of {len(runs)} runs failed: {logs}{', ...' if len(failed) > 3 else ''}")
    sweep.check()
