"""The settings of every run that belong to no component, and the groups that hold the components.

`conf/config.yaml` lists them with their values. Importing this module imports neither torch nor a simulator.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genpolicy.errors import UserError
from genpolicy.settings import component, setting


@dataclass(kw_only=True)
class Paths:
    """Where things lie on this machine; no part of a run's identity."""

    outputs: str = setting("outputs", doc="folder of all runs; the tracking store lies here too")
    data: str = setting("~/.d4rl/datasets", doc="folder of the data sets (D4RL's own cache)")


@dataclass(kw_only=True)
class Evaluation:
    """When and how long policies are evaluated in the simulator."""

    episodes: int = setting(10, ge=1, doc="episodes of an evaluation during training")
    final_episodes: int = setting(100, ge=1, doc="episodes of the evaluation at the end, and of mode=eval")
    per_phase: int = setting(5, ge=1, doc="evaluations in each phase that trains a policy")
    log_prob_actions: int = setting(1000, ge=1, doc="data-set actions whose log-likelihood is measured")
    steps: list[int] = setting([], ge=1, doc="numbers of solver steps the trained policy is evaluated with, too")


@dataclass(kw_only=True)
class Tracking:
    """The MLflow view of the runs."""

    uri: str | None = setting(None, doc="tracking URI; null: SQLite in paths.outputs; none: no MLflow")
    checkpoints: bool = setting(False, doc="store checkpoints as artifacts too")


@dataclass(kw_only=True)
class Program:
    """How the program itself behaves."""

    debug: bool = setting(False, doc="show the traceback of an error")


@dataclass(kw_only=True)
class RunSettings:
    """Settings of every mode."""

    mode: str = setting("train", choices=("train", "eval", "sync"), doc="what to do")
    seed: int = setting(0, ge=0, le=2**32 - 1, doc="seed of everything random in the run")
    study: str = setting("default", doc="name of the study: a folder below paths.outputs, an MLflow experiment")
    device: str = setting("auto", choices=("auto", "cpu", "cuda"), doc="where to compute; auto: a GPU if any")
    threads: int = setting(1, ge=0, doc="CPU threads of torch; 0: as many as torch chooses")
    overwrite: bool = setting(False, doc="throw a finished or unfinished run of the same settings away and redo it")
    checkpoint: str | None = setting(None, doc="mode=eval: run directory or MLflow run id of the policy")
    log_every: int = setting(100, ge=1, doc="updates between two entries of the training metrics")
    checkpoint_seconds: float = setting(60.0, ge=0, doc="seconds between two checkpoints")
    paths: Paths = field(default_factory=Paths)
    eval: Evaluation = field(default_factory=Evaluation)
    tracking: Tracking = field(default_factory=Tracking)
    genpolicy: Program = field(default_factory=Program)

    @classmethod
    def partners(cls, config: Any) -> None:
        """Refuses a study that is no folder's name, and a checkpoint without mode=eval or the reverse."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", config.study):
            raise UserError(f"study: {config.study!r} is not a plain folder name of letters, digits and ._-")
        steps = config.eval.steps
        if list(steps) != sorted(set(steps)):
            raise UserError(f"eval.steps={list(steps)}: must increase, as in [1,2,5,10]")
        for name, path in config.paths.items():
            if not path.strip():
                raise UserError(f"paths.{name}: must name a folder")
        if config.mode == "eval" and not config.checkpoint:
            raise UserError("mode=eval needs checkpoint=<run directory or MLflow run id>")
        if config.mode != "eval" and config.checkpoint is not None:
            raise UserError(f"mode={config.mode} reads no checkpoint; leave it out, or add mode=eval")


@dataclass(kw_only=True)
class TrainSettings(RunSettings):
    """Settings of mode=train: those of every mode, and the components."""

    algo: Any = component(doc="what is trained, in which phases")
    model: Any = component(doc="the generative model of the actions: its probability path")
    objective: Any = component(doc="what the network predicts, and how it is fitted")
    solver: Any = component(doc="how actions are sampled from the model")
    likelihood: Any = component(doc="how log-likelihoods are integrated; takes the options of solver")
    network: Any = component(doc="the backbone of the policy")
    critic: Any = component(doc="how values are learned")
    select: Any = component(doc="how one of several actions of the policy is chosen")
    dataset: Any = component(doc="where transitions come from")
    env: Any = component(doc="the task: simulator, data, reference scores")

    @classmethod
    def partners(cls, config: Any) -> None:
        """Refuses step counts for a solver that chooses them itself, too."""
        RunSettings.partners(config)
        if config.eval.steps and "steps" not in config.solver:
            raise UserError("eval.steps: this solver chooses its steps itself; leave eval.steps out")


def absolute(path: str) -> str:
    """A path of the command line or a configuration, `~` expanded, relative to the working folder."""
    return str(Path(path).expanduser().absolute())
