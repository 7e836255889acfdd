"""The launchers: they compose and check all jobs of a sweep, and hand them to what runs them."""

import gc
import json
import math
import sys
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from genpolicy.errors import UnknownSetting, UserError


class CheckedLauncher(Launcher):
    """A launcher of jobs that are all checked.

    waits: whether all have ended when `start_jobs` returns. here: whether they run on this machine.
    """

    waits: ClassVar[bool] = True
    here: ClassVar[bool] = True

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from genpolicy.config.arguments import HYDRA_GROUPS

        self.config_loader = hydra_context.config_loader
        self.own = [word for word in config.hydra.overrides.hydra if word.startswith(HYDRA_GROUPS)]

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        gc.freeze()  # else the thousands of objects of each job have all that is there, torch's too, looked through
        try:
            jobs = distinct(self.prepare(job_overrides))
        finally:
            gc.unfreeze()
        self.check(jobs)
        self.start_jobs(jobs)
        return [JobReturn(overrides=job.overrides, cfg=job.config, status=JobStatus.COMPLETED) for job in jobs]

    def check(self, jobs: Sequence) -> None:
        """Raises `UserError` if what the jobs need is not there where they run."""
        from genpolicy.training import checks

        checks.check(jobs, self.memory(jobs[0].config), self.here)

    def memory(self, config: DictConfig) -> float | None:
        """Bytes that a run may take where it runs; None: what there is on this machine."""
        return None

    def prepare(self, job_overrides: Sequence[Sequence[str]]) -> list:
        """Every job of a sweep as a `runs.job.Job`, all checked before the first is started or written.

        A setting that some of them lack is refused with the options that lack it.
        """
        from genpolicy.config import compose
        from genpolicy.runs.job import prepare
        from genpolicy.system import forecast

        if not job_overrides:
            raise UserError("the sweep is empty: one of its patterns matches no option, or one of its ranges is empty")
        jobs, unknown, tried, said = [], [], set(), forecast.now()
        for number, overrides in enumerate(job_overrides):
            chosen = compose.choosing(overrides)
            if unknown and chosen in tried:
                continue
            tried.add(chosen)
            if forecast.now() - said > forecast.SAY_SECONDS:
                said = forecast.now()
                print(f"checked {number} of {len(job_overrides)} jobs", flush=True)
            try:
                jobs.append(prepare(*compose.job(self.config_loader, [*self.own, *overrides], number)))
            except UnknownSetting as error:
                unknown.append(error)
            except Exception as error:
                if unknown:
                    continue
                where = f" (in the job {' '.join(overrides)})" if len(job_overrides) > 1 else ""
                raise UserError(f"{compose.explain(error)}{where}") from error
        if unknown:
            raise UserError(lacking(unknown, jobs))
        return jobs

    @abstractmethod
    def start_jobs(self, jobs: Sequence, name: str | None = None) -> None:
        """Start the jobs, as a sweep of that name; raises `UserError` for what goes wrong."""


def lacking(errors: Sequence[UnknownSetting], jobs: Sequence) -> str:
    """What is said of the first setting that jobs of a sweep lack, the others being the `jobs` that lack none."""
    first = errors[0]
    without = dict.fromkeys(error.option for error in errors if error.name == first.name)
    have = dict.fromkeys(job.choices.get(first.owner) for job in jobs)
    for option in without:
        have.pop(option, None)
    if first.option is None or not have:
        return str(first)
    return (
        f"{first.name}: {first.owner}={'|'.join(without)} {'has' if len(without) == 1 else 'have'} no such setting; "
        f"give it to a sweep over {first.owner}={'|'.join(have)} alone"
    )


def distinct(jobs: Sequence) -> list:
    """The jobs without those that say the same as one before; tells how many these are."""
    found: dict[str, Any] = {}
    for job in jobs:
        found.setdefault(json.dumps([OmegaConf.to_container(job.config), job.choices], sort_keys=True), job)
    if len(found) < len(jobs):
        print(
            f"{len(jobs) - len(found)} of {len(jobs)} jobs say the same as another one; each is done once", flush=True
        )
    return list(found.values())


class Slurm(CheckedLauncher):
    """Submits the jobs to SLURM (genpolicy.launch.slurm)."""

    waits = False  # unless launch.wait says so
    here = False

    def memory(self, config: DictConfig) -> float | None:
        if str(config.launch.gpus) != "0":
            return math.inf  # of a GPU we do not know
        return 1e9 * config.launch.memory / config.launch.runs_per_gpu

    def start_jobs(self, jobs: Sequence, name: str | None = None) -> None:
        from genpolicy.launch import slurm

        slurm.launch(jobs, name)


class Local(CheckedLauncher):
    """Runs the jobs side by side on this machine (genpolicy.launch.local)."""

    def memory(self, config: DictConfig) -> float | None:
        from genpolicy.launch import local
        from genpolicy.training import memory

        return memory.here(config.device) / local.side_by_side(config.launch)

    def start_jobs(self, jobs: Sequence, name: str | None = None) -> None:
        from genpolicy.launch import local

        local.launch(jobs, name)


class Sequential(CheckedLauncher):
    """Runs the jobs of a sweep one by one in this process; a job that fails does not stop the others."""

    def start_jobs(self, jobs: Sequence, name: str | None = None) -> None:
        from genpolicy import app
        from genpolicy.config import compose
        from genpolicy.launch.sweep import (
            Sweep,
            finished_already,
            launch_lock,
            overwrite_once,
            require_same,
            titles,
            verify_data,
        )
        from genpolicy.system import forecast

        if len(jobs) == 1 and name is None:
            app.start(jobs[0])
            return
        sweep = Sweep.of(jobs, name)
        if jobs[0].config.mode == "train":
            require_same(jobs, "paths")
            overwrite_once(jobs)
            verify_data(jobs)
            with launch_lock(sweep.outputs):
                sweep.save()
        failed, took = [], []
        todo = [not finished_already(job) for job in jobs]
        for number, (job, varied) in enumerate(zip(jobs, titles(jobs), strict=True), 1):
            title = f"job {number} of {len(jobs)}: {varied}"
            print(title + forecast.shown_left(forecast.time_left(took, [], sum(todo[number - 1 :]))), flush=True)
            begun = forecast.now()
            try:
                app.start(job, sweep=sweep.name)
                if todo[number - 1]:
                    took.append(forecast.now() - begun)
            except Exception as error:
                print(f"genpolicy: {title}: {compose.explain(error)}", file=sys.stderr, flush=True)
                failed.append(f"{number} ({varied})")
        if failed:
            raise UserError(f"{len(failed)} of {len(jobs)} jobs failed: {', '.join(failed)}")
