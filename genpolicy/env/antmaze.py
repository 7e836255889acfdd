"""D4RL's AntMaze tasks: an ant walks through a maze to a goal that it is not told.

D4RL's simulator needs mujoco_py; gymnasium-robotics' AntMaze has another ant (gears, frame skip, contacts) and other
rewards. This one is built from gymnasium's ant with what D4RL changed (tests compare the compiled model with that of
D4RL's own file, number by number):

- the ant: a time step of 0.02 s, five of them a step; motors of gear 1 for torques of -30 to 30, which D4RL's
  NormalizedBoxEnv spreads over actions in [-1, 1]; stiffer contacts (solimp .8 .8 .01);
- the maze: blocks of 4 x 4 x 2 where the map has a wall; the ant starts at the origin, in the cell S;
- the observation [29]: the whole of qpos [15], the place in the maze included, and qvel [14];
- an episode starts with the ant at rest, qpos moved by up to 0.1 and qvel by a standard deviation of 0.1;
- the goal: the corner towards the origin of its cell's middle square, moved by U(0, 1) + U(0, 0.5) along each axis, so
  that all goals lie on one side of the cell's middle; not in the observation;
- the reward: 1 within 0.5 of the goal, where the episode ends, else 0. The return is the success of an episode.

In one thing it follows D4RL's v2 for v0 too: the goal is drawn anew for every episode, where v0 draws one when the
simulator is made. The mean over seeds is the same, its spread is smaller.
"""

import functools
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np

from genpolicy.config.schema import component, setting
from genpolicy.env.camera import HEIGHT, WIDTH, Camera, look
from genpolicy.env.task import Task

CELL = 4.0  # metres
WALL_HEIGHT = 2.0
FRAME_SKIP = 5
TORQUE = 30.0
GOAL_RADIUS = 0.5
LONGEST_STEP = 2.0
# Walls #, start S, goal G: D4RL's maps for evaluation, which have one goal each.
MAPS = {
    "umaze": """
        #####
        #S..#
        ###.#
        #G..#
        #####""",
    "medium": """
        ########
        #S.##..#
        #..#...#
        ##...###
        #..#...#
        #.#..#.#
        #...#.G#
        ########""",
    "large": """
        ############
        #S...#.....#
        #.##.#.#.#.#
        #......#...#
        #.####.###.#
        #..#.#.....#
        ##.#.#.#.###
        #..#...#.G.#
        ############""",
}


@component
class AntMaze(Task):
    """An AntMaze task; the score is 100 times the share of episodes that reach the goal."""

    data_within_limit: ClassVar[bool] = False
    defining: ClassVar[tuple[str, ...]] = ("maze",)

    maze: str = setting(choices=tuple(MAPS), doc="which of D4RL's mazes")

    @property
    def recorded_in(self) -> str:
        """The maze, with the sparse reward."""
        return f"AntMaze_{'UMaze' if self.maze == 'umaze' else self.maze.capitalize()}"

    def simulate(self) -> "Ant":
        """The ant in its maze."""
        return Ant(self.maze)

    def camera(self, env: gymnasium.Env) -> Camera:
        """From above the maze, with the goal."""
        ant = env.unwrapped
        return Camera(ant.model, ant.data, self.view(ant.model), marks=[[*ant.goal, 0.5]])

    def view(self, model: mujoco.MjModel) -> mujoco.MjvCamera:
        """From above the maze."""
        walls = np.array(_places(self.maze)["#"])
        low, high = walls.min(0) - CELL / 2, walls.max(0) + CELL / 2
        distance = WALL_HEIGHT + 1.25 * max((high - low) * (HEIGHT / WIDTH, 1.0))  # at MuJoCo's 45 degrees
        return look(model, lookat=(*(low + high) / 2, 0.0), distance=distance, azimuth=90, elevation=-90)

    def states(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        """The observation is the state; but for the goal."""
        return {"qpos": observation[:, :15], "qvel": observation[:, 15:]}

    def state(self, env: gymnasium.Env) -> dict[str, np.ndarray]:
        """The ant's state and its goal."""
        return super().state(env) | {"goal": env.unwrapped.goal.copy()}

    def place(self, env: gymnasium.Env, state: dict[str, np.ndarray]) -> None:
        """Puts the ant into a state; without a recorded "goal" [2], that is drawn."""
        env.reset(options=state)

    def impossible(self, observation: np.ndarray, next_observation: np.ndarray) -> np.ndarray:
        """Steps of more than 2 m in 0.1 s: D4RL's files jump to other places within what they flag as one episode."""
        return np.linalg.norm(next_observation[:, :2] - observation[:, :2], axis=1) > LONGEST_STEP

    def resumed(self, observation: np.ndarray, next_observation: np.ndarray) -> np.ndarray:
        """All but jumps: in D4RL's files the ant walks on, and each step near the goal is terminated."""
        return ~self.impossible(observation, next_observation)


class Ant(gymnasium.Env):
    """The ant: observation qpos [15] and qvel [14] (metres, radians, seconds), action: eight torques in [-1, 1]."""

    def __init__(self, maze: str):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (29,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (8,), np.float32)
        self.model = compiled(maze)
        self.data = mujoco.MjData(self.model)
        self.dt = FRAME_SKIP * self.model.opt.timestep
        self._corner = _places(maze)["G"][0]
        self.goal = self._corner

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode at random, or where `options` has it: "qpos" [15], "qvel" [14], "goal" [2]."""
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        start = {
            "qpos": self.model.qpos0 + self.np_random.uniform(-0.1, 0.1, size=15),
            "qvel": 0.1 * self.np_random.standard_normal(14),
            "goal": self._draw_goal(),
        } | (options or {})
        self.data.qpos[:], self.data.qvel[:] = start["qpos"], start["qvel"]
        self.data.qpos[3:7] /= np.linalg.norm(self.data.qpos[3:7])  # as MuJoCo 2 did by itself
        self.goal = np.asarray(start["goal"], dtype=np.float64)
        mujoco.mj_forward(self.model, self.data)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step of 0.1 s."""
        self.data.ctrl[:] = TORQUE * np.clip(action, -1.0, 1.0)
        mujoco.mj_step(self.model, self.data, nstep=FRAME_SKIP)
        reached = bool(np.linalg.norm(self.data.qpos[:2] - self.goal) <= GOAL_RADIUS)
        return self._observation(), float(reached), reached, False, {}

    def _draw_goal(self) -> np.ndarray:
        moved = self.np_random.uniform(0, CELL / 4, size=2) + self.np_random.uniform(0, CELL / 8, size=2)
        return np.maximum(self._corner + moved, 0.0)

    def _observation(self) -> np.ndarray:
        return np.concatenate([self.data.qpos, self.data.qvel])


@functools.cache
def compiled(maze: str) -> mujoco.MjModel:
    """The model of an ant in a maze, shared by all simulators of a process."""
    assets = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
    spec = mujoco.MjSpec.from_file(str(assets / "ant.xml"))
    spec.option.timestep = 0.02
    for geom in spec.geoms:
        geom.solimp[:3] = 0.8, 0.8, 0.01
    for motor in spec.actuators:
        motor.gear[0], motor.ctrlrange = 1.0, (-TORQUE, TORQUE)
    contact = next(geom for geom in spec.geoms if geom.name == "torso_geom")
    for x, y in _places(maze)["#"]:
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=(x, y, WALL_HEIGHT / 2),
            size=(CELL / 2, CELL / 2, WALL_HEIGHT / 2),
            contype=1,
            conaffinity=1,
            condim=contact.condim,
            margin=contact.margin,
            friction=contact.friction,
            solref=contact.solref,
            solimp=contact.solimp,
        )
    return spec.compile()


def _places(maze: str) -> dict[str, list[tuple[float, float]]]:
    """The x and y of the middle of each cell, by what it holds; the start is the origin, x runs along the rows."""
    rows = MAPS[maze].split()
    cells = {(row, column): rows[row][column] for row in range(len(rows)) for column in range(len(rows[row]))}
    (start,) = (cell for cell, kind in cells.items() if kind == "S")
    found: dict[str, list[tuple[float, float]]] = {}
    for (row, column), kind in cells.items():
        found.setdefault(kind, []).append((CELL * (column - start[1]), CELL * (row - start[0])))
    return found
