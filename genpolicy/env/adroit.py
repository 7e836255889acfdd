"""D4RL's Adroit tasks: a hand of 24 joints turns a pen, opens a door, hammers a nail, moves a ball.

The hand is gymnasium-robotics', whose compiled models equal D4RL's own number by number, as do observations, actions
and starts (tests step both side by side, D4RL's by its own code). The rules are D4RL's, computed here, because those
of gymnasium-robotics' v1 differ silently:

- door, hammer and relocate pay the distance from the palm to the handle, hammer or ball, which D4RL charges;
- pen goes on when the pen has fallen, where D4RL ends the episode.
"""

from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np

from genpolicy.config.schema import component, setting
from genpolicy.env.camera import look
from genpolicy.env.task import Task, make_robotics

FALLEN = 0.075  # height of a pen that the hand has dropped, metres


def pen(data: mujoco.MjData) -> tuple[float, bool]:
    """Close to the goal's place and direction; over when the pen falls."""
    place = data.body("Object").xpos
    distance = _distance(place, data.site("eps_ball").xpos)
    likeness = _direction(data, "object") @ _direction(data, "target")
    reward = likeness - distance
    if distance < 0.075:
        reward += 10 * (likeness > 0.9) + 50 * (likeness > 0.95)
    fallen = bool(place[2] < FALLEN)
    return reward - 5 * fallen, fallen


def door(data: mujoco.MjData) -> tuple[float, bool]:
    """The palm at the handle, the hinge at 90 degrees, slowly."""
    (angle,) = data.joint("door_hinge").qpos
    reward = -0.1 * _distance(data.site("S_grasp").xpos, data.site("S_handle").xpos)
    reward -= 0.1 * (angle - 1.57) ** 2 + 1e-5 * np.square(data.qvel).sum()
    return reward + 2 * (angle > 0.2) + 8 * (angle > 1.0) + 10 * (angle > 1.35), False


def hammer(data: mujoco.MjData) -> tuple[float, bool]:
    """The palm at the hammer, its head at the nail, the nail in the board."""
    handle, head, nail = data.body("Object").xpos, data.site("tool").xpos, data.site("S_target").xpos
    left = _distance(nail, data.site("nail_goal").xpos)
    reward = -0.1 * _distance(data.site("S_grasp").xpos, handle) - _distance(head, nail) - 10 * left
    reward -= 1e-2 * np.linalg.norm(data.qvel)
    lifted = handle[2] > 0.04 and head[2] > 0.04
    return reward + 2 * lifted + 25 * (left < 0.02) + 75 * (left < 0.01), False


def relocate(data: mujoco.MjData) -> tuple[float, bool]:
    """The palm at the ball; once it is lifted, both at the goal."""
    palm, ball, goal = data.site("S_grasp").xpos, data.body("Object").xpos, data.site("target").xpos
    left = _distance(ball, goal)
    reward = -0.1 * _distance(palm, ball)
    if ball[2] > 0.04:
        reward += 1.0 - 0.5 * _distance(palm, goal) - 0.5 * left
    return reward + 10 * (left < 0.1) + 20 * (left < 0.05), False


RULES = {f"AdroitHand{rule.__name__.capitalize()}-v1": rule for rule in (pen, door, hammer, relocate)}


@component
class Adroit(Task):
    """An Adroit task: dense rewards, no end but the limit (and pen's fall)."""

    data_within_limit: ClassVar[bool] = False
    defining: ClassVar[tuple[str, ...]] = ("simulator",)

    simulator: str = setting(choices=tuple(RULES), doc="the hand's gymnasium id; the rules are D4RL's")

    @property
    def recorded_in(self) -> str:
        """The hand."""
        return self.simulator.rpartition("-")[0]

    def simulate(self) -> "Hand":
        """The hand under D4RL's rules."""
        return Hand(self.simulator)

    def view(self, model: mujoco.MjModel) -> mujoco.MjvCamera:
        """From above the table."""
        return look(model, "fixed")

    def state(self, env: gymnasium.Env) -> dict[str, np.ndarray]:
        """The hand's state, and where objects and goals are, by D4RL's names."""
        state = env.unwrapped.get_env_state()
        if "obj_pos" in state:  # which lags behind qpos by a fifth of a step
            state["obj_pos"] = env.unwrapped.model.body("Object").pos + state["qpos"][-6:-3]
        return state

    def place(self, env: gymnasium.Env, state: dict[str, np.ndarray]) -> None:
        """Puts the hand into a state, and what an episode places at random where the file says that it was."""
        model = env.unwrapped.model
        if "desired_orien" in state:
            model.body("target").quat[:] = state["desired_orien"]
        if "door_body_pos" in state:
            model.body("frame").pos[:] = state["door_body_pos"]
        if "board_pos" in state:
            model.body("nail_board").pos[:] = state["board_pos"]
        if "obj_pos" in state:  # where the ball is, not where it began
            model.body("Object").pos[:] = state["obj_pos"] - state["qpos"][-6:-3]
            model.site("target").pos[:] = state["target_pos"]
        super().place(env, state)


class Hand(gymnasium.Wrapper):
    """gymnasium-robotics' hand with D4RL's rewards and ends; actions in [-1, 1] are spread over the motors' range."""

    def __init__(self, simulator: str):
        super().__init__(make_robotics(simulator).unwrapped)
        self._rule = RULES[simulator]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step of 0.01 s."""
        observation, *_ = self.env.step(action)
        reward, terminated = self._rule(self.env.data)
        return observation, float(reward), terminated, False, {}


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    return np.linalg.norm(one - other)


def _direction(data: mujoco.MjData, name: str) -> np.ndarray:
    """The unit vector [3] from a pen's bottom to its top."""
    along = data.site(f"{name}_top").xpos - data.site(f"{name}_bottom").xpos
    return along / np.linalg.norm(along)
