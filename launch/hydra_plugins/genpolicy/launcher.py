"""The launchers: they compose and check all jobs of a sweep, and hand them to what carries them out."""

import sys
import time
from abc import abstractmethod
from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from genpolicy.errors import UserError

SAY_SECONDS = 5.0


class Prepared(Launcher):
    """A launcher of jobs that are all checked."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config_loader, self.config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        jobs = self.prepare(job_overrides)
        self.carry_out(jobs)
        return [JobReturn(overrides=job.overrides, cfg=job.config, status=JobStatus.COMPLETED) for job in jobs]

    def prepare(self, job_overrides: Sequence[Sequence[str]]) -> list:
        """Every job of a sweep as a `genpolicy.app.Job`, all checked before the first is started or written."""
        from genpolicy import app, compose

        if not job_overrides:
            raise UserError("the sweep is empty: one of its patterns matches no option")
        jobs, said = [], time.monotonic()
        for number, overrides in enumerate(job_overrides):
            if time.monotonic() - said > SAY_SECONDS:
                said = time.monotonic()
                print(f"checked {number} of {len(job_overrides)} jobs", flush=True)
            try:
                config = self.config_loader.load_sweep_config(self.config, list(overrides))
                with open_dict(config):
                    config.hydra.job.id, config.hydra.job.num = str(number), number
                HydraConfig.instance().set_config(config)
                jobs.append(app.prepare(*compose.take_choices(config)))
            except Exception as error:
                raise UserError(f"{compose.explain(error)} (in the job {' '.join(overrides)})") from error
        return jobs

    @abstractmethod
    def carry_out(self, jobs: Sequence, name: str | None = None) -> None:
        """Start the jobs, as a sweep of that name; raises `UserError` for what goes wrong."""


class Slurm(Prepared):
    """Submits the jobs to SLURM (genpolicy.slurm)."""

    def carry_out(self, jobs: Sequence, name: str | None = None) -> None:
        from genpolicy import slurm

        slurm.launch(jobs, name)


class Local(Prepared):
    """Runs the jobs side by side on this machine (genpolicy.local)."""

    def carry_out(self, jobs: Sequence, name: str | None = None) -> None:
        from genpolicy import local

        local.launch(jobs, name)


class Here(Prepared):
    """Runs the jobs of a sweep one by one in this process; a job that fails does not stop the others."""

    def carry_out(self, jobs: Sequence, name: str | None = None) -> None:
        from genpolicy import app, compose
        from genpolicy.sweep import Sweep, titles

        if len(jobs) == 1 and name is None:
            app.start(jobs[0])
            return
        sweep = Sweep.of(jobs, name)
        if jobs[0].config.mode == "train":
            sweep.save()
        failed = []
        for number, (job, varied) in enumerate(zip(jobs, titles(jobs), strict=True), 1):
            title = f"job {number} of {len(jobs)}: {varied}"
            print(title, flush=True)
            try:
                app.start(job, sweep=sweep.name)
            except Exception as error:
                print(f"genpolicy: {title}: {compose.explain(error)}", file=sys.stderr, flush=True)
                failed.append(f"{number} ({varied})")
        if failed:
            raise UserError(f"{len(failed)} of {len(jobs)} jobs failed: {', '.join(failed)}")
