"""Tables of transitions, each row by itself: obs, action, next_obs, reward, done."""

from pathlib import Path

import numpy as np

from genpolicy.dataset.follow import ended_at_limit, follows, unfinished, without_end
from genpolicy.dataset.transitions import Behaviour
from genpolicy.dataset.user_file import check_finite, check_shape, clip
from genpolicy.env.task import Task
from genpolicy.errors import UserError
from genpolicy.system.console import remark

COLUMNS = ("obs", "action", "next_obs", "reward", "done")
SHORT = 3  # steps: more breaks than episodes of this length would make are not the ends of episodes


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
        check_shape(column.shape, name, shape, path)
        if len(column) != rows:
            raise UserError(f"{path}: {name} has {len(column)} rows but obs has {rows}")
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused below
            columns[name] = column.astype(np.float32).reshape(rows, *shape)
    if rows == 0:
        raise UserError(f"{path}: has 0 rows")
    check_finite(columns, path)
    if not np.isin(columns["done"], (0, 1)).all():
        raise UserError(f"{path}: done must be 0 or 1 everywhere")
    columns["done"] = columns["done"].astype(bool)
    clip(columns["action"], path, task)
    stands = (columns["obs"] == columns["next_obs"]).all()
    if stands and _shuffled(follows(columns["obs"], columns["next_obs"]), columns["done"], task):
        raise UserError(f"{path}: next_obs is the same as obs in every row")
    return columns


def transitions(
    columns: dict[str, np.ndarray], path: Path | str, task: Task, ends: np.ndarray | None = None
) -> tuple[dict[str, np.ndarray], Behaviour]:
    """The rows of checked columns, and the returns of the episodes that terminated or are as long as the task's.

    path: as in `checked`. ends [N]: which rows are the last of their episode, if that is known. Otherwise an episode
    goes on where next_obs is the next row's obs, and no row is done. If that says that rows are in no order, `episode`
    is None, and the returns are not known.
    """
    limit, unknown = task.max_episode_steps, ""
    if ends is None:
        followed = follows(columns["obs"], columns["next_obs"])
        ends = np.append(~followed, True)
        if shuffled := _shuffled(followed, columns["done"], task):
            unknown = shuffled
        elif task.data_within_limit:
            unknown = without_end(ends | columns["done"], task)
    recorded = np.append(ends[:-1], True)
    ends = np.flatnonzero(recorded | columns["done"])
    recorded |= columns["done"] & ~task.resumed(columns["obs"], columns["next_obs"])
    if not unknown and (doubt := ended_at_limit(recorded, columns["done"], task)):
        remark(f"{path}: {doubt} (done)")
    steps = np.diff(ends, prepend=-1)
    begun = np.append(True, recorded[ends[:-1]])  # not in the middle of a recorded episode
    finished = begun & (columns["done"][ends] | (steps >= limit))
    arrays = {
        "observation": columns["obs"],
        "action": columns["action"],
        "reward": columns["reward"],
        "next_observation": columns["next_obs"],
        "terminated": columns["done"],
        "episode": None if unknown else np.cumsum(recorded) - recorded,
    }
    if unknown:
        return arrays, Behaviour(unknown=unknown)
    if few := unfinished(finished, task):
        remark(f"{path}: {few}")
    return arrays, Behaviour.of(task.returns(columns["reward"], ends)[finished])


def _shuffled(followed: np.ndarray, done: np.ndarray, task: Task) -> str:
    """What to say if too many rows are neither followed by the next one [N-1] nor done [N] to be ends of episodes."""
    broken = int((~(followed | done[:-1])).sum())
    if broken <= len(followed) / min(SHORT, task.max_episode_steps):
        return ""
    return f"{broken:,} of {len(done):,} rows are followed by no other of their episode, as if they were shuffled"
