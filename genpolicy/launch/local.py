"""Sweeps on this machine, several runs at a time: one a GPU, or `launch.runs_per_gpu`."""

import math
import os
import signal
from collections.abc import Sequence

from omegaconf import DictConfig

from genpolicy.errors import UserError
from genpolicy.launch import pool
from genpolicy.launch.graph import Task, dependents, drawing, tasks, tell
from genpolicy.launch.sweep import Sweep, claimed, common_launch, missing
from genpolicy.runs.run import load_run, same_command
from genpolicy.runs.state import known_status
from genpolicy.system.files import last_line
from genpolicy.system.forecast import shown_left, time_left
from genpolicy.system.forked import cores
from genpolicy.system.signals import Interrupted, Signals
from genpolicy.tracking import sync


def launch(jobs: Sequence, name: str | None = None) -> None:
    """Run what is missing of a sweep of checked jobs (`runs.job.Job`; `Sweep.of` has the `name`).

    On a signal of `Signals.NOTED` has the runs save their checkpoints, and raises `Interrupted`. Raises
    `UserError` at the end if runs have failed.
    """
    settings = common_launch(jobs)
    sweep = Sweep.of(jobs, name)
    gpus = pool.visible_gpus()
    at_once = _at_once(settings, gpus)
    if settings.dry_run:
        todo = missing(jobs, sweep)
        drawn = drawing(tasks({run: same[0].config for run, same in todo.items()}), sweep.runs)
        for line in drawn or [f"  {sweep.runs[directory]}" for directory in todo]:
            print(line)
        sweep.check()
        return
    with claimed(jobs, sweep) as runs:
        todo = tasks({run: load_run(run).config for run in runs})
    # Another command that looks at them while they wait here starts them too; the locks keep them apart.
    if not runs:
        sweep.check()
        return
    took: list[float] = []

    def ended(task: Task, code: int) -> None:
        title = sweep.runs[task.run]
        unstarted = any(children.codes.get(before) for before in task.after)  # of which others may still run
        if task.until:
            if code == 0:
                print(f"{title}: {task.until} phase trained", flush=True)
            elif not unstarted and not pool.was_interrupted(code):
                tell(task, dependents(task, todo))
            return
        done = [other for other in children.codes if not other.until]
        if code == 0 and known_status(task.run)["state"] != "finished":
            outcome = "left to another process, which trains it"
        elif code == 0:
            took.append(children.seconds(task))
            running = [children.seconds(other) for other in children.running]
            outcome = "finished" + shown_left(time_left(took, running, len(children.waiting), at_once))
        elif unstarted:
            outcome = known_status(task.run).get("reason") or "not started, as a phase that it waits for was stopped"
        else:
            outcome = last_line(task.run / "log.txt")
        print(f"{len(done)} of {len(runs)}: {title}: {outcome}", flush=True)

    children = pool.Pool(todo, pool.slots(gpus, at_once), ended)
    with sweep.in_progress(), Signals() as signals, signals.deferred():
        sync.start_follower(jobs[0].config)  # which ends when no run is left to wait for
        print(f"at most {at_once} at once; watch: {sweep.watch}", flush=True)
        try:
            children.run(signals.check)
        except Interrupted:
            children.stop(signal.SIGTERM)
            children.run()
            print(f"stopped; {same_command(jobs[0].config.overwrite)} resumes it", flush=True)
            raise
    if said := sync.complaint(sweep.outputs):
        print(said, flush=True)
    if failed := [task.run for task, code in children.codes.items() if code and not task.until]:
        logs = ", ".join(str(run / "log.txt") for run in failed[:3])
        raise UserError(f"{len(failed)} of {len(runs)} runs failed: {logs}{', ...' if len(failed) > 3 else ''}")
    sweep.check()


def side_by_side(settings: DictConfig) -> int:
    """How many runs share the memory of this machine, or of one of its GPUs."""
    gpus = pool.visible_gpus()
    return math.ceil(_at_once(settings, gpus) / max(1, len(gpus)))


def _at_once(settings: DictConfig, gpus: Sequence[str]) -> int:
    return settings.parallel or len(gpus) * settings.runs_per_gpu or cores(otherwise=os.cpu_count() or 1)
