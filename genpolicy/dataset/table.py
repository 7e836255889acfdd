"""Tables of transitions, each row by itself: obs, action, next_obs, reward, done."""

from pathlib import Path

import numpy as np

from genpolicy.dataset.follow import follows
from genpolicy.dataset.own_file import check_finite, clip
from genpolicy.dataset.transitions import Behaviour
from genpolicy.env.task import Task
from genpolicy.errors import UserError

COLUMNS = ("obs", "action", "next_obs", "reward", "done")
MOST = 0.5  # of the rows


def checked(columns: dict[str, np.ndarray], path: Path | str, task: Task) -> dict[str, np.ndarray]:
    """The columns of a file, or of what else `path` names: `done` as bool and the others in float32.

    Actions are clipped to the task's bounds where they overshoot by no more than `ACTION_TOLERANCE`.
    Raises `UserError` if they are not about this task, or have values no simulator gives.
    """
    shapes = {"obs": (task.observation_size,), "action": (task.action_size,), "reward": (), "done": ()}
    shapes["next_obs"] = shapes["obs"]
    rows = len(columns["obs"]) if columns["obs"].ndim else 0
    columns = dict(columns)
    for name, shape in shapes.items():
        column = columns[name]
        if column.dtype.kind not in "bfiu":
            raise UserError(f"{path}: {name} holds values of type {column.dtype}, not numbers")
        if rows == 0 or column.shape not in ((rows, *shape), (rows, *(shape or (1,)))):
            wanted = "[N]" if shape == () else f"[N,{shape[0]}]"
            raise UserError(f"{path}: {name} has shape {list(column.shape)}, but must have {wanted} with N={rows} here")
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused below
            columns[name] = column.astype(np.float32).reshape(rows, *shape)
    check_finite(columns, path)
    if not np.isin(columns["done"], (0, 1)).all():
        raise UserError(f"{path}: done must be 0 or 1 everywhere")
    columns["done"] = columns["done"].astype(bool)
    clip(columns["action"], path, task)
    return columns


def transitions(
    columns: dict[str, np.ndarray], task: Task, ends: np.ndarray | None = None
) -> tuple[dict[str, np.ndarray], Behaviour]:
    """The rows of checked columns, and the returns of the episodes that terminated or are as long as the task's.

    ends [N]: which rows are the last of their episode, if that is known. Otherwise an episode goes on where next_obs is
    the next row's obs, and no row is done. If that says that rows are in no order, `episode` is None, and the returns
    are not known.
    """
    limit, unknown = task.max_episode_steps, ""
    if ends is None:
        ends = np.append(~follows(columns["obs"], columns["next_obs"]), True)
        if limit > 1 and (ends & ~columns["done"])[:-1].sum() > MOST * (len(ends) - 1):
            unknown = "most rows are followed by no other of their episode, as if they were shuffled"
    ends = np.flatnonzero(np.append(ends[:-1], True) | columns["done"])
    total, steps = np.cumsum(columns["reward"], dtype=np.float64)[ends], np.diff(ends, prepend=-1)
    finished = columns["done"][ends] | (steps >= limit)
    arrays = {
        "observation": columns["obs"],
        "action": columns["action"],
        "reward": columns["reward"],
        "next_observation": columns["next_obs"],
        "terminated": columns["done"],
        "episode": None if unknown else np.repeat(np.arange(len(ends)), steps),
    }
    return arrays, Behaviour(unknown=unknown) if unknown else Behaviour.of(np.diff(total, prepend=0.0)[finished])
