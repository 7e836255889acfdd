"""What data in OGBench's layout tell of themselves: which data set they are of, and what is done in them."""

import gymnasium
import numpy as np

from genpolicy.dataset.ogbench_oracle import WALKS, published_size
from genpolicy.env.ogbench import BUTTONS, OGBench

IN_WALLS = 0.01  # share of positions in walls above which data are of another maze
# Share of actions that open or close the gripper with all force: about .45 of those of noisy data, none of play.
FULL_GRIPS = 0.1


def another_data_set(columns: dict[str, np.ndarray], task: OGBench) -> str:
    """Why columns [N,...] of the right sizes are clearly not of the task's data set; empty if they may be."""
    data, _, kind = task.data.removesuffix("-v0").rpartition("-")
    if kind not in WALKS:
        full = (np.abs(columns["actions"][:, -1]) == 1).mean()
        if (full > FULL_GRIPS) == (kind == "noisy"):
            return ""
        other = {"play": "noisy", "noisy": "play"}[kind]
        return f"{full:.0%} of its actions move the gripper with all force, as in {data}-{other}"
    env = task.simulate()
    raw, walls = env.unwrapped, env.unwrapped.maze_map
    row, column = (np.rint((columns["qpos"][:, axis] + 4) / raw._maze_unit).astype(int) for axis in (1, 0))
    free = (row >= 0) & (column >= 0) & (row < walls.shape[0]) & (column < walls.shape[1])
    free[free] = walls[row[free], column[free]] == 0
    env.close()
    if (share := 1 - free.mean()) > IN_WALLS:
        return f"{share:.0%} of its positions are in walls of {data}"
    found = int(np.median(np.diff(np.flatnonzero(columns["terminals"]), prepend=-1))) - 1
    others = {published_size(f"{data}-{other}")[1]: other for other in WALKS}
    if found == published_size(f"{data}-{kind}")[1] or found not in others:
        return ""
    return f"its trajectories have {found:,} transitions, as in {data}-{others[found]}"


def parts_done(raw: gymnasium.Env, states: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Whether each part of the task of the package's environment is done in states [N,...], by the part's name, [N].

    The package counts the same parts and does not tell them apart.
    """
    qpos = states["qpos"]
    if hasattr(raw, "cur_goal_xy"):
        start = 15 if "ball_init_xy" in raw.task_infos[0] else 0
        return {"goal": np.linalg.norm(qpos[:, start : start + 2] - raw.cur_goal_xy, axis=1) <= raw._goal_tol}
    cubes, buttons, done = getattr(raw, "_num_cubes", 0), getattr(raw, "_num_buttons", 0), {}
    for i in range(cubes):
        target = raw._data.mocap_pos[raw._cube_target_mocap_ids[i]]
        done[f"cube {i}"] = np.linalg.norm(qpos[:, 14 + 7 * i : 17 + 7 * i] - target, axis=1) <= 0.04
    for i in range(buttons):
        done[f"button {i}"] = states[BUTTONS][:, i] == raw._target_button_states[i]
    if hasattr(raw, "_target_drawer_pos"):
        place = 14 + 7 * cubes + buttons
        for i, name in enumerate(("drawer", "window")):
            done[name] = np.abs(qpos[:, place + i] - getattr(raw, f"_target_{name}_pos")) <= 0.04
    return done
