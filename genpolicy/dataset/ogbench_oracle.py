"""Episodes played by OGBench's own oracles, as the scripts of its authors record its data sets.

Follows seohongpark/ogbench at 1d41409 (MIT), data_gen_scripts/generate_manipspace.py, generate_locomaze.py and
commands.sh, with their parameters. Different: each episode has a seed of its own, so that it
is the same whatever was played before it, and in whichever process.
"""

import copy
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from genpolicy.env.ogbench import BUTTONS, Repeatable, quietly

# Of arms: noise of play and noisy, its smoothing, the Markov oracles' norm.
NOISE, SMOOTHING, LEAST_NORM = 0.1, 0.5, 0.4
POINT_NOISE = 0.5
XI = np.array([1, 1, 1, 3, 10])  # noise of an action's parts, in that of the episode
STACKING = {"single": (0, 0), "double": (0, 0.25), "triple": (0.05, 0.35), "quadruple": (0.1, 0.5)}
NEIGHBOURS = ((-1, 0), (0, -1), (0, 1), (1, 0))
STITCH_CELLS = 4  # between start and goal of a walk to be stitched
# Episodes and transitions of each, of the authors' data sets.
WALKS = {"navigate": (1000, 1000), "stitch": (5000, 200), "explore": (10_000, 500)}
LARGE = {"triple": 3000, "quadruple": 5000, "4x5": 3000, "4x6": 5000}
SIZES = {
    "pointmaze-giant-navigate": (500, 2000),
    "antmaze-giant-navigate": (500, 2000),
    "humanoidmaze-giant-navigate": (1000, 4000),
    "humanoidmaze-giant-stitch": (10_000, 400),
    "antsoccer-medium-navigate": (4000, 1000),
    "antsoccer-medium-stitch": (8000, 500),
}

TARGETS = [f"_target_{what}" for what in ("block", "button", "button_states", "drawer_pos", "window_pos")]

Action = Callable[[np.ndarray, dict], np.ndarray]


def published_size(data: str) -> tuple[int, int]:
    """Episodes of OGBench's data set, such as cube-single-play, and transitions of each."""
    if data in SIZES:
        return SIZES[data]
    who, how = data.partition("-")[0], data.rpartition("-")[2]
    if how in WALKS:
        episodes, steps = WALKS[how]
        return episodes, 2 * steps if who == "humanoidmaze" else steps
    return next((count for part, count in LARGE.items() if part in data), 1000), 1000


class Recorder:
    """Plays and records episodes of so many transitions as those of a data set, such as cube-single-play."""

    def __init__(self, data: str, steps: int):
        simulator, _, self._kind = data.rpartition("-")
        self._maze, self._steps, self._name = "maze" in simulator, steps, simulator
        more = {} if self._maze else {"mode": "data_collection"}
        self._env = Repeatable(f"{simulator}-v0", terminate_at_goal=False, **more)
        raw = self._env.unwrapped
        # Targets outlive an episode, and an oracle's first action in a task is made of the target before.
        self._targets = copy.deepcopy({name: value for name, value in vars(raw).items() if name in TARGETS})
        self._sites = raw.model.site_pos.copy()
        if not self._maze:
            self._oracles = _oracles(self._env, simulator, self._kind)
            self._stacking = STACKING.get(simulator.removeprefix("cube-"), (0.5, 0.5))
            self._random = 0.0 if self._kind == "play" else 0.2 if "puzzle" in simulator else 0.1

    def episode(self, seed: int) -> dict[str, np.ndarray]:
        """The rows [steps + 1, ...] of one episode in OGBench's layout; `seed` fixes them."""
        raw, self._rng = self._env.unwrapped, np.random.default_rng(seed)
        with self._env.repeatable(seed), quietly():
            vars(raw).update(copy.deepcopy(self._targets))
            raw.model.site_pos[:] = self._sites
            raw.reset(seed=seed)
            while True:
                columns = self._walk() if self._maze else self._play()
                if "scene" not in self._name or _in_sight(columns["qpos"]):
                    return columns

    @property
    def row_bytes(self) -> int:
        """What a row takes in a file that is not compressed."""
        raw = self._env.unwrapped
        numbers = self._env.observation_space.shape[0] + self._env.action_space.shape[0] + raw.model.nq + raw.model.nv
        return 4 * numbers + 8 * getattr(raw, "_num_buttons", 0) + 1

    def _play(self) -> dict[str, np.ndarray]:
        """An arm that goes from one random task to the next."""
        raw = self._env.unwrapped
        observation, info = raw.reset()
        stacking = self._rng.uniform(*self._stacking)
        scale = self._rng.uniform(0, NOISE) * XI if self._kind == "noisy" else None
        oracle = self._begun(observation, info)

        def act(observation: np.ndarray, info: dict) -> np.ndarray:
            if self._rng.random() < self._random:
                return self._env.unwrapped.action_space.sample()
            action = np.array(oracle.select_action(observation, info))
            return action if scale is None else action + self._rng.normal(0, scale, action.shape)

        def after(info: dict) -> None:
            nonlocal oracle
            if oracle.done:
                oracle = self._begun(*raw.set_new_target(p_stack=stacking))

        return self._recorded(observation, info, act, after)

    def _begun(self, observation: np.ndarray, info: dict) -> Any:
        oracle = self._oracles[info["privileged/target_task"]]
        oracle.reset(observation, info)
        return oracle

    def _walk(self) -> dict[str, np.ndarray]:
        """A point that goes from one random cell of the maze to the next, or to one that is near."""
        raw = self._env.unwrapped
        walls = raw.maze_map
        free = [tuple(map(int, cell)) for cell in np.argwhere(walls == 0)]
        ends = [cell for cell in free if not _in_corridor(walls, cell)]
        start = free[self._rng.integers(len(free))]
        if self._kind == "stitch":
            near = cells_at_distance(walls, start, STITCH_CELLS)
            goal = near[self._rng.integers(len(near))] if near else start
        else:
            goal = ends[self._rng.integers(len(ends))]
        observation, info = raw.reset(options={"task_info": {"init_ij": start, "goal_ij": goal}})

        def act(observation: np.ndarray, info: dict) -> np.ndarray:
            subgoal, _ = raw.get_oracle_subgoal(raw.get_xy(), raw.cur_goal_xy)
            way = subgoal - raw.get_xy()
            way = way / (np.linalg.norm(way) + 1e-6)
            return way + self._rng.normal(0, POINT_NOISE, way.shape)

        def after(info: dict) -> None:
            if info["success"] and self._kind == "navigate":
                raw.set_goal(ends[self._rng.integers(len(ends))])

        return self._recorded(observation, info, act, after)

    def _recorded(
        self, observation: np.ndarray, info: dict, act: Action, after: Callable[[dict], None]
    ) -> dict[str, np.ndarray]:
        columns, raw = defaultdict(list), self._env.unwrapped
        for step in range(self._steps + 1):
            action = np.clip(act(observation, info), -1, 1)
            following, _, _, _, info = raw.step(action)
            after(info)
            columns["observations"].append(observation)
            columns["actions"].append(action)
            columns["terminals"].append(step == self._steps)
            columns["qpos"].append(info["prev_qpos"])
            columns["qvel"].append(info["prev_qvel"])
            if f"prev_{BUTTONS}" in info:
                columns[BUTTONS].append(info[f"prev_{BUTTONS}"])
            observation = following
        types = {"terminals": bool, BUTTONS: np.int64}
        return {name: np.array(column, dtype=types.get(name, np.float32)) for name, column in columns.items()}


def _oracles(env: Repeatable, simulator: str, kind: str) -> dict[str, Any]:
    """The package's oracle of each task that the simulator sets."""
    from ogbench.manipspace.oracles.markov.button_markov import ButtonMarkovOracle
    from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle
    from ogbench.manipspace.oracles.markov.drawer_markov import DrawerMarkovOracle
    from ogbench.manipspace.oracles.markov.window_markov import WindowMarkovOracle
    from ogbench.manipspace.oracles.plan.button_plan import ButtonPlanOracle
    from ogbench.manipspace.oracles.plan.cube_plan import CubePlanOracle
    from ogbench.manipspace.oracles.plan.drawer_plan import DrawerPlanOracle
    from ogbench.manipspace.oracles.plan.window_plan import WindowPlanOracle

    markov = {
        "cube": CubeMarkovOracle,
        "button": ButtonMarkovOracle,
        "drawer": DrawerMarkovOracle,
        "window": WindowMarkovOracle,
    }
    plan = {"cube": CubePlanOracle, "button": ButtonPlanOracle, "drawer": DrawerPlanOracle, "window": WindowPlanOracle}
    how = {"noise": NOISE, "noise_smoothing": SMOOTHING} if kind == "play" else {"min_norm": LEAST_NORM}
    made, who = plan if kind == "play" else markov, simulator.partition("-")[0]
    tasks = {"cube": ["cube"], "scene": list(made), "puzzle": ["button"]}[who]
    special = {
        ("scene", "cube"): {"max_step": 100} if kind == "noisy" else {},
        ("puzzle", "button"): {"gripper_always_closed": True},
    }
    return {task: made[task](env=env, **how, **special.get((who, task), {})) for task in tasks}


def _in_sight(positions: np.ndarray) -> bool:
    """Whether the cube of a scene stays on the table or in the drawer, by the authors' rule; positions [rows, nq]."""
    y, z = positions[:, 15], positions[:, 16]
    return not ((y >= 0.29) | ((y <= -0.3) & ((z < 0.06) | (z > 0.08)))).any()


def _in_corridor(walls: np.ndarray, cell: tuple[int, int]) -> bool:
    """Whether a free cell has walls on two opposite sides and none on the others."""
    up, left, right, down = (walls[cell[0] + i, cell[1] + j] for i, j in NEIGHBOURS)
    return (up == down == 0 and left == right == 1) or (left == right == 0 and up == down == 1)


def cells_at_distance(walls: np.ndarray, start: tuple[int, int], distance: int) -> list[tuple[int, int]]:
    """The free cells whose shortest path from `start` has so many steps."""
    found, cells = {start}, [start]
    for _ in range(distance):
        beside = ((i + di, j + dj) for i, j in cells for di, dj in NEIGHBOURS)
        cells = [cell for cell in dict.fromkeys(beside) if walls[cell] == 0 and cell not in found]
        found.update(cells)
    return cells
