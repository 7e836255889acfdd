"""D4RL's maze2d tasks in the physics of gymnasium-robotics' PointMaze.

A ball is pushed through a maze by a force; it must get to a fixed goal and stay there. The ball, its motors,
the time step and the walls of PointMaze are those of D4RL's `MazeEnv`; two things differ and are undone here,
so that observations, actions and scores mean what they mean in D4RL's files (tests compare both simulators
step by step):

- the axes: D4RL's x runs down the rows of the map and its y along the columns; PointMaze is turned by a
  quarter;
- the origin: D4RL counts position in cells, but its ball starts 1.2 from the origin while walls are 1.0 from
  it, so
  the middle of cell (row, column) lies at (row - 0.2, column - 0.2). PointMaze puts the origin in the maze's
  middle.
"""

import functools
import os
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np

from genpolicy.config.schema import component, setting
from genpolicy.env.camera import Camera, look
from genpolicy.env.task import Task, make_robotics
from genpolicy.errors import UserError

SIMULATORS = ("PointMaze_UMaze-v3", "PointMaze_Medium-v3", "PointMaze_Large-v3")
GOAL_RADIUS = 0.5
MAX_SPEED = 5.0
_MIDDLE = -0.2  # of a cell, relative to its (row, column), in D4RL's coordinates


@component
class Maze2d(Task):
    """A maze2d task: reward 1 within 0.5 of the goal, else 0; never terminated, the goal reached or not."""

    data_within_limit: ClassVar[bool] = False
    defining: ClassVar[tuple[str, ...]] = ("simulator", "goal")

    simulator: str = setting(choices=SIMULATORS, doc="what stands in for D4RL's simulator: its gymnasium id")
    goal: list[int] = setting(ge=0, le=10**3, doc="row and column of the goal in the map")

    @property
    def recorded_in(self) -> str:
        """The maze, with the sparse reward."""
        return self.simulator.rpartition("-")[0]

    def simulate(self) -> "PointMaze":
        """The maze with D4RL's observations, reward and start states."""
        return PointMaze(self.simulator, self.goal)

    def simulate_as_recorded(self) -> "PointMaze":
        """The same, but that a step's reward is that of the state before it, as D4RL has labelled its data."""
        return PointMaze(self.simulator, self.goal, reward_before=True)

    def camera(self, env: gymnasium.Env) -> Camera:
        """From above the maze, with the goal."""
        ball = env.unwrapped
        ball.model.site("target").pos[:2] = _turn(ball.goal - ball.corner)  # seen, and nothing else
        return super().camera(env)

    def view(self, model: mujoco.MjModel) -> mujoco.MjvCamera:
        """From above the maze, the first row at the top."""
        return look(model, lookat=(0.0, 0.0, 0.0), distance=1.2 * model.stat.extent, azimuth=90, elevation=-90)

    def states(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        """The observation is the state."""
        return {"qpos": observation[:, :2], "qvel": observation[:, 2:]}

    def state(self, env: gymnasium.Env) -> dict[str, np.ndarray]:
        """The ball's place and velocity, in D4RL's coordinates."""
        position, velocity = np.split(env.unwrapped.observe(), 2)
        return {"qpos": position, "qvel": velocity}

    def place(self, env: gymnasium.Env, state: dict[str, np.ndarray]) -> None:
        """Puts the ball into a state in D4RL's coordinates."""
        env.reset(options={"state": np.concatenate([state["qpos"], state["qvel"]])})


class PointMaze(gymnasium.Env):
    """The ball in its maze: observation [x, y, v_x, v_y] (cells, cells/s), action: two forces in [-1, 1].

    An episode starts in a random free cell, moved by up to 0.1, with velocities of standard deviation 0.1.
    reward_before: whether the reward is that of the state before a step, not after it.
    """

    def __init__(self, simulator: str, goal: Sequence[int], reward_before: bool = False):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.model, self.walls = _load(simulator)
        self.data = mujoco.MjData(self.model)
        self.goal, self._reward_before = np.asarray(goal, dtype=np.float64), reward_before
        self.free_cells = np.argwhere(~self.walls)
        if list(goal) not in self.free_cells.tolist():
            raise UserError(f"env.goal: {list(goal)} is no free cell [row, column] of {simulator}, such as [1, 1]")
        rows, columns = self.walls.shape
        self.dt = self.model.opt.timestep
        self.corner = np.array([rows - 1, columns - 1]) / 2 + _MIDDLE

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode at random, or at `options={"state": [x, y, v_x, v_y]}`."""
        super().reset(seed=seed)
        state = (options or {}).get("state")
        if state is None:
            cell = self.free_cells[self.np_random.integers(len(self.free_cells))]
            position = cell + self.np_random.uniform(-0.1, 0.1, size=2)
            state = np.concatenate([position, 0.1 * self.np_random.standard_normal(2)])
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = _turn(np.asarray(state[:2]) - self.corner)
        self.data.qvel[:] = _turn(np.asarray(state[2:]))
        return self.observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step of 0.01 s. The speed is limited to 5 cells/s before it, as in D4RL."""
        before = self.observe() if self._reward_before else None
        np.clip(self.data.qvel, -MAX_SPEED, MAX_SPEED, out=self.data.qvel)
        self.data.ctrl[:] = _turn(np.clip(action, -1.0, 1.0))
        mujoco.mj_step(self.model, self.data)
        observation = self.observe()
        return observation, self.reward(observation if before is None else before), False, False, {}

    def reward(self, observation: np.ndarray) -> float:
        """1 within 0.5 cells of the goal, else 0."""
        return float(np.linalg.norm(observation[:2] - self.goal) <= GOAL_RADIUS)

    def cell(self, position: np.ndarray) -> tuple[int, int]:
        """The row and column of the cell that `position` [2] lies in."""
        row, column = np.rint(position - _MIDDLE).astype(int).tolist()
        return row, column

    def observe(self) -> np.ndarray:
        """What is seen now [4]."""
        return np.concatenate([_turn_back(self.data.qpos) + self.corner, _turn_back(self.data.qvel)])


def _turn(vector: np.ndarray) -> np.ndarray:
    """From D4RL's axes to PointMaze's: D4RL's first axis points down the map, PointMaze's second one up."""
    return np.array([vector[1], -vector[0]])


def _turn_back(vector: np.ndarray) -> np.ndarray:
    return np.array([-vector[1], vector[0]])


@functools.cache
def _load(simulator: str) -> tuple[mujoco.MjModel, np.ndarray]:
    """PointMaze's compiled model and its map [rows, columns] (true: wall), shared by all simulators of a
    process.

    Compiling takes 0.1 s, most of it for textures, which a hundred simulators need not repeat.
    """
    env = make_robotics(simulator).unwrapped
    os.unlink(env.tmp_xml_file_path)  # which gymnasium-robotics leaves behind
    walls = np.array([[cell == 1 for cell in row] for row in env.maze.maze_map])
    return env.model, walls
