"""What a task is: a simulator, an episode limit, the scale of its scores, and where its data lie."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import urllib.parse
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import gymnasium
import numpy as np

from genpolicy.config.option_content import given_settings
from genpolicy.config.schema import EVALUATION, component, setting
from genpolicy.config.validation import Node
from genpolicy.errors import UserError, message, one_line

if TYPE_CHECKING:  # MuJoCo is slow to import, and toys do without
    import mujoco

    from genpolicy.env.camera import Camera

Raw = TypeVar("Raw", float, np.ndarray)

log = logging.getLogger(__name__)


@component
class Task(ABC):
    """A task: how its simulator is made, and how a return in it becomes D4RL's normalised score.

    Observations are vectors [O], actions vectors [A] in a box; an episode has at most `max_episode_steps`
    steps, and its end by that limit is a truncation, not a termination.

    has_video: whether an episode can be filmed. data_within_limit: whether recorded episodes are no longer than that
    either. Those of people are, and so are D4RL's in mazes: walks from goal to goal, or without end. mistakable:
    whether there are other robots whose observations and actions have the same sizes, so that data are tried in the
    simulator. dear: whether a step takes a millisecond or more, so that those of an evaluation are made on all cores.
    defining: the settings that say what is earned, on which data and reference scores depend.
    """

    has_video: ClassVar[bool] = True
    data_within_limit: ClassVar[bool] = True
    mistakable: ClassVar[bool] = False
    dear: ClassVar[bool] = False
    defining: ClassVar[tuple[str, ...]] = ()

    name: str = setting(doc="the name of the task, as its benchmark has it")
    max_episode_steps: int = setting(ge=1, le=10**9, doc="steps after which an episode is cut off")
    reference_min: float | None = setting(
        None, ge=-1e30, le=1e30, doc="return that scores 0 (D4RL: a random policy); null for none", affects=EVALUATION
    )
    reference_max: float | None = setting(
        None, ge=-1e30, le=1e30, doc="return that scores 100 (D4RL: an expert); null for none", affects=EVALUATION
    )
    url: str | None = setting(None, doc="where the data of this task are published; null if they are not")
    family: str | None = setting(
        None, doc="name of the tasks that share a file of tuned values; null: none", affects=None
    )

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """A benchmark's name is that of its own task, and scores have two ends."""
        env = config.env
        own = given_settings("env", env.name) if cls.defining else {}
        for name in cls.defining:
            if name in own and env[name] != own[name]:
                raise UserError(
                    f"env.{name}={env[name]}: data and reference scores of {env.name} are those of {own[name]}; "
                    "another task needs a name of its own: give env.name, env.reference_min=null and "
                    "env.reference_max=null, too"
                )
        low, high = env.reference_min, env.reference_max
        if (low is None) != (high is None):
            raise UserError("env.reference_min, env.reference_max: one is null; give both, or null for both")
        if low is not None and not low < high:
            raise UserError(f"env.reference_max={high:g}: must be above env.reference_min={low:g}")

    def __post_init__(self) -> None:
        self._made: list[gymnasium.Env] = []

    @abstractmethod
    def simulate(self) -> gymnasium.Env:
        """A new simulator of the task, without its episode limit."""

    def simulate_as_recorded(self) -> gymnasium.Env:
        """The same with the rewards of the task's published data, where those follow another rule."""
        return self.simulate()

    def returns(self, reward: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """What recorded episodes earn in the simulator [episodes], by their rewards [N] and their last rows.

        No more than `max_episode_steps` of their steps count: those of people may be longer.
        """
        return np.diff(np.cumsum(self.paid(reward, ends), dtype=np.float64)[ends], prepend=0.0)

    def paid(self, reward: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """The rewards [M] of the rows of these episodes; 0 where the simulator would have ended an episode before."""
        lengths = np.diff(ends, prepend=-1)
        step = np.arange(lengths.sum()) - np.repeat(ends - lengths + 1, lengths)
        return np.where(step < self.max_episode_steps, reward[: len(step)], 0)

    @property
    def unrecorded(self) -> str:
        """What a step depends on that the states of recorded data lack; "" if nothing does."""
        return ""

    def visible(self) -> gymnasium.Env:
        """A new simulator that can be drawn."""
        return self.simulate()

    def camera(self, env: gymnasium.Env) -> Camera:
        """What draws a simulator of the task, reset and made by `visible`."""
        from genpolicy.env.camera import Camera

        return Camera(env.unwrapped.model, env.unwrapped.data, self.view(env.unwrapped.model))

    def view(self, model: mujoco.MjModel) -> mujoco.MjvCamera:
        """From where a simulation is seen: all of it, unless the task knows better."""
        from genpolicy.env.camera import look

        return look(model)

    def make(self, num_envs: int) -> list[gymnasium.Env]:
        """`num_envs` simulators, each cut off at `max_episode_steps`, kept for the next call."""
        while len(self._made) < num_envs:
            self._made.append(gymnasium.wrappers.TimeLimit(self.simulate(), self.max_episode_steps))
        return self._made[:num_envs]

    def close(self) -> None:
        """Frees the simulators kept by `make`."""
        while self._made:
            self._made.pop().close()

    @functools.cached_property
    def _spaces(self) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
        env = self.simulate()
        env.close()
        return env.observation_space, env.action_space

    @property
    def observation_size(self) -> int:
        """O, the size of an observation."""
        return self._spaces[0].shape[0]

    @property
    def action_size(self) -> int:
        """A, the size of an action."""
        return self._spaces[1].shape[0]

    @property
    def action_low(self) -> np.ndarray:
        """The smallest legal action [A], float32."""
        return self._spaces[1].low.astype(np.float32)

    @property
    def action_high(self) -> np.ndarray:
        """The largest legal action [A], float32."""
        return self._spaces[1].high.astype(np.float32)

    @property
    def score_scale(self) -> float:
        """Points of normalised score a unit of return is worth; a standard deviation is only scaled by it."""
        return 100.0 / (self.reference_max - self.reference_min)

    def score(self, returns: Raw) -> Raw:
        """D4RL's normalised score of raw returns, times 100 (Fu et al. 2020, section 5)."""
        return (returns - self.reference_min) * self.score_scale

    @property
    def recorded_in(self) -> str | None:
        """The environment of gymnasium that data of the task are recorded in, without its version; None: not known."""
        return None

    @property
    def registered_as(self) -> str | None:
        """What `gymnasium.make` makes the simulator of, its episode limit aside; None: it is not registered there."""
        return None

    @property
    def simulator_version(self) -> str | None:
        """What to note of the package that plays the task, on which results depend; None: nothing."""
        return None

    def data_file(self, folder: Path) -> Path:
        """Where the published data of the task are kept, if it has any; `folder` is D4RL's cache."""
        return folder / Path(urllib.parse.urlparse(self.url).path).name

    def states(self, observation: np.ndarray) -> dict[str, np.ndarray] | None:
        """The simulator's states that observations [N,O] tell, as `place` takes them, NaN where they do not.

        None if they never do: it then takes a file that has recorded the states, too.
        """
        return None

    def state(self, env: gymnasium.Env) -> dict[str, np.ndarray]:
        """The state of a simulator of the task, as `place` takes it; empty if it cannot be told."""
        import mujoco

        data = getattr(env.unwrapped, "data", None)
        return {"qpos": data.qpos.copy(), "qvel": data.qvel.copy()} if isinstance(data, mujoco.MjData) else {}

    def place(self, env: gymnasium.Env, state: dict[str, np.ndarray]) -> None:
        """Puts a simulator of the task into a recorded state: qpos, qvel, and what else the task records."""
        env.unwrapped.set_state(state["qpos"], state["qvel"])

    def impossible(self, observation: np.ndarray, next_observation: np.ndarray) -> np.ndarray:
        """Which pairs of rows [N,O] cannot be a step of the simulator [N], for files that do not flag all ends.

        By default none is thought impossible.
        """
        return np.zeros(len(observation), dtype=bool)

    def resumed(self, observation: np.ndarray, next_observation: np.ndarray) -> np.ndarray:
        """Of which pairs of rows [N,O] the second goes on with the episode that has terminated with the first [N].

        By default none does: the second is the start of another.
        """
        return np.zeros(len(observation), dtype=bool)


def make_quietly(simulator: str, key: str = "env.simulator", **more: Any) -> gymnasium.Env:
    """The simulator of `gymnasium.make(..., **more)`: no time limit, no checkers, no advice to use a newer version.

    MuJoCo's own warnings go to the log of this module, not to a file in the working folder. Raises `UserError`,
    which names the setting `key`, if there is no such simulator.
    """
    import mujoco

    mujoco.set_mju_user_warning(log.info)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return gymnasium.make(simulator, max_episode_steps=-1, disable_env_checker=True, **more)
        except Exception as error:  # whatever the simulator's package may raise
            raise unmade(key, simulator, error) from error


def unmade(key: str, simulator: str, error: Exception) -> UserError:
    """What is said of a simulator, named by the setting `key`, that could not be made."""
    plain = isinstance(error, gymnasium.error.Error | ImportError)  # their messages say it all without the error's type
    return UserError(f"{key}: {simulator} cannot be made: {message(error) if plain else one_line(error)}")


def make_robotics(simulator: str) -> gymnasium.Env:
    """`make_quietly` of a simulator of gymnasium-robotics."""
    gymnasium.register_envs(import_robotics())
    return make_quietly(simulator)


def import_robotics() -> ModuleType:
    """The package gymnasium_robotics."""
    with contextlib.redirect_stderr(io.StringIO()):  # it prints news about its environments
        import gymnasium_robotics
    return gymnasium_robotics
