"""The DeepMind Control Suite, in which RL Unplugged recorded its data (Gulcehre et al. 2020)."""

import functools
import os
from typing import Any
from unittest import mock

import gymnasium
import mujoco
import numpy as np

from genpolicy.config.schema import component, setting
from genpolicy.env.camera import look
from genpolicy.env.task import Task
from genpolicy.errors import UserError

HAS_GOALS = ("finger", "fish", "manipulator")  # drawn for each episode, and kept in the model


@component
class ControlSuite(Task):
    """A task of the suite: rewards in [0, 1], episodes of 1,000 steps, no normalised score."""

    domain: str = setting(doc="domain in the DeepMind Control Suite, such as cheetah")
    task: str = setting(doc="task of that domain, such as run")

    def simulate(self) -> "Control":
        """The suite's environment with vectors for observations."""
        return Control(self.domain, self.task)

    def state(self, env: gymnasium.Env) -> dict[str, np.ndarray]:
        """Positions and velocities, where an episode has no goal beside them."""
        return super().state(env) if self.domain not in HAS_GOALS else {}

    def view(self, model: mujoco.MjModel) -> mujoco.MjvCamera:
        """The suite's first camera, which is the one it shows its tasks with."""
        return look(model, 0)

    def place(self, env: gymnasium.Env, state: dict[str, np.ndarray]) -> None:
        """Puts the simulator into a state."""
        env.unwrapped.place(state["qpos"], state["qvel"])

    @functools.cached_property
    def layout(self) -> dict[str, int]:
        """The parts of an observation and their sizes, in order; together they have the observation's size."""
        return self.simulate().layout


class Control(gymnasium.Env):
    """A dm_control environment: the parts of its observation one after the other [O], as the task names them."""

    def __init__(self, domain: str, task: str):
        # Numbers only: dm_control would open a display for pictures, and warn where there is none.
        with mock.patch.dict(os.environ, {"MUJOCO_GL": "disable"}):
            from dm_control import suite
        known = sorted(f"{one}/{other}" for one, other in suite.ALL_TASKS)
        if f"{domain}/{task}" not in known:
            raise UserError(f"env.domain, env.task: no {domain}/{task} in the suite; legal: {', '.join(known)}")
        self._random = np.random.RandomState()
        self._env = suite.load(domain, task, {"random": self._random, "time_limit": float("inf")})
        self.dt = self._env.control_timestep()
        self.layout = {name: int(np.prod(spec.shape)) for name, spec in self._env.observation_spec().items()}
        actions = self._env.action_spec()
        size = sum(self.layout.values())
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float64)
        self.action_space = gymnasium.spaces.Box(
            actions.minimum.astype(np.float32), actions.maximum.astype(np.float32), dtype=np.float32
        )

    @property
    def model(self) -> mujoco.MjModel:
        """MuJoCo's own."""
        return self._env.physics.model.ptr

    @property
    def data(self) -> mujoco.MjData:
        """MuJoCo's own."""
        return self._env.physics.data.ptr

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode as the task does."""
        super().reset(seed=seed)
        if seed is not None:
            self._random.seed(seed)
        return self._vector(self._env.reset().observation), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step of the task's control."""
        after = self._env.step(np.asarray(action, dtype=np.float64))
        terminated = after.last()  # by the task: it has no time limit here
        return self._vector(after.observation), float(after.reward), terminated, False, {}

    def place(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Sets all positions and velocities."""
        with self._env.physics.reset_context():
            self.data.qpos[:], self.data.qvel[:] = qpos, qvel

    def _vector(self, observation: dict) -> np.ndarray:
        return np.concatenate([np.ravel(observation[name]) for name in self.layout])
