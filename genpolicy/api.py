"""genpolicy from Python: training in this process, and trained policies to act with, also as MLflow serves them."""

from __future__ import annotations

import math
import operator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from genpolicy.algo.actor import ActionQueue, Actor
from genpolicy.config.arguments import quoted
from genpolicy.config.schema import build
from genpolicy.config.setting_groups import Chunk
from genpolicy.critic.critic import Critic
from genpolicy.errors import UserError
from genpolicy.runs import checkpoint
from genpolicy.runs.evaluations import with_chosen
from genpolicy.runs.job import Job, each_job
from genpolicy.runs.run import POLICY, load_run, open_run
from genpolicy.training import checks, setup
from genpolicy.training import train as training

Array = TypeVar("Array", np.ndarray, Tensor)
SEEDS = -(2**63), 2**64 - 1  # the ends of what torch takes


class Trained(NamedTuple):
    """Where a run lies, and the metrics of its final evaluations: "final" is the trained policy's.

    Of a run that was trained before, with the evaluation settings of now.
    """

    directory: Path
    results: dict[str, dict[str, float]]


def train(*words: str) -> Trained:
    """Runs `genpolicy <words>` in this process: `train("algo=gmpo", "env=hopper-medium-v2")`.

    As on the command line, a run that was stopped goes on and a finished one is left alone. Raises `UserError`.
    """
    job = _job(*words)
    if job.config.mode != "train":
        raise UserError(f"mode={job.config.mode}: only mode=train is available from Python; leave mode out")
    if job.config.seeds:
        raise UserError("seeds: one run at a time from Python; several seeds are for the command line")
    checks.check([job])
    run = open_run(job.config, job.choices)
    training.train(run)
    results = checkpoint.load(run.path("last.pt"))["state"]["results"]
    return Trained(run.directory, results if run.asked is None else results | run.asked.record()["results"])


def load_policy(reference: str | Path, *words: str) -> TrainedPolicy:
    """The policy of a run directory, one of its checkpoints or an MLflow run id.

    words: settings of the command line that are needed to find it or to compute, as `tracking.uri=...`,
    `paths.outputs=...`, `device=cuda`, and how it acts, if not as in its run: `solver`, `likelihood`, `select`,
    `chunk.execute`. Without `threads=...` torch's threads stay as they are. Raises `UserError` if there is no such
    policy, and for words that mean nothing to it.
    """
    if not any(word.startswith("threads=") for word in words):
        words = ("threads=0", *words)
    job = _job("mode=eval", f"checkpoint={quoted(str(reference))}", *words)
    for word in job.overrides:
        if word.lstrip("+").startswith("eval."):
            raise UserError(f"{word}: of evaluations, which load_policy makes none of; leave it out, or use mode=eval")
    run, path = setup.find_run(job.config)
    config, _ = with_chosen(run, job)
    return restored(config, path, job.config.device)


def restored(config: DictConfig, path: Path, device: str = "auto") -> TrainedPolicy:
    """The policy of a run's configuration, with the weights of a checkpoint. Raises `UserError` if they do not fit."""
    task, device = build(config.env), setup.choose_device(device)
    gpus = [] if torch.cuda._is_in_bad_fork() else range(torch.cuda.device_count())
    with torch.random.fork_rng(gpus):  # fresh networks are drawn by the run's seed: the caller's generators stay
        algorithm = setup.fresh_algorithm(config, task, device)
    setup.restore(algorithm, path)
    algorithm.eval().requires_grad_(False)
    values = algorithm.actor() if path.name == POLICY else algorithm
    return TrainedPolicy(algorithm.actor().eval(), values, task.observation_size, device, config.chunk)


class TrainedPolicy:
    """A trained policy; takes float arrays of NumPy or torch and gives the same kind.

    observation_size, action_size: O and A. has_density: whether `log_prob` can be asked for. has_critic: whether `q`
    can. module: what acts, as a `torch.nn.Module` for `torch.export`, see `genpolicy.algo.actor.Actor`.

    chunk_length: h. Where it is above 1 the policy chooses chunks of h actions, `act` gives them one at a time until so
    many are played as in the run's evaluations, `reset` begins another episode, and an action of `chunk`, `sample`,
    `log_prob` and `q` is a whole one, [..., h, A].
    """

    def __init__(self, module: Actor, values: Actor, observation_size: int, device: torch.device, chunk: Chunk):
        self.module, self._values, self._device = module, values, device
        self.observation_size, self.chunk_length = observation_size, chunk.length
        self.action_size = module.policy.action_size // chunk.length
        self._queue = ActionQueue(module.act, chunk)
        self.has_density, self.has_critic = module.has_density, values.critic is not None

    def act(self, observation: Array, seed: int | None = None) -> Array:
        """Actions [..., A] in the action space at observations [..., O], as in the run's evaluations.

        seed: of what is random in them; None is another one at every call. Where the policy plays chunks, those of the
        same episodes must be asked for in turn; raises `UserError` for others before `reset`.
        """
        rows = self._rows(observation, "observation", self.observation_size)
        if self._queue.waiting and len(self._queue.waiting[0]) != len(rows):
            raise UserError(
                f"observations {tuple(observation.shape)}: {len(self._queue.waiting[0])} chunks of actions are being "
                "played; reset() ends them"
            )
        return _like(self._queue(rows, self._generator(seed)), observation)

    def reset(self) -> None:
        """End the chunks of actions that `act` plays: the next observations are those of other episodes."""
        self._queue.reset()

    def chunk(self, observation: Array, seed: int | None = None) -> Array:
        """Chunks of actions [..., h, A] in the action space at observations [..., O]. seed: as in `act`."""
        rows = self._rows(observation, "observation", self.observation_size)
        chunks = self.module.act(rows, self._generator(seed))
        return _like(chunks.unflatten(-1, (self.chunk_length, -1)), observation)

    def sample(self, observation: Array, num_samples: int, seed: int | None = None) -> Array:
        """`num_samples` actions [..., K, A] of the model alone: not selected, not clipped. seed: as in `act`."""
        num_samples = _whole("num_samples", num_samples, 1, math.inf, "1 or more")
        rows = self._rows(observation, "observation", self.observation_size)
        sampled = self.module.sample(rows, num_samples, self._generator(seed))
        return _like(sampled if self.chunk_length == 1 else sampled.unflatten(-1, self._shape), observation)

    def log_prob(self, observation: Array, action: Array, seed: int | None = None) -> Array:
        """log pi(a|s) [...] in nats of actions [..., A] at observations [..., O], before clipping and selection.

        seed: of Hutchinson's probe, if the model's divergence is estimated. Raises `UserError` without a density.
        """
        rows, actions = self._pairs(observation, action)
        return _like(self.module.log_prob(rows, actions, self._generator(seed)), observation)

    def q(self, observation: Array, action: Array) -> Array:
        """Q(s, a) [...] of the critic, at observations [..., O] and actions [..., A].

        It is the least of the critic's Q functions, or their mean with `critic.aggregate=mean`, and in units of the
        rewards that it was trained on (`dataset.reward`). Raises `UserError` where there is no critic (`has_critic`).
        """
        self._require_critic()
        return _like(self._values.q(*self._pairs(observation, action)), observation)

    def v(self, observation: Array) -> Array:
        """V(s) [...] of the critic at observations [..., O], in the units of `q`.

        Raises `UserError` where there is no critic, or it learns Q alone.
        """
        if self._require_critic().expectile is None:
            raise UserError("this run's critic learns no V: critic=iql does, and critic=double_q with critic.expectile")
        return _like(self._values.v(self._rows(observation, "observation", self.observation_size)), observation)

    @property
    def _shape(self) -> tuple[int, int]:
        return self.chunk_length, self.action_size

    def _require_critic(self) -> Critic:
        if self._values.critic is None:
            raise UserError(
                f"there is no critic: the algorithm learns none, or {POLICY} was loaded, which holds one only for a "
                "policy that acts by it; the run directory or its last.pt has it"
            )
        return self._values.critic

    def _pairs(self, observation: Array, action: Array) -> tuple[Tensor, Tensor]:
        rows = self._rows(observation, "observation", self.observation_size)
        if self.chunk_length > 1 and isinstance(action, np.ndarray | Tensor):
            if action.shape[-2:] != self._shape:
                raise UserError(f"action: the last dimensions of {tuple(action.shape)} must be {self._shape}")
            action = action.reshape(*action.shape[:-2], math.prod(self._shape))
        actions = self._rows(action, "action", self.chunk_length * self.action_size)
        if action.shape[:-1] != observation.shape[:-1]:
            raise UserError(f"actions {tuple(action.shape)} do not go with observations {tuple(observation.shape)}")
        return rows, actions

    def _rows(self, array: Array, what: str, size: int) -> Tensor:
        if not isinstance(array, np.ndarray | Tensor):
            raise UserError(f"{what}: must be an array of NumPy or torch, not of type {type(array).__name__}")
        if array.ndim == 0 or array.shape[-1] != size:
            raise UserError(f"{what}: the last dimension of {tuple(array.shape)} must be {size}")
        if array.is_complex() if isinstance(array, Tensor) else array.dtype.kind not in "fiub":
            raise UserError(f"{what}: must be of real numbers, not of type {array.dtype}")
        rows = math.prod(array.shape[:-1])
        if isinstance(array, np.ndarray):  # torch takes not all types, byte orders and strides, nor what is read-only
            array = np.array(array, dtype=np.float32, order="C")
        return torch.as_tensor(array, dtype=torch.float32, device=self._device).reshape(rows, size)

    def _generator(self, seed: int | None) -> torch.Generator | None:
        if seed is None:
            return None
        number = _whole("seed", seed, *SEEDS, "from -2**63 to 2**64 - 1, or None")
        return torch.Generator(self._device).manual_seed(number)


class Served:
    """A trained policy as MLflow calls it."""

    def __init__(self, policy: TrainedPolicy):
        self._policy = policy

    def predict(self, observation: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """Actions [B, A] in the action space at observations [B, O], float32, as in the run's evaluations.

        params: `reset` of a policy that plays chunks of actions, whether these are the first ones of other episodes.
        """
        if params and params.get("reset"):
            self._policy.reset()
        return self._policy.act(observation)


def _load_pyfunc(path: str) -> Served:
    """Called by MLflow with the folder that `genpolicy.tracking.entities.save_policy` filled. Needs no data set."""
    return Served(restored(load_run(Path(path)).config, Path(path) / POLICY))


def _like(value: Tensor, given: Array) -> Array:
    """The values [B, ...] of rows that were given as [..., O], in those dimensions and of that kind."""
    value = value.reshape(given.shape[:-1] + value.shape[1:])
    return value.cpu().numpy() if isinstance(given, np.ndarray) else value.to(given.device)


def _whole(name: str, value: Any, least: int, largest: float, legal: str) -> int:
    """A whole number of Python or NumPy, as Python's. Raises `UserError` for anything else, and outside of its ends."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not least <= number <= largest:
        raise UserError(f"{name}={value}: must be a whole number, {legal}")
    return number


def _job(*words: str) -> Job:
    for word in words:
        if not isinstance(word, str):
            raise UserError(f"{word!r}: no word of a command line, such as 'algo=gmpo'; each is an argument of its own")
        if word.startswith("-"):
            raise UserError(f"{word}: a flag of the command line; from Python there is one run at a time")
    jobs: list[Job] = []
    each_job(list(words), jobs.append)
    if len(jobs) != 1:
        raise UserError("one run at a time from Python; sweeps are for the command line")
    return jobs[0]
