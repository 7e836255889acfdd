"""Weights & Biases' view of runs: each is a run there, with its own id, in the project of its study.

Account, address and mode are wandb's own environment variables (WANDB_API_KEY, WANDB_BASE_URL, WANDB_MODE, ...).
"""

import os
from pathlib import Path

import wandb
from omegaconf import OmegaConf

from genpolicy.runs import identity
from genpolicy.runs.run import Run
from genpolicy.runs.state import FINAL
from genpolicy.system.files import new_folder
from genpolicy.tracking import tracked
from genpolicy.tracking.tracked import Record

SHOWN = {".png": wandb.Image, ".mp4": wandb.Video}


class WeightsAndBiases:
    """Logs what the journals have. A process that is killed may log the events of its last seconds again."""

    uri = "wandb"

    def __init__(self) -> None:
        self._open: dict[str, wandb.Run] = {}

    def ship(self, run: Run) -> str:
        """Bring the run up to date; returns the run's state. The caller holds the run's lock."""
        place, status = tracked.place(run.directory), run.status()
        if tracked.shipped(run.directory, self.uri):
            return status["state"]
        record = Record(run.directory, self.uri, run.id)
        shown = self._open[run.id] = self._open.get(run.id) or self._begin(run)
        for event, end in tracked.unsent(run, record):
            shown.log({"step": event["step"], **event["metrics"]})
            record["offset"] = end
        record.keep()  # or a figure that fails would have all of them logged again, each time
        for name, now in tracked.changed(run, record):
            if (kind := SHOWN.get(Path(name).suffix)) is not None:
                shown.log({name.removesuffix(Path(name).suffix): kind(str(run.path(name)))})
            record["files"] = record.get("files", {}) | {name: now}
        if status["state"] in FINAL:
            self._open.pop(run.id).finish(exit_code=int(status["state"] != "finished"))
        record.keep(place=place, state=status["state"], experiment=shown.url or "")
        return status["state"]

    def describe_sweeps(self) -> None:
        """Nothing: a sweep is a group there."""

    def _begin(self, run: Run) -> wandb.Run:
        with new_folder(run.path("wandb"), own=1):
            pass
        shown = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or f"genpolicy-{run.config.study}",
            id=run.id,
            name=run.name,
            group=run.sweep,
            tags=[run.choices["env"], run.choices["algo"]],
            config=identity.shown(OmegaConf.to_container(run.config)),
            dir=run.directory,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, disable_code=True, x_disable_stats=True
            ),
        )
        shown.define_metric("step", hidden=True)
        shown.define_metric("*", step_metric="step")
        return shown
