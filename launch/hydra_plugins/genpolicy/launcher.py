"""The launcher of a sweep in this process."""

import hashlib
import json
import sys
import textwrap
from collections.abc import Sequence

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from genpolicy.errors import UserError


def prepare(loader: ConfigLoader, master: DictConfig, job_overrides: Sequence[Sequence[str]]) -> list:
    """Every job of a sweep as a `genpolicy.app.Job`, all checked before the first is started or written."""
    from genpolicy import app, compose

    if not job_overrides:
        raise UserError("the sweep is empty: one of its patterns matches no option")
    jobs = []
    for number, overrides in enumerate(job_overrides):
        try:
            config = loader.load_sweep_config(master, list(overrides))
            with open_dict(config):
                config.hydra.job.id, config.hydra.job.num = str(number), number
            HydraConfig.instance().set_config(config)
            jobs.append(app.prepare(*compose.take_choices(config)))
        except Exception as error:
            raise UserError(f"{compose.explain(error)} (in the job {' '.join(overrides)})") from error
    return jobs


def sweep_name(jobs: Sequence) -> str:
    """A name that the same jobs of the same study always get: what varies, as given, and eight hexadecimal digits."""
    contents = [jobs[0].config.study, sorted(sorted(job.overrides) for job in jobs)]
    digits = hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:8]
    values: dict[str, set[str]] = {}
    for key, _, value in (word.partition("=") for job in jobs for word in job.overrides):
        values.setdefault(key, set()).add(value)
    varied = " ".join(f"{key}={','.join(sorted(given))}" for key, given in sorted(values.items()) if len(given) > 1)
    return f"{textwrap.shorten(varied, 100, placeholder='...')} ({digits})"


class Here(Launcher):
    """Runs the jobs of a sweep one by one in this process; a job that fails does not stop the others."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config_loader, self.config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from genpolicy import app, compose

        jobs = prepare(self.config_loader, self.config, job_overrides)
        sweep = sweep_name(jobs) if len(jobs) > 1 else None
        shared = set.intersection(*(set(job.overrides) for job in jobs))
        failed = []
        for number, job in enumerate(jobs, 1):
            varied = " ".join(word for word in job.overrides if word not in shared)
            title = f"job {number} of {len(jobs)}: {varied}".rstrip(": ")
            print(title, flush=True)
            try:
                app.start(job, sweep=sweep)
            except Exception as error:
                if len(jobs) == 1:
                    raise
                print(f"genpolicy: {title}: {compose.explain(error)}", file=sys.stderr, flush=True)
                failed.append(f"{number} ({varied})")
        if failed:
            raise UserError(f"{len(failed)} of {len(jobs)} jobs failed: {', '.join(failed)}")
        return [JobReturn(overrides=job.overrides, cfg=job.config, status=JobStatus.COMPLETED) for job in jobs]
