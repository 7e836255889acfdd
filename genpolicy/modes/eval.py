"""`mode=eval`: the policy of a run, evaluated again."""

import contextlib

from genpolicy.config.loader import settings_in
from genpolicy.errors import UserError
from genpolicy.runs import provenance
from genpolicy.runs.evaluations import Evaluation, with_chosen
from genpolicy.runs.identity import identity
from genpolicy.runs.job import Job
from genpolicy.runs.run import claim_run
from genpolicy.training.evaluate import evaluate, show
from genpolicy.training.setup import find_run, stage_of

DURING_TRAINING = {"eval.episodes", "eval.per_phase"}


def run(job: Job) -> None:
    """Evaluates the policy of an existing run again; prints the result, keeps it as `evaluation-*.json` there.

    `checkpoint` is a run directory, one of its checkpoints or an MLflow run id. The run's own configuration holds but
    for what the command says about this machine (device, threads, paths.data), about the size of the evaluation and, if
    it does, about solvers, the selection among candidates and how many actions of a chunk are played: nothing that
    training depends on. The episodes are those of the run's own final evaluation, as far as there are as many. What has
    been evaluated so before is answered from its record. Where the video of `eval.video` cannot be made, raises
    `UserError` when all else is done.
    """
    config = job.config
    for name in sorted(DURING_TRAINING & settings_in(job.overrides)):
        raise UserError(f"{name}: is of evaluations during training; mode=eval plays eval.final_episodes")
    found, path = find_run(config)
    wanted, chosen = with_chosen(found, job)
    if identity(wanted) != identity(found.config):
        raise UserError(
            f"solver, select, chunk.execute: the updates of {found.directory} depend on what is given, and another one "
            "makes another run; leave it out, or give other numbers of solver steps as in eval.steps=[1,2,5]"
        )
    asked = Evaluation.of(found.directory, wanted, chosen, stage_of(found, path))
    provenance.verify(found.directory, found.config)
    if asked.record() is not None and asked.path(".mp4").exists() >= config.eval.video:
        show(found, asked)
        return
    owned = found if asked.stage else claim_run(found.directory, 1.0)  # as the journal goes on
    with contextlib.closing(owned):
        if error := evaluate(found, asked, path, config.device):
            raise error
