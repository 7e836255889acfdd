"""Recorded transitions taken again in a simulator: does it do what was recorded?"""

from collections.abc import Callable
from dataclasses import dataclass

import gymnasium
import numpy as np

from genpolicy.env.task import Task
from genpolicy.errors import UserError

PROGRESS_EVERY = 500  # transitions
FEW, ANOTHER = 20, 1.0  # transitions replayed when data are loaded, and the error above which they are of another robot
CONSTANT = 1e-6  # standard deviation of a part that does not change, as a share of its mean if that is above 1


@dataclass(frozen=True)
class Replay:
    """Errors of n replayed transitions.

    parts [n,O]: of the observation, each in its standard deviation over the data, NaN for a termination, after which
    none is recorded; reward [n]: what the simulator gives more; recorded_end [n], replayed_end [n]: whether the episode
    terminated.
    """

    parts: np.ndarray
    reward: np.ndarray
    recorded_end: np.ndarray
    replayed_end: np.ndarray

    @property
    def observation(self) -> np.ndarray:
        """The largest error of the parts [n]."""
        return self.parts.max(1)

    @property
    def kinds(self) -> dict[str, np.ndarray]:
        """The transitions [n] of either kind, by what is said of them."""
        return {"that go on": ~self.recorded_end, "that terminate": self.recorded_end}

    def beyond(self, tolerance: float) -> np.ndarray:
        """Which transitions [n] do not repeat within the tolerance."""
        large = np.nan_to_num(self.observation) > tolerance
        return large | (np.abs(self.reward) > tolerance) | (self.recorded_end != self.replayed_end)


def spread_rows(states: dict[str, np.ndarray], count: int) -> np.ndarray:
    """At most `count` rows whose state is known, spread evenly over all of them."""
    known = np.flatnonzero(np.all([np.isfinite(column).all(1) for column in states.values()], axis=0))
    return known[np.unique(np.linspace(0, len(known) - 1, min(count, len(known))).astype(int))]


def replay(
    task: Task,
    arrays: dict[str, np.ndarray],
    states: dict[str, np.ndarray],
    rows: np.ndarray,
    advance: Callable[[int], None] = lambda done: None,
    env: gymnasium.Env | None = None,
) -> Replay:
    """Replays the transitions `rows` [n] of a data set from their states. Raises `UserError` for states of another.

    advance: told now and then how many are done. env: a simulator of the task with the rewards of the data, if its own
    are others.
    """
    env, observed = env or task.simulate(), arrays["observation"].astype(np.float64)
    scale = observed.std(axis=0)
    scale[scale < CONSTANT * np.maximum(1, np.abs(observed.mean(axis=0)))] = 1
    env.reset(seed=0)
    errors = np.full((len(rows), len(scale)), np.nan)
    rewards, ends = np.zeros(len(rows)), np.zeros(len(rows), dtype=bool)
    for number, row in enumerate(rows):
        _place(task, env, {name: column[row].astype(np.float64) for name, column in states.items()})
        observation, reward, ends[number], _, _ = env.step(arrays["action"][row])
        rewards[number] = reward - arrays["reward"][row]
        if not arrays["terminated"][row]:
            errors[number] = np.abs(observation - arrays["next_observation"][row]) / scale
        if number % PROGRESS_EVERY == 0:
            advance(number)
    env.close()
    return Replay(errors, rewards, arrays["terminated"][rows], ends)


def _place(task: Task, env: gymnasium.Env, state: dict[str, np.ndarray]) -> None:
    try:
        task.place(env, state)
    except (AssertionError, ValueError, KeyError, AttributeError) as error:
        sizes = ", ".join(f"{name} [{len(value)}]" for name, value in state.items())
        raise UserError(f"the data's states, {sizes}, are none of {task.name}: were they recorded in it?") from error


def check_robot(task: Task, arrays: dict[str, np.ndarray], states: dict[str, np.ndarray], source: str) -> None:
    """Replays a few transitions. Raises `UserError` if they are clearly those of another simulator.

    The right one, of whatever version, is some .05 standard deviations off at most; another robot, several.
    """
    rows = spread_rows(states, FEW)
    errors = replay(task, arrays, states, rows).observation
    if np.isfinite(errors).any() and (middle := float(np.nanmedian(errors))) > ANOTHER:
        raise UserError(
            f"{source}: not recorded in {task.recorded_in}: {len(rows)} recorded steps, taken again there from their "
            f"states, end {middle:.2g} standard deviations from what was recorded (median); give the env of these data"
        )
