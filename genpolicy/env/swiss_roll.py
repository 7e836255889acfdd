"""The Swiss-roll toy: actions on a noisy spiral in the plane, whose value grows along it.

The toy of GMPO and GMPG (arXiv 2412.01245, figure with eps = 0.6): scikit-learn's `make_swiss_roll` of 10,000
points, seen from the side, scaled to [-2, 2], with values from -3.5 at the inner end of the spiral to 1.5 at
the outer end. There is no observation; an episode is one action, and its reward is the action's value.
"""

import functools
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from genpolicy.config.schema import component
from genpolicy.config.validation import Node
from genpolicy.env.task import Task
from genpolicy.errors import UserError

if TYPE_CHECKING:
    from scipy.spatial import KDTree

SIZE = 10_000
NOISE = 0.6  # eps
EXTENT = 2.0  # actions lie in [-EXTENT, EXTENT]
VALUE_RANGE = 5.0
VALUE_MIDDLE = -1.0
SEED = 0
_FIRST, _LAST = 1.5 * np.pi, 4.5 * np.pi
_NODES, _ROWS = 512, 4096  # of the quadrature; actions a piece of it


def swiss_roll(size: int, noise: float, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Points [size, 3] and their places along the roll [size]: scikit-learn's `make_swiss_roll`, draw by
    draw.

    x = t cos t, y = 21 u, z = t sin t with t uniform in [1.5 pi, 4.5 pi] and u in [0, 1] (Marsland, Machine
    Learning).
    """
    place = _FIRST * (1 + 2 * rng.uniform(size=size))
    height = 21 * rng.uniform(size=size)
    points = np.stack([place * np.cos(place), height, place * np.sin(place)])
    return (points + noise * rng.standard_normal((3, size))).T, place


class Roll:
    """The data of the toy, and the value of any action.

    `action` [N,2] and `value` [N] are the data; `value_at` gives an action the value of the nearest point of
    the spiral without noise, so that actions off the data are judged by the branch they are closest to; `exact` is
    the distribution that the data are drawn from.
    """

    def __init__(self) -> None:
        points, place = swiss_roll(SIZE, NOISE, np.random.RandomState(SEED))
        flat = points[:, [0, 2]]
        self._column_scale = np.abs(flat).max(axis=0)
        flat = flat / self._column_scale
        self._low, self._high = flat.min(), flat.max()
        self._places = place.min(), place.max()
        self.action = self._scaled(points[:, [0, 2]])
        self.value = self._value(place)
        line = np.linspace(_FIRST, _LAST, 4096)
        self.spiral, self._line_value = self._scaled(_curve(line)), self._value(line)

    def value_at(self, action: np.ndarray) -> np.ndarray:
        """The values [...] of actions [..., 2]."""
        return self._line_value[self._tree.query(action)[1]]

    @functools.cached_property
    def _tree(self) -> "KDTree":
        from scipy.spatial import KDTree  # slow to import, and no update needs it

        return KDTree(self.spiral)

    def exact(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The data's log-density log p(a) [N], and the expected value Q(a) = E[value | a] [N], at actions [N, 2].

        p is a mixture over places on the roll, uniform in t, of Gaussians (the noise as it is scaled), and Q the mean
        of the value under its posterior of t; both by the midpoint rule in t, whose nodes are less than half a standard
        deviation of the noise apart on the spiral.
        """
        place = _FIRST + (_LAST - _FIRST) * (np.arange(_NODES) + 0.5) / _NODES
        std = NOISE * (self._scaled(np.ones((1, 2))) - self._scaled(np.zeros((1, 2))))
        centre, value = self._scaled(_curve(place)) / std, self._value(place)
        log_p, q = np.empty(len(action)), np.empty(len(action))
        for rows in range(0, len(action), _ROWS):
            part = slice(rows, rows + _ROWS)
            point = action[part].astype(np.float64) / std
            exponent = point @ centre.T - 0.5 * (np.square(point).sum(1)[:, None] + np.square(centre).sum(1))
            top = exponent.max(1)
            weight = np.exp(exponent - top[:, None])
            log_p[part] = top + np.log(weight.mean(1) / (2 * np.pi * std.prod()))
            q[part] = weight @ value / weight.sum(1)
        return log_p, q

    def _scaled(self, flat: np.ndarray) -> np.ndarray:
        unit = (flat / self._column_scale - self._low) / (self._high - self._low)
        return (2 * unit - 1) * EXTENT

    def _value(self, place: np.ndarray) -> np.ndarray:
        low, high = self._places
        along = np.clip((place - low) / (high - low), 0.0, 1.0)
        return (along - 0.5) * VALUE_RANGE + VALUE_MIDDLE


def _curve(place: np.ndarray) -> np.ndarray:
    """The points [N, 2] of the spiral at places [N], as it is seen from the side."""
    return np.stack([place * np.cos(place), place * np.sin(place)], axis=1)


@functools.cache
def roll() -> Roll:
    """The one Swiss roll, made on first use."""
    return Roll()


@component
class SwissRoll(Task):
    """The Swiss-roll toy as a task: no observation, one action, its value as reward."""

    has_video = False

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """An episode is of one action, and so is what is drawn."""
        super().check_compatibility(config)
        if "chunk" in config and config.chunk.length > 1:
            raise UserError(
                f"chunk.length={config.chunk.length}: an episode of {config.env.name} is one action; legal: 1"
            )

    def simulate(self) -> "SwissRollEnv":
        """A simulator of single actions."""
        return SwissRollEnv()


class SwissRollEnv(gymnasium.Env):
    """Episodes of one step: observation [0], action [2] in [-2, 2], reward the value of the action."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (0,), np.float32)
        self.action_space = gymnasium.spaces.Box(-EXTENT, EXTENT, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode; there is nothing to observe."""
        super().reset(seed=seed)
        return np.zeros(0, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Ends the episode with the value of `action` as its reward."""
        return np.zeros(0, np.float32), float(roll().value_at(action)), True, False, {}
