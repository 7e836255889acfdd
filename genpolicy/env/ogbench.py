"""OGBench's single-task environments (Park et al. 2025, arXiv 2410.20092), played by the package ogbench itself.

A data set, such as cube-single-play-v0, serves five tasks in one simulator. What is said here, and not by the package:

- the reward is 1 on the step that ends an episode by success and else 0, so that the return is the success of the last
  step and the score 100 times the success rate; the data have the task's own rewards (`dataset=ogbench`);
- success is judged by the state before a step, as in the data (the package since 1.2.0; earlier papers: after it): an
  episode ends one step after success, and success on the very last step is not seen;
- `reset(seed)` repeats an episode to the bit: the package draws starts, actions that settle the scene and exits of
  teleporters from NumPy's global generator, or from one that nobody has seeded. Each simulator has one of its own.
"""

import functools
import importlib.metadata
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import gymnasium
import mujoco
import numpy as np

from genpolicy.config.schema import component, setting
from genpolicy.env.camera import look
from genpolicy.env.task import Task, make_quietly

PREFIX = "ogbench-"
CACHE = "~/.ogbench/data"
BUTTONS = "button_states"
# The package's default tasks, by how the names of their simulators begin.
_DEFAULTS = {"pointmaze": 1, "antmaze": 1, "humanoidmaze": 1, "antsoccer": 4, "cube": 2, "scene": 2}
_DEFAULTS |= {"puzzle-3x3": 4, "puzzle-4x4": 4, "puzzle-4x5": 2, "puzzle-4x6": 2}
_SHARED: dict[str, Any] = {}  # by all simulators of this process


@component
class OGBench(Task):
    """One of the five tasks of an OGBench data set; the score is 100 times the success rate of the last step."""

    data_within_limit: ClassVar[bool] = False

    sizes: list[int] = setting(ge=1, le=10**4, doc="numbers of an observation and of an action")
    task: int | None = setting(
        None, ge=1, le=5, doc="number of the task; null: the data set's default, which its number is taken for"
    )

    @classmethod
    def canonical(cls, node: dict) -> dict:
        """The default task's number is the default: they are one run."""
        default = next(
            (task for begin, task in _DEFAULTS.items() if node["name"].startswith(f"{PREFIX}{begin}-")), None
        )
        return node | {"task": None if node["task"] == default else node["task"]}

    @property
    def data(self) -> str:
        """OGBench's name of the data set, such as cube-single-play-v0."""
        return f"{self.name.removeprefix(PREFIX)}-v0"

    @property
    def recorded_in(self) -> str:
        """The simulator: the data set's name without its last part, which says how it was recorded."""
        return self.name.removeprefix(PREFIX).rpartition("-")[0]

    @property
    def dear(self) -> bool:
        """Arms are, and points and ants are not."""
        return "maze" not in self.name and "soccer" not in self.name

    @property
    def unrecorded(self) -> str:
        return "the forces of contacts and where the arm was sent" if self.dear else ""

    @property
    def simulator_version(self) -> str:
        """The package, and when it judges success."""
        return f"ogbench {importlib.metadata.version('ogbench')}, success before the step"

    def data_file(self, folder: Path) -> Path:
        """The file in OGBench's own cache."""
        return Path(CACHE).expanduser() / f"{self.data}.npz"

    @functools.cached_property
    def _spaces(self) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
        observation, action = self.sizes
        return gymnasium.spaces.Box(-np.inf, np.inf, (observation,)), gymnasium.spaces.Box(-1.0, 1.0, (action,))

    def simulate(self) -> "SingleTask":
        """The package's environment with success for a reward."""
        return SingleTask(self.simulator)

    def simulate_as_recorded(self) -> "SingleTask":
        """The same with the task's own rewards."""
        return SingleTask(self.simulator, own_rewards=True)

    @property
    def simulator(self) -> str:
        """The package's name of the task."""
        task = "" if self.task is None else f"-task{self.task}"
        return f"{self.recorded_in}-singletask{task}-v0"

    def view(self, model: mujoco.MjModel) -> mujoco.MjvCamera:
        """From above a maze, from the front of a table."""
        if model.ncam and "front" in (model.camera(number).name for number in range(model.ncam)):
            return look(model, "front")
        floor = model.geom("floor")
        return look(model, lookat=floor.pos, distance=2.5 * max(floor.size[:2]), azimuth=90, elevation=-90)

    def state(self, env: gymnasium.Env) -> dict[str, np.ndarray]:
        """Positions, velocities and, where there are any, the states of buttons."""
        raw = env.unwrapped
        buttons = {BUTTONS: raw._cur_button_states.copy()} if hasattr(raw, "_cur_button_states") else {}
        return {"qpos": raw.data.qpos.copy(), "qvel": raw.data.qvel.copy()} | buttons

    def place(self, env: gymnasium.Env, state: dict[str, np.ndarray]) -> None:
        """Puts a simulator into a recorded state; whether the task is done there is known at once."""
        raw = env.unwrapped
        buttons = [state[BUTTONS].astype(np.int64)] if hasattr(raw, "_cur_button_states") else []
        raw.set_state(state["qpos"], state["qvel"], *buttons)
        if hasattr(raw, "post_step"):
            raw.pre_step()
            raw.post_step()
        if hasattr(raw, "post_step") and not buttons:
            # A step leaves the arm's site where it was before the last integration, and the next one begins there;
            # where there are buttons, the package moves it on.
            mujoco.mj_integratePos(raw.model, raw.data.qpos, raw.data.qvel, -raw.model.opt.timestep)
            mujoco.mj_kinematics(raw.model, raw.data)
            raw.data.qpos[:] = state["qpos"]


class Repeatable(gymnasium.Wrapper):
    """The package's environment of a name, with a generator of its own in place of NumPy's global one."""

    def __init__(self, simulator: str, **more: Any):
        # Numbers only: dm_control would open a display for pictures, and warn where there is none.
        with mock.patch.dict(os.environ, {"MUJOCO_GL": "disable"}):
            import ogbench  # noqa: F401 (registers the environments)
        # The package leaves the file that it writes a maze into, open, among the temporary ones.
        with tempfile.TemporaryDirectory() as folder:
            with mock.patch.object(tempfile, "mkstemp", return_value=(None, os.path.join(folder, "maze.xml"))):
                super().__init__(make_quietly(simulator, **more).unwrapped)
            if hasattr(self.unwrapped, "control_timestep"):  # of a table, which does not say it as gymnasium does
                self.metadata = self.metadata | {"render_fps": 1 / self.unwrapped.control_timestep()}
            self._generator = np.random.MT19937()
            if hasattr(self.unwrapped, "_ik"):  # of 45 MB, without a state: the arm's inverse kinematics
                self.unwrapped._ik = _SHARED.setdefault("inverse kinematics", self.unwrapped._ik)
            with self.repeatable(0), quietly():  # which compiles the model
                self.env.reset(seed=0)
                self.observation_space, self.action_space = self.env.observation_space, self.env.action_space

    @contextmanager
    def repeatable(self, seed: int | None = None) -> Iterator[None]:
        """NumPy's global generator is this simulator's own meanwhile, seeded first if `seed` is given."""
        others = np.random.get_bit_generator()
        np.random.set_bit_generator(self._generator)  # a hundred times faster than copying states
        try:
            if seed is not None:
                np.random.seed(seed)  # noqa: NPY002
            yield
        finally:
            np.random.set_bit_generator(others)


class SingleTask(Repeatable):
    """The package's environment of a single task: reward and end of an episode are the success of the last step.

    own_rewards: the rewards are the package's own.
    """

    def __init__(self, simulator: str, own_rewards: bool = False):
        super().__init__(simulator)
        self._own_rewards = own_rewards

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode of the task."""
        with self.repeatable(seed), quietly():
            observation, _ = self.env.reset(seed=seed)
        return observation, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step; the episode ends if the task was done before it."""
        with self.repeatable():
            observation, reward, terminated, _, _ = self.env.step(action)
        reward = float(reward if self._own_rewards else terminated)
        return observation, reward, bool(terminated), False, {}


@contextmanager
def quietly() -> Iterator[None]:
    """Actions are sampled from NumPy's global generator, and gymnasium does not remark on their space's type.

    The package makes a table's action space anew each time, with a generator that nobody has seeded.
    """
    with warnings.catch_warnings(), mock.patch.object(gymnasium.spaces.Box, "sample", _sample):
        warnings.simplefilter("ignore")
        yield


def _sample(space: gymnasium.spaces.Box) -> np.ndarray:
    """What `space.sample()` gives, drawn from NumPy's global generator."""
    return np.random.uniform(space.low, space.high).astype(space.dtype)  # noqa: NPY002
