"""Sweeps on SLURM, by submitit: arrays of jobs, each of which trains one run or several that share a GPU.

A job is handed run directories, and the phases until which they are trained: what runs is their frozen configuration.
When its time is up, or a better claim comes, it has its runs save a checkpoint and is requeued; they go on where they
stopped. Phases that runs share have jobs of their own, which the runs' jobs wait for (`launch.graph`).
"""

import contextlib
import io
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig
from submitit import SlurmExecutor
from submitit.core.job_environment import JobEnvironment
from submitit.core.utils import DelayedSubmission, FailedJobError, FailedSubmissionError
from submitit.helpers import clean_env

from genpolicy.config import plugins, sbatch
from genpolicy.errors import UserError
from genpolicy.launch import pool
from genpolicy.launch.graph import Task, dependents, drawing, tasks, tell, title
from genpolicy.launch.sweep import Sweep, claimed, common_launch, missing
from genpolicy.runs.evaluations import is_pending
from genpolicy.runs.identity import label
from genpolicy.runs.run import load_run, slurm_job
from genpolicy.runs.state import known_status, settled
from genpolicy.system.files import write_atomically
from genpolicy.system.squeue import ask, max_array, state
from genpolicy.tracking import sync

USER_SIGNAL = signal.Signals[f"SIG{JobEnvironment.USR_SIG}"]  # by which SLURM tells a job to make room

# Python for a job: the signal may come before submitit listens, and would end the job; it is kept back until then.
PATIENT_PYTHON = shlex.join(
    (
        sys.executable,
        "-ISc",
        f"import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [{USER_SIGNAL:d}]); "
        "os.execv(sys.executable, [sys.executable, '-P', *sys.argv[1:]])",  # nothing is imported from where it starts
    )
)


class Work:
    """What a job does: submitit calls it with its tasks, and `checkpoint` when the job must make room.

    It is given the tasks (`launch.graph`), each with the run directories that wait for it. `failed` are those of them
    that have failed before the job was requeued.
    """

    def __init__(self, failed: Sequence[Task] = ()) -> None:
        self._permissions = plugins.permissions()
        self._failed = failed

    def __call__(self, given: Mapping[Task, Sequence[Path]]) -> None:
        """Return when all have ended. Raises `UserError` if runs have failed, so that the job fails too.

        Where a job trains phases, other jobs wait for its success: it fails if it has trained none.
        """
        os.environ |= self._permissions
        _rename(list(given))
        todo = [task for task in given if task not in self._failed]
        self._pool = pool.Pool(todo, pool.slots(pool.visible_gpus(), len(todo)), _report)
        self._pool.codes |= {before: int(_has_failed(before)) for task in given for before in task.after}
        self._pool.codes |= dict.fromkeys(self._failed, 1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [USER_SIGNAL])
        self._pool.run()
        self._requeue_if_preempted()
        failed = [task for task in given if self._pool.codes[task]]
        for task in failed:
            if not any(self._pool.codes[before] for before in task.after):
                tell(task, given[task])
        if failed and (len(failed) == len(given) or not failed[0].until):
            raise UserError(f"{len(failed)} of {len(given)} runs did not finish; see log.txt in their folders")

    def checkpoint(self, given: Mapping[Task, Sequence[Path]]) -> DelayedSubmission:
        """Has the runs save and end, in submitit's signal handler; what it returns is done by the requeued job."""
        self._pool.stop(signal.SIGUSR2)
        self._pool.run()
        codes = {task: self._pool.codes.get(task, 0) for task in given}
        failed = [task for task, code in codes.items() if code and not pool.was_interrupted(code)]
        return DelayedSubmission(Work(failed), given)

    def _requeue_if_preempted(self) -> None:
        """SLURM may have told the runs alone to end, by SIGTERM: to make room, or because the job is cancelled.

        A job that makes room is still running in SLURM's eyes; its own signal then has submitit requeue it.
        """
        if any(map(pool.was_interrupted, self._pool.codes.values())) and state(slurm_job()) == "RUNNING":
            signal.raise_signal(USER_SIGNAL)


def launch(jobs: Sequence, name: str | None = None) -> None:
    """Submit what is missing of a sweep of checked jobs (`runs.job.Job`; `Sweep.of` has the `name`), and return.

    With `launch.wait` returns when all have ended. Raises `UserError` for what SLURM refuses.
    """
    settings = common_launch(jobs)
    sweep = Sweep.of(jobs, name)
    executor = _executor(sweep, settings)
    if settings.dry_run:
        todo = {run: same[0].config for run, same in missing(jobs, sweep).items()}
        _show(executor, sweep, settings, tasks(todo))
        sweep.check()
        return
    with claimed(jobs, sweep) as runs, clean_env():  # as one may be inside a job oneself
        given: dict[Task, str] = {}
        todo = tasks({run: load_run(run).config for run in runs})
        for together in _alike(todo):
            _set_options(executor, settings, [given[before] for before in together[0].after])
            for part in _arrays(together, settings):
                given |= _submit(executor, part, todo)
    sync.start_follower(jobs[0].config)  # an earlier one may have ended too soon, so in any case
    print(f"watch: {sweep.watch}")
    if settings.wait:
        _wait(sweep, [job.directories[0] for job in jobs])
    sweep.check()


class _Preview(SlurmExecutor):
    """Shows what would be submitted, on any machine."""

    @classmethod
    def affinity(cls) -> int:
        return 1


def _executor(sweep: Sweep, settings: DictConfig) -> SlurmExecutor:
    kind = _Preview if settings.dry_run else SlurmExecutor
    if {"%", "\\"} & {*str(sweep.directory)}:
        raise UserError(
            f"paths.outputs: SLURM reads % and \\ in {sweep.outputs} as its own signs, and would write jobs' logs "
            "elsewhere; name another folder"
        )
    try:
        executor = kind(sweep.directory, max_num_timeout=settings.requeues, python=PATIENT_PYTHON)
    except RuntimeError as error:
        raise UserError("hydra/launcher=slurm: there is no srun here; use it on a login node of the cluster") from error
    executor.update_parameters(
        job_name=f"{sweep.study} {sweep.name}",
        time=settings.minutes,
        cpus_per_task=settings.cpus,
        mem=f"{round(1024 * settings.memory)}M",
        signal_delay_s=settings.grace_seconds,
        array_parallelism=settings.parallel or max_array(),
        setup=list(settings.setup),
        srun_args=[f"--cpus-per-task={settings.cpus}", *settings.srun],  # srun does not take the first since 22.05
        stderr_to_stdout=True,
        wckey=None,
    )
    return executor


def _alike(todo: Sequence[Task]) -> list[list[Task]]:
    """The tasks by what they wait for, which an array has in common; each after what it waits for."""
    found: dict[tuple, list[Task]] = {}
    for task in todo:
        found.setdefault((task.after, bool(task.until)), []).append(task)
    return list(found.values())


def _set_options(executor: SlurmExecutor, settings: DictConfig, jobs: Sequence[str]) -> None:
    """Gives sbatch its options for what is submitted next: also to wait for jobs; if one fails, SLURM cancels it."""
    options = sbatch.options(settings)
    if jobs:
        own = filter(None, [options.get("dependency"), f"afterok:{':'.join(jobs)}"])
        options |= {"dependency": ",".join(own), "kill_on_invalid_dep": "yes"}
    executor.update_parameters(additional_parameters=options)


def _arrays(todo: Sequence[Task], settings: DictConfig) -> Iterator[list[list[Task]]]:
    """The tasks by jobs, and the jobs by arrays that the cluster accepts."""
    size = settings.runs_per_gpu * max(1, sbatch.gpu_count(settings.gpus))
    jobs = [list(todo[start : start + size]) for start in range(0, len(todo), size)]
    limit = max_array()
    return (jobs[start : start + limit] for start in range(0, len(jobs), limit))


def _submit(executor: SlurmExecutor, jobs: Sequence[Sequence[Task]], todo: Sequence[Task]) -> dict[Task, str]:
    """Submit an array of the jobs of a sweep, and note with each run which it was given to. The job of each task."""
    told = [{task: dependents(task, todo) for task in each} for each in jobs]
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit repeats there what the error says
            submitted = executor.map_array(Work(), told)
    except (FailedJobError, FailedSubmissionError) as error:
        reasons = [line.removeprefix("sbatch: error: ").strip() for line in str(error).splitlines()]
        raise UserError(f"sbatch refused the job: {'; '.join(filter(None, reasons))}") from error
    given = {}
    for job, each in zip(submitted, jobs, strict=True):
        for task in each:
            given[task] = job.job_id
            write_atomically(task.run / "job.json", json.dumps({"job": job.job_id}).encode())
    first, last = submitted[0].job_id, submitted[-1].job_id
    print(f"submitted: {first}" + (f" to {last}" if last != first else ""), flush=True)
    return given


def _show(executor: SlurmExecutor, sweep: Sweep, settings: DictConfig, todo: Sequence[Task]) -> None:
    for line in drawing(todo, sweep.runs):
        print(line)
    numbers = {task: number for number, task in enumerate(todo)}
    for together in _alike(todo):
        _set_options(executor, settings, [f"<job of {numbers[before]}>" for before in together[0].after])
        for part in _arrays(together, settings):
            for number, each in enumerate(part):
                print(f"job {number}:", ", ".join(title(task, sweep.runs) for task in each))
            executor.parameters.pop("map_count", None)
            if len(part) > 1:
                executor.parameters["map_count"] = len(part)
            print(executor._make_submission_file_text(executor._submitit_command_str, "dry-run"))


def _wait(sweep: Sweep, runs: Sequence[Path]) -> None:
    """Return when none of these runs of a sweep is running or queued. Raises `UserError` if some have not finished."""
    found = settled(dict.fromkeys(runs))
    unfinished = [sweep.runs[run.directory] for run in found if run.state != "finished" or is_pending(run.directory)]
    if unfinished:
        raise UserError(
            f"{len(unfinished)} of {len(found)} runs have not finished ({unfinished[0]}, ...): {sweep.watch}"
        )


def _has_failed(task: Task) -> bool:
    """Whether a phase that another job was to train is not there, as its training has failed."""
    status = known_status(task.run)
    return status["state"] == "failed" and task.until not in status.get("phases", {})


def _rename(todo: Sequence[Task]) -> None:
    """Call the job by its runs, for squeue; an array has one name until its jobs start."""
    name = label(todo[0].run) + (f" +{len(todo) - 1}" if len(todo) > 1 else "")
    ask("scontrol", "update", f"JobId={slurm_job()}", f"JobName={name}")


def _report(task: Task, code: int) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(task.words)}: exit code {code}", flush=True)
