"""D4RL's Kitchen tasks: a Franka arm has four things in a kitchen to do, in any order.

The kitchen is the model file of gymnasium-robotics, in which every joint, motor and contact is D4RL's (D4RL has an
additional marker that touches nothing). gymnasium-robotics' own environment around it differs from D4RL's in what an
agent sees and earns, so this one is D4RL's (tests step both side by side, D4RL's by its own code):

- the observation [60]: positions of the arm [9] and of the things [21], then the goal [30], zero where a thing is free;
  gymnasium-robotics gives positions and velocities [59];
- noise of a tenth of each joint's amplitude on all positions, ten (arm) and two hundred (things) times that of
  gymnasium-robotics;
- the reward: how many things came within 0.3 of their goals for the first time, by the noisy positions;
- the motors: an action is a velocity of up to 2, added to the noisy position that was seen last.
"""

import functools
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np

from genpolicy.config.schema import component, setting
from genpolicy.env.camera import look
from genpolicy.env.task import Task, import_robotics

ARM, FRAME_SKIP = 9, 40
SPEED = 2.0  # of a full action, rad/s and m/s
NOISE = 0.1  # of the amplitudes
AMPLITUDES = np.repeat([0.1, 0.005, 0.0005, 0.005, 0.1, 0.005, 0.1, 0.005], [9, 2, 6, 3, 3, 3, 3, 1])
LOWEST = np.array([-2.9, -1.8, -2.9, -3.1, -2.9, 0.0, -2.9, 0.0, 0.0])
HIGHEST = np.array([2.9, 1.8, 2.9, 0.0, 2.9, 3.8, 2.9, 0.04, 0.04])
# Where each thing's positions stand in qpos, and what they are when it is done.
THINGS = {
    "microwave": ([22], [-0.75]),
    "kettle": ([23, 24, 25, 26, 27, 28, 29], [-0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06]),
    "bottom burner": ([11, 12], [-0.88, -0.01]),
    "top burner": ([15, 16], [-0.92, -0.01]),
    "light switch": ([17, 18], [-0.69, -0.05]),
    "slide cabinet": ([19], [0.37]),
    "hinge cabinet": ([20, 21], [0.0, 1.45]),
}
DONE_WITHIN = 0.3
# fmt: off
START = np.array([
    1.48388023e-01, -1.76848573e00, 1.84390296e00, -2.47685760e00, 2.60252026e-01, 7.12533105e-01, 1.59515394e00,
    4.79267505e-02, 3.71350919e-02, -2.66279850e-04, -5.18043486e-05, 3.12877220e-05, -4.51199853e-05, -3.90842156e-06,
    -4.22629655e-05, 6.28065475e-05, 4.04984708e-05, 4.62730939e-04, -2.26906415e-04, -4.65501369e-04, -6.44129196e-03,
    -1.77048263e-03, 1.08009684e-03, -2.69397440e-01, 3.50383255e-01, 1.61944683e00, 1.00618764e00, 4.06395120e-03,
    -6.62095997e-03, -2.68278933e-04,
])
# fmt: on


@component
class Kitchen(Task):
    """A kitchen task; the score is the share of the four things that were done."""

    data_within_limit: ClassVar[bool] = False
    dear: ClassVar[bool] = True
    defining: ClassVar[tuple[str, ...]] = ("things",)

    things: list[str] = setting(choices=tuple(THINGS), doc="the subtasks that have to be completed")

    @property
    def recorded_in(self) -> str:
        """The arm."""
        return "FrankaKitchen"

    def simulate(self) -> "Franka":
        """The arm in its kitchen."""
        return Franka(self.things)

    def simulate_as_recorded(self) -> "Franka":
        """The same, but that a step's reward is how many things are done in the state before it, as in D4RL's data."""
        return Franka(self.things, counts=True)

    def returns(self, reward: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """The sums; or the largest numbers of things done, where the rewards are these, as in D4RL's data.

        They are where an episode's sum is more than all things give.
        """
        sums = super().returns(reward, ends)
        if len(sums) == 0 or sums.max() <= len(self.things):
            return sums
        return np.maximum.reduceat(self.paid(reward, ends), [0, *(ends[:-1] + 1)]).astype(np.float64)

    def view(self, model: mujoco.MjModel) -> mujoco.MjvCamera:
        """From behind the arm, as gymnasium-robotics has it."""
        return look(model, lookat=(-0.2, 0.5, 2.0), distance=2.2, azimuth=70, elevation=-35)

    def state(self, env: gymnasium.Env) -> dict[str, np.ndarray]:
        """None: what is seen of a state, and what the motors make of it, has noise."""
        return {}


class Franka(gymnasium.Env):
    """The arm: observation [60] (radians, metres), action: nine velocities in [-1, 1]; ends when all things are done.

    Positions have noise; velocities are not seen. counts: whether the reward of a step is how many things are done
    before it, not how many it has completed.
    """

    def __init__(self, things: list[str], counts: bool = False):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (60,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (ARM,), np.float32)
        self.model = compiled()
        self.data = mujoco.MjData(self.model)
        self.dt = FRAME_SKIP * self.model.opt.timestep
        self.things, self._left, self._counts = things, set(things), counts
        self._goal = np.zeros(30)
        for thing in things:
            places, values = THINGS[thing]
            self._goal[places] = values
        self._seen = START

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode at D4RL's start, or where `options` has it: "qpos" [30], "qvel" [29]."""
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        start = {"qpos": START, "qvel": np.zeros(29)} | (options or {})
        self.data.qpos[:], self.data.qvel[:] = start["qpos"], start["qvel"]
        mujoco.mj_forward(self.model, self.data)
        self._left = set(self.things)
        return self._look(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step of 0.08 s."""
        count = sum(map(self._is_done, self.things)) if self._counts else None
        velocity = SPEED * np.clip(action, -1.0, 1.0)
        self.data.ctrl[:] = np.clip(self._seen[:ARM] + velocity * self.dt, LOWEST, HIGHEST)
        mujoco.mj_step(self.model, self.data, nstep=FRAME_SKIP)
        observation = self._look()
        done = {thing for thing in self._left if self._is_done(thing)}
        self._left -= done
        return observation, float(len(done) if count is None else count), not self._left, False, {}

    def _look(self) -> np.ndarray:
        self._seen = self.data.qpos + NOISE * AMPLITUDES * self.np_random.uniform(-1.0, 1.0, 30)
        return np.concatenate([self._seen, self._goal])

    def _is_done(self, thing: str) -> bool:
        places, values = THINGS[thing]
        return bool(np.linalg.norm(self._seen[places] - values) < DONE_WITHIN)


@functools.cache
def compiled() -> mujoco.MjModel:
    """The kitchen's model, shared by all simulators of a process."""
    assets = Path(import_robotics().__file__).parent / "envs" / "assets" / "kitchen_franka"
    return mujoco.MjModel.from_xml_path(str(assets / "kitchen_assets" / "kitchen_env_model.xml"))
