"""`mode=inspect`: what the policy of a run does, drawn."""

from pathlib import Path

from genpolicy.config.schema import build
from genpolicy.runs import provenance
from genpolicy.runs.job import Job
from genpolicy.training.setup import choose_device, find_run, fresh_algorithm, load, restore, stage_of


def run(job: Job) -> None:
    """Draws the policy of a run at observations of its data, into `figures/inspect-*.png` of the run directory.

    `checkpoint` is as for mode=eval, whose names of files it takes for policies that are not the trained one. MLflow
    and reports show the figures, as all that lie there. Raises `UserError` for rows, dimensions or episodes that the
    run does not have, and if it was made of other data, before anything is drawn.
    """
    from genpolicy.evaluation.inspection import Inspection  # matplotlib is slow to import

    found, path = find_run(job.config)
    config, device = found.config, choose_device(job.config.device)
    task = build(config.env)
    algorithm = fresh_algorithm(config, task, device)
    stage = stage_of(found, path, restore(algorithm, path))
    now, data = provenance.stamp(config), load(config, task, device)
    provenance.compare(found.directory, data, now)
    inspection = Inspection.of(algorithm.eval(), data, **job.config.inspect)

    def figure(name: str) -> Path:
        return found.path(f"figures/inspect-{stage}{name}.png")

    for drawn, said in inspection.draw(figure):
        print(drawn or said, flush=True)
