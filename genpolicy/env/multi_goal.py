"""The multi-goal toy: a point walks from the origin to any of four goals, and all four ways are right.

The environment of Haarnoja et al. 2017 (section 5.1), with which the GTP paper (arXiv 2510.11499, appendix D.5) shows
what generative policies make of several modes. Position and steps are in the plane; goals lie at (+-5, 0), (0, +-5).
"""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from genpolicy.config.schema import component
from genpolicy.env.task import Task

GOALS = np.array([[5.0, 0.0], [-5.0, 0.0], [0.0, 5.0], [0.0, -5.0]])
START_STD = 0.1
REACH = 7.0  # positions lie in [-REACH, REACH]
RADIUS = 1.0  # within which a goal counts as reached
SPEED, NOISE = 0.5, 0.1  # of the demonstrations' steps: their length, and the standard deviation added to it


def squared_distance(position: np.ndarray) -> np.ndarray:
    """The squared distance [...] of positions [..., 2] to the nearest goal."""
    return np.square(position[..., None, :] - GOALS).sum(-1).min(-1)


def coverage(trajectories: np.ndarray) -> dict[str, float]:
    """What became of the modes in episodes [steps + 1, episodes, 2].

    goals: those at which at least 5 % of the episodes end (4 is all). reached: share of episodes that end at a goal.
    balance: entropy of the goals reached over that of equal shares (1 is even). end_spread: root mean square distance
    of the ends from the nearest goal. way_spread: that of all points from the straight line to the episode's goal.
    """
    ends = trajectories[-1]
    nearest = np.square(ends[:, None] - GOALS).sum(-1).argmin(-1)
    at_goal = squared_distance(ends) <= RADIUS**2
    shares = np.bincount(nearest[at_goal], minlength=len(GOALS)) / len(ends)
    certain = shares[shares > 0] / max(shares.sum(), 1e-12)
    direction = GOALS[nearest] / np.linalg.norm(GOALS[nearest], axis=-1, keepdims=True)
    aside = trajectories[..., 0] * direction[:, 1] - trajectories[..., 1] * direction[:, 0]
    return {
        "goals": float((shares >= 0.05).sum()),
        "reached": float(at_goal.mean()),
        "balance": float(-(certain * np.log(certain)).sum() / np.log(len(GOALS))),
        "end_spread": float(np.sqrt(squared_distance(ends).mean())),
        "way_spread": float(np.sqrt(np.square(aside).mean())),
    }


def walk(
    act: Callable[[np.ndarray], np.ndarray], episodes: int, steps: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Positions [steps + 1, episodes, 2] and clipped actions [steps, episodes, 2] of episodes side by side.

    act: positions [episodes, 2] -> actions [episodes, 2].
    """
    positions, actions = [START_STD * rng.standard_normal((episodes, 2))], []
    for _ in range(steps):
        actions.append(np.clip(act(positions[-1]), -1.0, 1.0))
        positions.append(moved(positions[-1], actions[-1]))
    return np.stack(positions), np.stack(actions)


def demonstrations(episodes: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """What `walk` gives for walkers that go straight to a random goal and stay there; always the same."""
    rng = np.random.default_rng(0)
    goals = GOALS[rng.integers(len(GOALS), size=episodes)]

    def act(position: np.ndarray) -> np.ndarray:
        gap = goals - position
        straight = gap * np.minimum(1.0, SPEED / np.linalg.norm(gap, axis=-1, keepdims=True))
        return straight + NOISE * rng.standard_normal(position.shape)

    return walk(act, episodes, steps, rng)


def moved(position: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Where a step leads, within the walls."""
    return np.clip(position + action, -REACH, REACH)


@component
class MultiGoal(Task):
    """The point among its goals: the reward is minus the squared distance to the nearest one."""

    has_video = False

    def simulate(self) -> "MultiGoalEnv":
        """The point at the origin."""
        return MultiGoalEnv()


class MultiGoalEnv(gymnasium.Env):
    """Observation: position [2]; action: a step [2], each coordinate in [-1, 1]; never terminated."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-REACH, REACH, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._position = np.zeros(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts at the origin, moved by N(0, 0.1^2)."""
        super().reset(seed=seed)
        self._position = START_STD * self.np_random.standard_normal(2)
        return self._position.astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Moves by the action."""
        self._position = moved(self._position, action)
        return self._position.astype(np.float32), -float(squared_distance(self._position)), False, False, {}
