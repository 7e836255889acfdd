"""The embedded data set: a waypoint controller in a maze, as D4RL made its maze2d files.

A ball is steered to random goals, one after another, along the shortest path of cells, by a PD controller
whose forces are disturbed by Gaussian noise. The goals are not part of the observation, and the rewards are
those of the task's one fixed goal: most of the data is about something else and must be stitched.

As in D4RL: gains 10 and -1, waypoints blurred by 0.2, a goal counts as reached within 0.1, force noise 0.5
(its `--noisy`), a transition's reward belongs to its observation, no terminals. Different: D4RL's files are
one endless walk whose timeouts mark changes of goal; here each episode lasts as long as the task's own and
starts as they do, so that the returns of the data can be held against a policy's. Goals change within an
episode (`infos/goal`).
"""

import collections
import functools
import os
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import torch

from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.dataset import cached_file
from genpolicy.dataset.hdf5 import FileDataset
from genpolicy.env.maze2d import GOAL_RADIUS, Maze2d, PointMaze
from genpolicy.env.task import Task
from genpolicy.errors import UserError
from genpolicy.system.files import no_link
from genpolicy.system.progress import shown

VERSION = 1  # part of the file's name: to be raised whenever other data would come out
P_GAIN, D_GAIN = 10.0, -1.0
NOISE = 0.5  # standard deviation of the noise on each force, as in D4RL's noisy files
BLUR, GOAL_BLUR = 0.2, 0.1
REACHED = 0.1


@component
class Waypoint(FileDataset):
    """Transitions of genpolicy's own waypoint controller in a maze, made once and kept as an HDF5 file."""

    as_recorded: ClassVar[bool] = True  # by the rule of D4RL's files

    episodes: int = setting(400, ge=1, le=10**6, doc="episodes to make")
    noise: float = setting(
        NOISE, ge=0, le=1e3, doc="standard deviation of the noise on each force, as in D4RL's noisy files"
    )
    seed: int = setting(0, ge=0, le=2**32 - 1, doc="seed of the data, not of the run")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """Only mazes have waypoints."""
        if config.env._target_ != f"{Maze2d.__module__}.{Maze2d.__name__}":
            raise UserError(
                f"dataset=waypoint does not go with env={config.env.name}: it needs a maze2d task; "
                "leave dataset out, or give dataset=hdf5 dataset.path=FILE"
            )

    def made(self, task: Maze2d) -> tuple[int, int]:
        """All as long as the task's; the last step of each, which a time limit cut off, is no transition."""
        return self.episodes, task.max_episode_steps - 1

    def location(self, task: Maze2d) -> Path:
        """The file of these settings, and of the maze and its goal, by which the rewards are."""
        maze = f"{task.name.replace('/', '-')}-{task.simulator}-goal{'-'.join(map(str, task.goal))}"
        settings = f"v{VERSION}-{self.episodes}x{task.max_episode_steps}-noise{self.noise!r}-seed{self.seed}"
        return self.directory / f"genpolicy-waypoint-{maze}-{settings}.hdf5"

    def file(self, task: Task) -> Path:
        """The file of these settings, made first if it does not exist yet."""
        return cached_file(self.location(task), functools.partial(self._make, task))

    def _make(self, task: Task, path: Path) -> None:
        columns = walk(task.simulate(), self.episodes, task.max_episode_steps, self.noise, self.seed)
        part = no_link(path.with_suffix(".part"))
        with h5py.File(part, "w") as file:
            for name, column in columns.items():
                file.create_dataset(name, data=column, compression="gzip")
        os.replace(part, path)


def walk(maze: PointMaze, episodes: int, steps: int, noise: float, seed: int) -> dict[str, np.ndarray]:
    """The columns of D4RL's layout for `episodes` episodes of `steps` steps; `seed` fixes them."""
    rng = np.random.default_rng(seed)
    routes = _routes(maze)
    rows = episodes * steps
    columns = {
        name: np.empty((rows, size), np.float32)
        for name, size in {"observations": 4, "actions": 2, "infos/goal": 2}.items()
    }
    maze.reset(seed=seed)
    with shown(f"making {rows:,} steps of waypoint data", rows) as done:
        for episode in range(episodes):
            observation, _ = maze.reset()
            disturbance = rng.normal(0.0, noise, (steps, 2))
            waypoints = []
            for step in range(steps):
                force = _steer(maze, routes, observation, waypoints, rng) + disturbance[step]
                action = np.clip(force, -1.0, 1.0).astype(np.float32)
                row = episode * steps + step
                columns["observations"][row] = observation
                columns["actions"][row] = action
                columns["infos/goal"][row] = waypoints[-1]
                observation, *_ = maze.step(action)
            done(row + 1)
    at_goal = np.linalg.norm(columns["observations"][:, :2] - maze.goal, axis=1) <= GOAL_RADIUS
    return columns | {
        "rewards": at_goal.astype(np.float32),
        "terminals": np.zeros(rows, dtype=bool),
        "timeouts": np.arange(1, rows + 1) % steps == 0,
        "infos/qpos": columns["observations"][:, :2],
        "infos/qvel": columns["observations"][:, 2:],
    }


class WaypointController:
    """The controller for balls side by side, each on a way of its own from its first call on, for `mode=collect`."""

    def __init__(self, maze: PointMaze, seed: int):
        self._maze, self._routes, self._rng = maze, _routes(maze), np.random.default_rng(seed)
        self._ways = collections.defaultdict(list)

    def __call__(self, observation: torch.Tensor, _: object) -> torch.Tensor:
        """The noisy forces [B,2] at observations [B,4]."""
        forces = [
            _steer(self._maze, self._routes, seen, self._ways[number], self._rng)
            for number, seen in enumerate(observation.double().numpy())
        ]
        return torch.from_numpy(np.array(forces) + self._rng.normal(0.0, NOISE, (len(forces), 2))).float()


def _routes(maze: PointMaze) -> dict:
    """The next cell towards each goal from each cell."""
    return {tuple(goal): shortest_paths(maze.walls, tuple(goal)) for goal in maze.free_cells.tolist()}


def _steer(
    maze: PointMaze, routes: dict, observation: np.ndarray, waypoints: list, rng: np.random.Generator
) -> np.ndarray:
    """The force [2] towards the next of the waypoints; those reached are taken off, and new ones found at the end."""
    position, velocity = observation[:2], observation[2:]
    if waypoints and np.abs(waypoints[0] - position).max() < REACHED:
        waypoints.pop(0)
    if not waypoints:
        waypoints.extend(_plan(maze, routes, position, rng))
    return P_GAIN * (waypoints[0] - position) + D_GAIN * velocity


def shortest_paths(walls: np.ndarray, goal: tuple[int, int]) -> dict[tuple[int, int], tuple[int, int]]:
    """The next cell on a shortest path to `goal`, for each free cell of `walls` [rows, columns]."""
    towards, found = {goal: goal}, collections.deque([goal])
    while found:
        cell = found.popleft()
        for d_row, d_column in ((1, 0), (0, 1), (-1, 0), (0, -1)):
            neighbour = cell[0] + d_row, cell[1] + d_column
            if not walls[neighbour] and neighbour not in towards:
                towards[neighbour] = cell
                found.append(neighbour)
    return towards


def _plan(maze: PointMaze, routes: dict, position: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Waypoints from `position` to a random goal, which is the last of them."""
    goal = tuple(maze.free_cells[rng.integers(len(maze.free_cells))].tolist())
    cell = maze.cell(position)
    waypoints = []
    while cell != goal:
        cell = routes[goal][cell]
        waypoints.append(cell - rng.uniform(0.0, BLUR, size=2))
    return [*waypoints[:-1], goal + rng.uniform(-GOAL_BLUR, GOAL_BLUR, size=2)]
