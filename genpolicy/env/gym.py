"""Any registered gymnasium environment whose observations and actions are vectors."""

import contextlib
import importlib
from typing import Any

import gymnasium
import mujoco
import numpy as np

from genpolicy.config import plugins
from genpolicy.config.schema import build, component, setting
from genpolicy.config.validation import Node
from genpolicy.env.camera import canvas
from genpolicy.env.task import Task, make_quietly, unmade
from genpolicy.errors import UserError, message, one_line

# Of an action, in size: 3.4e38, float32's largest number, says that there is none. With larger ones than this, what a
# network puts out at first, numbers around 1, is next to nothing; squares of still larger ones leave float32.
LARGEST_BOUND = 1e6


@component
class Gym(Task):
    """The environment that gymnasium knows by `id`; 'package:Name-v0' imports the package that registers it first.

    The package is imported only if the command line names it, as a run's configuration may come from other people.
    Its own wrappers are kept but for the time limit. Without references there is no normalised score.
    """

    id: str = setting(doc="the environment's name in gymnasium, such as Pendulum-v1 or my_package:MyTask-v0")
    max_episode_steps: int | None = setting(
        ge=1, le=10**9, doc="steps after which an episode is cut off; null: as registered"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.name = self.id
        plugins.require(self.id)
        if self.max_episode_steps is None:
            self.max_episode_steps = _registered_limit(self.id)

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """Begins an episode, and draws it if it is to be filmed: what is wrong is said before a run is made."""
        super().check_compatibility(config)
        task = build(config.env)
        with contextlib.closing(task.simulate()) as env:
            try:
                env.reset(seed=0)
            except UserError:
                raise
            except Exception as error:  # whatever an environment may raise
                raise UserError(f"env.id={task.id}: no episode begins ({one_line(error)})") from error
        if config.eval.video:
            task.require_pictures()

    @property
    def mistakable(self) -> bool:
        """Of gymnasium's own robots; others may see more than the state of their simulation."""
        return str(gymnasium.spec(self.recorded_in).entry_point).startswith("gymnasium.envs.mujoco.")

    @property
    def recorded_in(self) -> str:
        """The environment itself, of this version."""
        return self.id.rpartition(":")[2]

    @property
    def registered_as(self) -> str:
        """The environment itself, with the package that registers it."""
        return self.id

    def simulate(self) -> gymnasium.Env:
        """The environment. Raises `UserError` if it cannot be made, or its spaces are no boxes of vectors."""
        return self._make()

    def visible(self) -> gymnasium.Env:
        """The environment, which draws itself."""
        return self._make(render_mode="rgb_array")

    def camera(self, env: gymnasium.Env) -> "Pictures":
        """The environment's own pictures."""
        return Pictures(env)

    def require_pictures(self) -> None:
        """Raises `UserError` if the environment cannot draw itself.

        MuJoCo's always can: where OpenGL is missing, that is the machine's, and the runs may be for another one.
        """
        try:
            with contextlib.closing(self.visible()) as env:
                if isinstance(getattr(env.unwrapped, "model", None), mujoco.MjModel):
                    return
                env.reset(seed=0)
                self.camera(env).picture()
        except Exception as error:  # whatever an environment may raise
            said = message(error, 200)
            raise UserError(f"eval.video: {self.id} cannot be drawn ({said}); leave eval.video out") from error

    def _make(self, **more: Any) -> gymnasium.Env:
        env = make_quietly(self.id, "env.id", **more)
        for kind, space in {"observations": env.observation_space, "actions": env.action_space}.items():
            if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
                raise UserError(f"env.id={self.id}: its {kind} are {space}; only a Box of vectors will do")
        if not (np.abs([env.action_space.low, env.action_space.high]) <= LARGEST_BOUND).all():
            shown = " ".join(str(env.action_space).split())
            raise UserError(
                f"env.id={self.id}: its actions are practically unbounded ({shown}); its action_space must "
                f"be within -{LARGEST_BOUND:g} and {LARGEST_BOUND:g}"
            )
        return Plain(env, f"env.id={self.id}")


class Plain(gymnasium.Wrapper):
    """An environment whose rewards and flags are numbers, also where it gives arrays of one element.

    Raises `UserError`, which names it by `name`, for an observation that is not of its space's shape, and for a reward
    or flag that is not one number.
    """

    def __init__(self, env: gymnasium.Env, name: str):
        super().__init__(env)
        self._name, self._shape = name, env.observation_space.shape

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """The start of an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._vector(observation), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """A step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        flags = self._single("terminated", terminated, bool), self._single("truncated", truncated, bool)
        return self._vector(observation), self._single("reward", reward, float), *flags, info

    def _vector(self, observation: Any) -> np.ndarray:
        if np.shape(observation) != self._shape:
            raise UserError(
                f"{self._name}: its observations have shape {list(np.shape(observation))}, but its observation_space "
                f"has {list(self._shape)}"
            )
        return np.asarray(observation)

    def _single(self, name: str, value: Any, kind: type) -> float | bool:
        if isinstance(value, kind):
            return value
        try:
            return kind(np.asarray(value).item())
        except (TypeError, ValueError) as error:
            shown = " ".join(str(value).split())
            raise UserError(f"{self._name}: the environment gives {name}={shown}; it must be one number") from error


class Pictures:
    """What an environment draws of itself."""

    def __init__(self, env: gymnasium.Env):
        self._env = env
        if isinstance(getattr(env.unwrapped, "model", None), mujoco.MjModel):
            canvas().free()  # where that fails, gymnasium's own way to draw would leave a traceback behind

    def picture(self) -> np.ndarray:
        """The environment as it is now, uint8 [H, W, 3]. Raises `UserError` if it has no pictures."""
        picture = self._env.render()
        if not (isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.shape[2:] == (3,)):
            raise UserError("the environment's render_mode=rgb_array gives no pictures")
        return picture

    def close(self) -> None:
        """Nothing: the environment is closed by who made it."""


def _registered_limit(name: str) -> int:
    package, _, registered = name.rpartition(":")
    try:
        if package:
            importlib.import_module(package)
        limit = gymnasium.spec(registered).max_episode_steps
    except Exception as error:  # whatever a name that is none, or the package, may raise
        raise unmade("env.id", name, error) from error
    if limit is None:
        make_quietly(name, "env.id").close()  # if it cannot be made at all, that is what to say
        raise UserError(f"env.max_episode_steps must be given: {name} is registered without a limit")
    return limit
