"""`mode=train`: a run, or the runs of several seeds together, trained to the end."""

from genpolicy.runs.job import Job
from genpolicy.runs.run import open_run


def run(job: Job) -> None:
    """Trains what the job says, from the last checkpoint if there is one."""
    if job.config.seeds:
        from genpolicy.training import lockstep

        lockstep.train(job.config, job.choices, job.sweep)
    else:
        from genpolicy.training.train import train

        train(open_run(job.config, job.choices, job.sweep))
