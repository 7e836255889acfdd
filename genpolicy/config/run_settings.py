"""The settings of every run that belong to no component, and the groups that hold the components.

`conf/config.yaml` lists what differs from the defaults here. Importing this module imports neither torch nor a
simulator.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from genpolicy.config.schema import EVALUATION, TARGET, TRAINING, completed, group, locate, nested, setting
from genpolicy.config.setting_groups import (
    Check,
    Chunk,
    Collect,
    Evaluation,
    Export,
    Init,
    Inspect,
    Launch,
    Online,
    Paths,
    Phases,
    Program,
    Report,
    Scaling,
    Search,
    Tracking,
)
from genpolicy.config.validation import Node
from genpolicy.errors import UserError
from genpolicy.system import sqlite

LONGEST = 100  # characters of a study's name
LONGEST_NAME = 255  # bytes of a file's or folder's
RESERVED = re.compile(r"(mlflow\.|(mlartifacts|mlruns|phases|follow\.log)$)", re.IGNORECASE)  # names beside studies
MODES = ("train", "eval", "sync", "status", "tasks", "check", "collect", "inspect", "report", "clean", "export")

OF_A_POLICY = ("eval", "inspect", "export")  # modes that take a checkpoint
TRAIN = ("train",)


def _encoded(config: Mapping) -> str | None:
    """What the parts of observations affect, if they are encoded: where they are not, a run is what it was before."""
    return TRAINING if config["observation_parts"] else None


@dataclass(kw_only=True)
class RunSettings:
    """Settings of every mode."""

    mode: str = setting("train", choices=MODES, doc="what to do", affects=None)
    seed: int = setting(0, ge=0, le=2**32 - 1, doc="seed of everything random in the run", modes=("train", "collect"))
    seeds: list[int] = setting(
        [],
        ge=0,
        le=2**32 - 1,
        doc="a run of each of these seeds, all at once in this process",
        affects=None,
        modes=TRAIN,
    )
    study: str = setting(
        "default",
        doc="name of the study: a folder below paths.outputs, an MLflow experiment",
        affects=None,
        modes=("train", "status", "report"),
    )
    device: str = setting(
        "auto", choices=("auto", "cpu", "cuda"), doc="where to compute; auto: a GPU if any", affects=None
    )
    threads: int = setting(1, ge=0, le=2**12, doc="CPU threads of torch; 0: as many as torch chooses", affects=None)
    precision: str = setting(
        "tf32",
        choices=("float32", "tf32", "bf16"),
        doc="matrix products in updates; tf32 is float32 on a CPU; log-densities and evaluations: always float32",
        modes=TRAIN,
    )
    compile: str = setting(
        "none",
        choices=("none", "default", "cudagraphs", "reduce-overhead", "max-autotune"),
        doc="mode of torch.compile for the updates' losses and gradients; cudagraphs: CUDA graphs of whole updates",
        affects=None,
        modes=TRAIN,
    )
    overwrite: bool = setting(
        False, doc="delete an existing run of the same settings and start again", affects=None, modes=TRAIN
    )
    checkpoint: str | None = setting(
        None, doc="run directory, checkpoint or MLflow run id of the policy", affects=None, modes=OF_A_POLICY
    )
    sweep: str | None = setting(
        None, doc="the sweep's eight digits; null: all of the study", affects=None, modes=("status", "report")
    )
    follow: bool = setting(False, doc="keep syncing until no run is training or queued", affects=None, modes=("sync",))
    budget: float = setting(
        1.0, gt=0, le=10, doc="share of its updates that every phase is trained for; at least one", modes=TRAIN
    )
    log_every: int = setting(
        100, ge=1, le=10**9, doc="updates between two entries of the training metrics", affects=None, modes=TRAIN
    )
    checkpoint_seconds: float = setting(
        60.0, ge=0, le=1e9, seconds=1, doc="seconds between two checkpoints", affects=None, modes=TRAIN
    )
    paths: Paths = group(Paths, affects=None)
    observation_parts: list[int] = setting(
        [],
        ge=1,
        le=1000,
        doc="sizes of the parts of an observation, in order, that network and critic encode each by itself; []: none",
        affects=_encoded,
        modes=TRAIN,
    )
    scaling: Scaling = group(Scaling, modes=TRAIN)
    chunk: Chunk = group(Chunk, modes=("train", "eval", "export"))
    online: Online = group(Online, modes=TRAIN)
    eval: Evaluation = group(Evaluation, affects=EVALUATION, modes=("train", "eval"))
    check: Check = group(Check, affects=None, modes=("check",))
    collect: Collect = group(Collect, affects=None, modes=("collect",))
    inspect: Inspect = group(Inspect, affects=None, modes=("inspect",))
    report: Report = group(Report, affects=None, modes=("report",))
    export: Export = group(Export, affects=None, modes=("export",))
    phases: Phases = group(Phases, affects=None, modes=TRAIN)
    init: Init = group(Init, modes=TRAIN)
    tracking: Tracking = group(Tracking, affects=None)
    launch: Launch = group(Launch, affects=None)
    search: Search = group(Search, affects=None, modes=TRAIN)
    genpolicy: Program = group(Program, affects=None)

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """Refuses a study that is no folder's name, and a mode of a policy without its checkpoint."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", config.study):
            raise UserError(f"study: {config.study!r} is not a plain folder name of letters, digits and ._-")
        if len(config.study) > LONGEST:
            raise UserError(f"study: a name of {len(config.study)} characters; legal: at most {LONGEST}")
        if RESERVED.match(config.study):
            raise UserError(
                f"study={config.study}: the name of something else in the folder of all runs; choose another"
            )
        steps = config.eval.steps
        if list(steps) != sorted(set(steps)):
            raise UserError(f"eval.steps={list(steps)}: must increase, as in [1,2,5,10]")
        for name, path in config.paths.items():
            if not path.strip():
                raise UserError(f"paths.{name}: must name a folder")
        if config.mode in OF_A_POLICY and not config.checkpoint:
            raise UserError(f"mode={config.mode} needs checkpoint=<run directory, checkpoint or MLflow run id>")
        if config.mode == "export" and config.device == "cuda":
            raise UserError("device=cuda: mode=export computes on the CPU; leave device out")
        if config.sweep is not None and not re.fullmatch(r"[0-9a-f]{8}", config.sweep):
            raise UserError(f"sweep={config.sweep}: must be the eight hexadecimal digits that the launcher printed")
        if len(set(config.seeds)) < len(config.seeds):
            raise UserError(f"seeds={list(config.seeds)}: each of them once")


# The modes that a setting goes with, () for all; the groups that go with the mode of their own name.
MODES_OF = {field.name: field.metadata["modes"] for field in fields(RunSettings)}
OF_ONE_MODE = tuple(name for name, modes in MODES_OF.items() if modes == (name,))
REQUESTS = ("seeds", "checkpoint", "sweep", "follow")  # which no mode ignores, whatever file they come from


@dataclass(kw_only=True)
class CollectSettings(RunSettings):
    """Settings of mode=collect: those of every mode, and the task."""

    env: Any = nested(doc="the task: simulator, data, reference scores")


@dataclass(kw_only=True)
class CheckSettings(CollectSettings):
    """Settings of mode=check: those of every mode, and what is compared."""

    dataset: Any = nested(doc="where transitions come from")


def _solver_affects(config: dict) -> str | None:
    """A solver trains where updates sample from the model or learn of its episodes; one that takes no time has none."""
    algo, critic, model = (locate(config[name][TARGET]) for name in ("algo", "critic", "model"))
    if not model.num_times:
        return None
    # Those of an anchored critic are of a policy of one step; chains are the path's own.
    sampled = algo.uses_samples or (algo.learns_critic and critic.next_actions not in (None, "anchored", "chain"))
    acts = config["online"]["steps"] and not algo.takes_one_step
    return TRAINING if sampled or acts else EVALUATION


def _critic_affects(config: dict) -> str | None:
    return TRAINING if locate(config["algo"][TARGET]).learns_critic else None


def _select_affects(config: dict) -> str | None:
    """A choice trains where updates make it, or learn of its episodes."""
    acts = config["online"]["steps"] and config["select"].get("num_candidates", 1) > 1
    return TRAINING if locate(config["algo"][TARGET]).selects or acts else EVALUATION


@dataclass(kw_only=True)
class TrainSettings(CheckSettings):
    """Settings of mode=train: those of every mode, and the components."""

    algo: Any = nested(doc="what is trained, in which phases")
    model: Any = nested(doc="the generative model of the actions: its probability path")
    objective: Any = nested(doc="what the network predicts, and how it is fitted")
    solver: Any = nested(doc="how actions are sampled from the model", affects=_solver_affects)
    likelihood: Any = nested(doc="how log-likelihoods are integrated; takes the options of solver", affects=EVALUATION)
    network: Any = nested(doc="the backbone of the policy")
    critic: Any = nested(doc="how values are learned", affects=_critic_affects)
    select: Any = nested(doc="how one of several actions of the policy is chosen", affects=_select_affects)

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """Refuses a video of a task that has none, and what a solver that chooses its steps itself cannot."""
        RunSettings.check_compatibility(config)
        if config.eval.video and not locate(config.env._target_).has_video:
            raise UserError(f"eval.video: env={config.env.name} has figures, but no video; leave eval.video out")
        if config.eval.steps and locate(config.algo._target_).takes_one_step:
            raise UserError("eval.steps: this algorithm's policy takes one step; leave eval.steps out")
        if "steps" not in config.solver:
            if config.eval.steps:
                raise UserError("eval.steps: this solver chooses its steps itself; leave eval.steps out")
            if config.compile != "none":
                raise UserError("compile: this solver chooses its steps itself, by what it computes; leave compile out")

    @classmethod
    def without_effect(cls, config: Node) -> dict[str, str]:
        """What an algorithm without a critic, and a model without a flow, do not take (`remark_unused`)."""
        found = {}
        if not locate(config.algo._target_).learns_critic:
            found["critic"] = "where an algorithm learns no critic"
        if not locate(config.model._target_).num_times:
            timed = [f"network.{name}" for name in config.network if name.startswith("time_")]
            found |= dict.fromkeys(["solver", "likelihood", *timed], "where a model has no flow")
        return found


def filled(config: DictConfig, root: type = TrainSettings) -> DictConfig:
    """A composed configuration, unresolved, with the defaults of all settings of `root` that no file lists.

    Raises `UserError` for components that there are not.
    """
    return OmegaConf.create(completed(OmegaConf.to_container(config, resolve=False), root))


# The settings and groups of settings that make neither other weights nor another evaluation.
NO_EFFECT = {field.name for field in fields(TrainSettings) if field.metadata["affects"] is None}


def absolute(path: str) -> str:
    """A path of the command line or a configuration, `~` expanded, relative to the working folder.

    Raises `UserError` for an address, and for a path that no configuration, or no file system, can hold.
    """
    if re.match(r"[A-Za-z][\w+.-]*://", path):
        raise UserError(f"{path}: an address, where a file or folder of this machine is meant; give its path")
    found = str(Path(path).expanduser().absolute())
    if re.search(r"\$\{|\0|[\ud800-\udfff]", found):
        raise UserError(f"{found!r}: a path with '${{' in it, or that is not UTF-8, cannot be used; rename the folder")
    name = max(found.split("/"), key=lambda part: len(part.encode()))
    if (size := len(name.encode())) > LONGEST_NAME:
        raise UserError(f"{name[:40]}...: a name of {size} bytes in a path; legal: at most {LONGEST_NAME}")
    return found


def named_file(setting: str, value: str) -> Path:
    """The file that a setting names, to be written, as an absolute path. Raises `UserError` for a folder."""
    path = Path(absolute(value))
    if not value.strip() or os.path.isdir(path) or not path.name:
        raise UserError(f"{setting}: {path} is a folder; name the file that is to be written")
    return path


STORES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks", "databricks-uc")  # MLflow's schemes
# Where the password of a store goes, if not into its URI.
PASSWORDS = dict.fromkeys(("http", "https"), "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment")
PASSWORDS |= {"postgresql": "PGPASSWORD in the environment, or ~/.pgpass"}
PASSWORDS |= {"mysql": "~/.my.cnf, and ?read_default_file=~/.my.cnf at the URI's end"}


def absolute_uri(uri: str | None) -> str | None:
    """A tracking URI that means the same from any folder.

    Raises `UserError` for what is none, such as a path, and for one with a password in it.
    """
    if uri is None or uri in ("none", "databricks"):
        return uri
    scheme, separator, place = uri.partition("://")
    scheme = scheme.partition("+")[0]
    if not separator or not place or scheme not in STORES:
        raise UserError(f"tracking.uri={uri}: not a store; legal: none, sqlite:///FILE, http://HOST:PORT")
    secret = r"[^/]*@" if scheme.startswith("http") else r"[^:/]*:[^@]*@|.*[?&](password|passwd|pwd)="
    if scheme != "sqlite" and re.match(secret, place, re.IGNORECASE):
        means = PASSWORDS.get(scheme, "the database driver's own means")
        raise UserError(f"tracking.uri: would store the password with the run; give it by {means}")
    if (file := sqlite.file_of(uri)) is not None:
        return sqlite.uri_of(Path(absolute(str(file))))
    return uri
