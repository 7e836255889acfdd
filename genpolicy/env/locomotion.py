"""D4RL's locomotion tasks in gymnasium's MuJoCo simulators."""

import gymnasium
import mujoco
import numpy as np

from genpolicy.config.schema import component, setting
from genpolicy.env.camera import look
from genpolicy.env.task import Task, make_quietly

SIMULATORS = tuple(f"{robot}-{version}" for robot in ("Hopper", "HalfCheetah", "Walker2d") for version in ("v4", "v5"))

MAX_SPEED = 10.0


@component
class Locomotion(Task):
    """Hopper, HalfCheetah or Walker2d: rewarded for forward speed and for being upright."""

    mistakable = True

    simulator: str = setting(choices=SIMULATORS, doc="what stands in for D4RL's simulator: its gymnasium id")

    @property
    def recorded_in(self) -> str:
        """The robot."""
        return self.simulator.rpartition("-")[0]

    @property
    def registered_as(self) -> str:
        """The robot of this version."""
        return self.simulator

    def simulate(self) -> gymnasium.Env:
        """The simulator named by `simulator`, without wrappers."""
        return make_quietly(self.simulator).unwrapped

    def view(self, model: mujoco.MjModel) -> mujoco.MjvCamera:
        """From the side, along with the robot."""
        return look(model, "track")

    def states(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        """All but the place along the track, on which nothing depends; a velocity is cut off at 10 (not Cheetah's)."""
        positions = (self.observation_size - 1) // 2
        velocity = observation[:, positions:].astype(np.float64)
        if not self.simulator.startswith("HalfCheetah"):
            velocity[np.abs(velocity) >= MAX_SPEED] = np.nan
        return {"qpos": np.pad(observation[:, :positions], ((0, 0), (1, 0))), "qvel": velocity}
