"""How good a policy is: returns of whole episodes, and the likelihood of recorded actions."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from genpolicy.dataset.transitions import Transitions
from genpolicy.env.task import Task
from genpolicy.errors import UserError
from genpolicy.evaluation.simulators import AT_ONCE, Simulators, simulators
from genpolicy.model.policy import Policy


@dataclass(frozen=True)
class Episode:
    """All that it takes to play an episode again: the start's seed and the actions [steps, A]; and what it earned."""

    seed: int
    actions: np.ndarray
    earned: float


@dataclass(frozen=True)
class Returns:
    """Every episode's raw return and its length in steps, both [episodes], and the first one in full."""

    returns: np.ndarray
    lengths: np.ndarray
    first: Episode | None = None


def evaluation_seed(run_seed: int, index: int) -> int:
    """The seed of a run's evaluation number `index`: the same for every algorithm run with `run_seed`."""
    return int(np.random.SeedSequence([run_seed, index]).generate_state(1, np.uint64)[0] >> 1)


@dataclass(frozen=True)
class Step:
    """One step of B episodes side by side: which of them go on [B], and what was seen, done and got there [B,...]."""

    running: np.ndarray
    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


@torch.no_grad()
def rollout(
    task: Task,
    act: Callable[[torch.Tensor], torch.Tensor],
    episodes: int,
    seed: int,
    begin: Callable[[], None] = lambda: None,
) -> Returns:
    """Plays `episodes` whole episodes, as `steps` does, and returns each one's result.

    Where simulators are dear they are played in equal parts, no more than `AT_ONCE` side by side. begin: called before
    each part.
    """
    returns, lengths, actions = np.zeros(episodes), np.zeros(episodes, dtype=np.int64), []
    seeds = start_seeds(seed, episodes)
    for part in np.array_split(np.arange(episodes), parts(task, episodes)):
        begin()
        for step in steps(task, act, [seeds[number] for number in part]):
            running = part[step.running]
            returns[running] += step.reward[step.running]
            lengths[running] += 1
            if running[0] == 0:
                actions.append(step.action[0])
    return Returns(returns, lengths, Episode(seeds[0], np.stack(actions), float(returns[0])))


def parts(task: Task, episodes: int) -> int:
    """In how many parts so many episodes are played, one after the other."""
    return math.ceil(episodes / AT_ONCE) if task.dear else 1


def start_seeds(seed: int, episodes: int) -> list[int]:
    """The seeds of the simulators of an evaluation; the first ones are the same for any number of episodes."""
    return np.random.SeedSequence(seed).generate_state(episodes).tolist()


def steps(
    task: Task, act: Callable[[torch.Tensor], torch.Tensor], seeds: list[int], here: bool = False
) -> Iterator[Step]:
    """Plays a whole episode from each of these seeds, side by side, step by step.

    `act` maps observations [B,O] (float32, CPU) to actions [B,A], for all episodes in one call, so that what it draws
    does not depend on their lengths; actions are clipped to the action space. Each simulator plays exactly one episode,
    and is not stepped after its end. here: they must be in this process, as others look into them. Raises `UserError`
    if an action is NaN, or if the simulator gives a reward or an observation that is not finite.
    """
    with simulators(task, len(seeds), here) as envs:
        yield from _played(task, envs, act, seeds)


def _played(
    task: Task, envs: Simulators, act: Callable[[torch.Tensor], torch.Tensor], seeds: list[int]
) -> Iterator[Step]:
    observation = np.array(envs.reset(seeds), dtype=np.float64)
    running, number = np.ones(len(seeds), dtype=bool), 0
    check_finite(task, seeds, {"observation": observation}, running, "at the start")
    while running.any():
        action = act(torch.from_numpy(observation.astype(np.float32))).cpu().numpy()
        if np.isnan(action[running]).any():
            raise UserError(
                f"{task.name}: the policy's action is not a number at step {number} of an episode: "
                "training has diverged; a smaller learning rate or weaker guidance may help"
            )
        action = np.clip(np.nan_to_num(action), task.action_low, task.action_high)
        following, reward = observation.copy(), np.zeros(len(seeds))
        terminated, truncated = np.zeros(len(seeds), dtype=bool), np.zeros(len(seeds), dtype=bool)
        which = np.flatnonzero(running)
        for i, step in zip(which, envs.step(which, action[which]), strict=True):
            following[i], reward[i], terminated[i], truncated[i] = step
        check_finite(task, seeds, {"reward": reward, "observation": following}, running, f"in step {number}")
        yield Step(running, observation, action, reward, terminated, truncated)
        running, observation, number = running & ~(terminated | truncated), following, number + 1


def check_finite(task: Task, seeds: list[int], given: dict[str, np.ndarray], running: np.ndarray, when: str) -> None:
    """Raises `UserError` for what a simulator gives, [B, ...] by its name, if it is not finite in a running episode."""
    for name, values in given.items():
        with np.errstate(over="ignore"):  # what float32 cannot hold is not finite for the policy
            wrong = running & ~np.isfinite(values.astype(np.float32)).reshape(len(values), -1).all(1)
        if wrong.any():
            episode = int(np.argmax(wrong))
            shown = values[episode] if name == "reward" else "with a NaN or infinite value"
            raise UserError(
                f"{task.name}: the environment gives the {name} {shown} {when} of the episode of seed "
                f"{seeds[episode]}: an error of the environment, not of the policy; rewards and observations must be "
                "finite"
            )


def summary(returns: Returns, task: Task) -> dict[str, float]:
    """Mean, std, min and max of the returns, and of the normalised scores if the task has reference scores.

    The std is that of the episodes (population); as a score it is scaled by `score_scale` and not shifted.
    """
    raw = returns.returns
    values = {
        "return_mean": raw.mean(),
        "return_std": raw.std(),
        "return_min": raw.min(),
        "return_max": raw.max(),
    }
    if task.reference_min is not None:
        values |= {f"score_{name}": task.score(values[f"return_{name}"]) for name in ("mean", "min", "max")}
        values["score_std"] = values["return_std"] * task.score_scale
    values["episode_length"] = returns.lengths.mean()
    return {name: float(value) for name, value in values.items()}


@torch.no_grad()
def log_likelihood(
    policy: Policy,
    transitions: Transitions,
    log_volume: float = 0.0,
    generator: torch.Generator | None = None,
    chunk: int = 1000,
    **how: Any,
) -> dict[str, float]:
    """The log-likelihood that `policy` gives the recorded actions, in calls of `policy.log_prob` on `chunk`
    of them, with the further arguments `how`.

    log_volume: that of a unit of the policy's actions, which the density of the environment's is smaller by, in nats.

    `log_prob` is the mean in nats, `log_prob_stderr` its standard error, and `bits_per_dim` the code length
    -log_prob / (A ln 2), of which less is better. The density is that of the policy before actions are
    clipped.
    """
    parts = [
        policy.log_prob(observation, action, generator=generator, **how)
        for action, observation in zip(
            transitions.action.split(chunk), transitions.observation.split(chunk), strict=True
        )
    ]
    log_prob = torch.cat(parts).double()
    mean = float(log_prob.mean()) - log_volume
    return {
        "log_prob": mean,
        "log_prob_stderr": float(log_prob.std()) / math.sqrt(len(log_prob)) if len(log_prob) > 1 else math.nan,
        "bits_per_dim": -mean / (transitions.action_size * math.log(2)),
    }
