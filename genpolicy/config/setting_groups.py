"""The groups of settings of every run that belong to no component, as `online` and `tracking`.

Importing this module imports neither torch nor a simulator.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genpolicy.config import sbatch
from genpolicy.config.schema import EVALUATION, TARGET, TRAINING, Affects, locate, setting
from genpolicy.config.validation import Node
from genpolicy.errors import UserError


@dataclass(kw_only=True)
class Paths:
    """Where things lie on this machine; no part of a run's identity."""

    outputs: str = setting("outputs", doc="folder of all runs; the tracking store lies here too")
    data: str = setting("~/.d4rl/datasets", doc="folder of the data sets (D4RL's own cache)")


@dataclass(kw_only=True)
class Scaling:
    """The units that algorithms compute in; evaluations and densities are in the environment's."""

    observation: str = setting(
        "none", choices=["none", "standardize"], doc="standardize: by the mean and std of the data"
    )
    action: str = setting(
        "none",
        choices=["none", "space", "data"],
        doc="what is mapped to [-1, 1]: space: the action space (unbounded: the data's range); data: the data's range",
    )
    epsilon: float = setting(0.0, ge=0.0, le=1e6, doc="added to the std of observations")


def _learners(config: Node) -> dict[str, type]:
    """The classes that learn of the data, by the names of their groups."""
    algo = locate(config.algo[TARGET])
    return {"algo": algo} | ({"critic": locate(config.critic[TARGET])} if algo.learns_critic else {})


def _length(config: Mapping) -> str | None:
    """What the length of chunks affects, if there are any: where there are none, a run is what it was before."""
    return TRAINING if config["chunk"]["length"] != 1 else None


def _executed(config: Mapping) -> str | None:
    """What a part of them that is played affects: training, if that is in the simulator."""
    chunk = config["chunk"]
    if chunk["length"] == 1:
        return None
    return TRAINING if config["online"]["steps"] and chunk["execute"] not in (None, chunk["length"]) else EVALUATION


@dataclass(kw_only=True)
class Chunk:
    """Chunks of actions: what policy and critic take for one action."""

    length: int = setting(1, ge=1, le=1000, doc="consecutive actions of a chunk", affects=_length)
    execute: int | None = setting(None, ge=1, le=1000, doc="how many of these are played; null: all", affects=_executed)

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """Refuses what learns of single actions."""
        length, execute = config.chunk.length, config.chunk.execute
        if "algo" not in config:  # as of an evaluation, whose run's they are
            return
        if execute is not None and execute > length:
            raise UserError(f"chunk.execute={execute}: at most chunk.length={length}")
        learners = _learners(config)
        steps = config.critic.steps if "critic" in learners else 1
        for name, value in {"chunk.length": length, "critic.steps": steps}.items():
            for part, found in learners.items():
                if value > 1 and found.single_steps:
                    raise UserError(f"{name}={value}: this {part} takes single steps, {found.single_steps}; legal: 1")
        if length > 1 and steps > 1:
            raise UserError(f"critic.steps={steps}: a chunk is one step of the critic; legal: 1")


def executed(chunk: Chunk) -> int:
    """How many actions of a chunk are played."""
    return chunk.execute or chunk.length


def _online(config: Mapping) -> str | None:
    """What settings of online training affect, if there is any: where there is none, a run is what it was before."""
    return TRAINING if config["online"]["steps"] else None


def _online_unless(name: str, value: Any) -> Affects:
    """The same of a setting of online training that, at a value, is as if there were none."""
    return lambda config: _online(config) if config["online"][name] != value else None


@dataclass(kw_only=True)
class Online:
    """Training in the simulator after the data: the policy's own transitions are added to them."""

    steps: int = setting(0, ge=0, le=10**9, doc="steps in the simulator; 0: none", affects=_online)
    start: int = setting(5000, ge=0, le=10**9, doc="of these, how many come before the first update", affects=_online)
    random: int = setting(
        0,
        ge=0,
        le=10**9,
        doc="of the first steps, how many are uniform in the action space",
        affects=_online_unless("random", 0),
    )
    updates: int = setting(1, ge=1, le=1000, doc="updates after each further step", affects=_online)
    simulators: int = setting(
        1,
        ge=1,
        le=1000,
        doc="episodes played side by side, a step in each at a time",
        affects=_online_unless("simulators", 1),
    )
    offline_ratio: float | None = setting(
        None,
        ge=0.0,
        le=1.0,
        doc="share of each batch that is of the data, 0.5 as RLPD's; null: as they are among all transitions",
        affects=_online,
    )
    offline_ratio_end: float | None = setting(
        None,
        ge=0.0,
        le=1.0,
        doc="what that becomes, linearly, until the last update; null: it stays",
        affects=_online_unless("offline_ratio_end", None),
    )
    noise: float = setting(
        0.0,
        ge=0.0,
        le=10.0,
        doc="standard deviation of noise on the actions, in units of half their range",
        affects=_online,
    )

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """Refuses what prepares its training for data that do not grow."""
        online = config.online
        if "algo" not in config or not online.steps:
            return
        if online.start >= online.steps:
            raise UserError(f"online.start={online.start}: must be below online.steps={online.steps}")
        if online.steps % online.simulators:
            raise UserError(f"online.simulators={online.simulators}: must divide online.steps={online.steps}")
        if online.offline_ratio is None and online.offline_ratio_end is not None:
            raise UserError(
                f"online.offline_ratio_end={online.offline_ratio_end:g}: needs an online.offline_ratio to begin with"
            )
        for name, found in _learners(config).items():
            if found.offline_only:
                reason = f"this {name} learns of data that do not grow, {found.offline_only}"
                raise UserError(f"online.steps={online.steps}: {reason}; legal: 0")


@dataclass(kw_only=True)
class Evaluation:
    """When and how long policies are evaluated in the simulator."""

    episodes: int = setting(10, ge=1, le=10**6, doc="episodes of an evaluation during training", affects=None)
    final_episodes: int = setting(100, ge=1, le=10**6, doc="episodes of the evaluation at the end, and of mode=eval")
    per_phase: int = setting(5, ge=1, le=10**4, doc="evaluations in each phase that trains a policy", affects=None)
    log_prob_actions: int = setting(1000, ge=1, le=10**7, doc="data-set actions whose log-likelihood is measured")
    video: bool = setting(False, doc="film the first episode of the trained policy's evaluation at the end")
    steps: list[int] = setting(
        [], ge=1, le=10**5, doc="more evaluations of the trained policy, with these numbers of solver steps"
    )


@dataclass(kw_only=True)
class Tracking:
    """The views of the runs: MLflow's, and others beside it."""

    uri: str | None = setting(None, doc="tracking URI; null: SQLite in paths.outputs; none: no MLflow")
    model: bool = setting(True, doc="log the trained policy as a model, which `mlflow models serve` answers with")
    checkpoints: bool = setting(False, doc="store checkpoints as artifacts too")
    also: list[str] = setting(
        [], choices=["tensorboard", "wandb"], doc="more trackers, as [tensorboard,wandb]; each is an extra to install"
    )

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """Refuses a tracker that is not installed."""
        for name in config.tracking.also:
            if importlib.util.find_spec(name) is None:
                raise UserError(f"tracking.also={name}: not installed; pip install 'genpolicy[{name}]'")


@dataclass(kw_only=True)
class Launch:
    """How hydra/launcher=slurm|local starts the runs of a sweep."""

    partition: str | None = setting(None, doc="SLURM partition; null: the cluster's default")
    account: str | None = setting(None, doc="SLURM account; null: the user's default")
    qos: str | None = setting(None, doc="SLURM quality of service; null: the default")
    constraint: str | None = setting(None, doc="SLURM features of the nodes, such as a100|h100; null: any")
    exclude: str | None = setting(None, doc="SLURM nodes that are not used; null: none")
    gpus: int | str = setting(1, doc="GPUs of a job: a number, or a type and a number such as a100:1")
    cpus: int = setting(4, ge=1, le=2**12, doc="CPU cores of a job")
    memory: float = setting(16.0, gt=0, le=1e6, doc="memory of a job in GB")
    minutes: int = setting(
        1440,
        ge=1,
        le=366 * 24 * 60,
        seconds=60,
        doc="time limit of a job; a run that needs more is resumed when the job is requeued",
    )
    grace_seconds: int = setting(
        120, ge=5, le=86_400, seconds=1, doc="time before its end at which a job saves its runs and is requeued"
    )
    requeues: int = setting(100, ge=0, le=10**6, doc="times a job is requeued because its time was up")
    setup: list[str] = setting([], doc="shell lines before a job's command, such as module load")
    srun: list[str] = setting([], doc="more options of srun, such as --container-image=<image>")
    extra: dict[str, Any] = setting(
        {}, doc="more options of sbatch, such as {reservation: night}; true: without a value"
    )
    mail: str | None = setting(None, doc="address that SLURM writes to when jobs have failed, or all have ended")
    parallel: int = setting(
        0, ge=0, le=10**6, doc="slurm: jobs of an array at once; local: runs at once; 0: as many as fit"
    )
    runs_per_gpu: int = setting(1, ge=1, le=10**3, doc="runs that share a GPU; in a job without one, runs of the job")
    wait: bool = setting(False, doc="slurm: do not return before the last job has ended")
    dry_run: bool = setting(False, doc="show the runs and the sbatch script, and start nothing")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """Refuses what SLURM would, and a job that would be asked to stop before it has begun."""
        launch = config.launch
        sbatch.check(launch)
        if 2 * launch.grace_seconds > 60 * launch.minutes:
            raise UserError(
                f"launch.grace_seconds={launch.grace_seconds}: at most half of launch.minutes={launch.minutes}"
            )


@dataclass(kw_only=True)
class Search:
    """How hydra/sweeper=optuna searches."""

    trials: int = setting(20, ge=1, le=10**7, doc="trials in all, of every command that works on the search")
    at_once: int = setting(1, ge=1, le=10**4, doc="trials handed to the launcher together")
    storage: str | None = setting(None, doc="database of the trials, for Optuna; null: SQLite in the study's folder")


@dataclass(kw_only=True)
class Check:
    """How mode=check compares recorded transitions with the simulator."""

    rows: int = setting(20_000, ge=1, le=10**9, doc="transitions replayed, spread over the whole data set")
    tolerance: float = setting(
        1e-3, gt=0, le=1e6, doc="largest error that passes: of an observation's part, in its std; of a reward"
    )


@dataclass(kw_only=True)
class Collect:
    """What mode=collect records."""

    policy: str = setting(
        "random", doc="who acts: random, waypoint (maze2d), or a run directory, checkpoint or MLflow run id"
    )
    path: str = setting("collected.hdf5", doc="the file that is written, in D4RL's layout")
    steps: int = setting(100_000, ge=2, le=10**9, doc="steps recorded; the last episode is cut off there")
    at_once: int = setting(10, ge=1, le=10**4, doc="episodes played side by side")


@dataclass(kw_only=True)
class Inspect:
    """What mode=inspect draws of a policy."""

    rows: list[int] = setting(
        [], ge=0, le=10**12, doc="transitions of the data at whose observations it is drawn; []: some"
    )
    count: int = setting(4, ge=1, le=16, doc="how many, where rows are not given")
    dimensions: list[int] = setting(
        [], ge=0, le=10**6, doc="one or two dimensions of the action to draw; []: the first two"
    )
    episode: int = setting(0, ge=0, le=10**12, doc="the episode of the data along which values are drawn")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """Refuses what no figure shows."""
        dimensions, rows = config.inspect.dimensions, config.inspect.rows
        if len(set(dimensions)) < len(dimensions) or len(dimensions) > 2:
            raise UserError(f"inspect.dimensions={list(dimensions)}: one or two different ones")
        if len(rows) > 16:
            raise UserError(f"inspect.rows: {len(rows)} given; at most 16 are drawn")


@dataclass(kw_only=True)
class Export:
    """What mode=export writes."""

    format: str = setting(
        "onnx",
        choices=["onnx", "torch_export"],
        doc="onnx: for ONNX Runtime and others; torch_export: for torch.export.load",
    )
    batch: int | None = setting(None, ge=1, le=2**16, doc="observations of a call; null: any number")
    path: str | None = setting(
        None, doc="the file that is written; null: export/policy.onnx or policy.pt2 in the run's directory"
    )
    tolerance: float = setting(
        1e-4, gt=0, le=1, doc="largest difference from the policy that passes, in shares of the range of actions"
    )


@dataclass(kw_only=True)
class Report:
    """What mode=report is about."""

    filter: str = setting("", doc="only runs that this search of MLflow finds, such as: tags.`genpolicy.algo` = 'gmpo'")


@dataclass(kw_only=True)
class Phases:
    """How runs share the phases that are the same in several of them."""

    reuse: bool | str = setting(
        True,
        choices=[True, False, "any"],
        doc="load a phase that another run has trained; any: also one of other code, torch, device or threads",
    )


def _given(config: dict) -> str | None:
    """Parts of other runs count by their weights; where there are none, a run is what it was before they could be."""
    return TRAINING if config["init"]["digests"] else None


@dataclass(kw_only=True)
class Init:
    """Parts of other runs that a run begins with; a phase that trains nothing else is left out."""

    policy: str | None = setting(None, doc="run directory, checkpoint or MLflow run id that has it", affects=None)
    behaviour: str | None = setting(None, doc="the same, for the behaviour model", affects=None)
    critic: str | None = setting(None, doc="the same, for the critic", affects=None)
    digests: dict[str, str] = setting({}, doc="of the weights of these; made by genpolicy", affects=_given)


@dataclass(kw_only=True)
class Program:
    """How the program itself behaves."""

    debug: bool = setting(False, doc="show the traceback of an error")
