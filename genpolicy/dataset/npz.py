"""Data sets in the NumPy files of GenerativeRL's customised data: obs, action, next_obs, reward, done."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genpolicy.dataset.own_file import LARGEST_FILE, OwnFile, check_finite, clip, existing
from genpolicy.dataset.transitions import Behaviour
from genpolicy.env.task import Task
from genpolicy.errors import UserError

COLUMNS = ("obs", "action", "next_obs", "reward", "done")


@dataclass(kw_only=True, eq=False)
class NPZ(OwnFile):
    """A file of transitions, `numpy.savez(path, obs=, action=, next_obs=, reward=, done=)`.

    obs and next_obs [N,O], action [N,A], reward and done [N] or [N,1]. `done` is a termination: a row at which
    only a time limit ended the episode has done = 0. Where next_obs is not the next row's obs, an episode ended, too.
    """

    def arrays(self, task: Task) -> tuple[dict[str, np.ndarray], Behaviour]:
        """The rows, as they are, and the returns of the episodes that terminated or are as long as the task's."""
        path = existing(self.path)
        columns = read(path, task)
        joined = (columns["obs"][1:] == columns["next_obs"][:-1]).all(axis=1)
        ends = np.flatnonzero(np.append(~joined, True) | columns["done"])
        total, steps = np.cumsum(columns["reward"], dtype=np.float64)[ends], np.diff(ends, prepend=-1)
        finished = columns["done"][ends] | (steps >= task.max_episode_steps)
        arrays = {
            "observation": columns["obs"],
            "action": columns["action"],
            "reward": columns["reward"],
            "next_observation": columns["next_obs"],
            "terminated": columns["done"],
            "episode": np.repeat(np.arange(len(ends)), steps),
        }
        return arrays, Behaviour.of(np.diff(total, prepend=0.0)[finished])


def read(path: Path, task: Task) -> dict[str, np.ndarray]:
    """The checked columns, `done` as bool and the others in float32; actions clipped as in D4RL's layout.

    Raises `UserError` if the file cannot be read, is not about this task, or has values no simulator gives.
    """
    shapes = {"obs": (task.observation_size,), "action": (task.action_size,), "reward": (), "done": ()}
    shapes["next_obs"] = shapes["obs"]
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(part.file_size for part in archive.infolist())
        if claimed > LARGEST_FILE:
            raise UserError(f"{path}: claims {claimed / 2**30:.0f} GiB, more than can be loaded")
        with np.load(path, allow_pickle=False) as file:
            if missing := [name for name in COLUMNS if name not in file]:
                raise UserError(f"{path}: has no {missing[0]}, only: {', '.join(file) or 'nothing'}; see dataset=npz")
            columns = {name: file[name] for name in COLUMNS}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a readable NPZ file ({' '.join(str(error).split())[:200]})") from error
    rows = len(columns["obs"]) if columns["obs"].ndim else 0
    for name, shape in shapes.items():
        column = columns[name]
        if column.dtype.kind not in "bfiu":
            raise UserError(f"{path}: {name} holds values of type {column.dtype}, not numbers")
        if rows == 0 or column.shape not in ((rows, *shape), (rows, *(shape or (1,)))):
            wanted = "[N]" if shape == () else f"[N,{shape[0]}]"
            raise UserError(f"{path}: {name} has shape {list(column.shape)}, but must have {wanted} with N={rows} here")
        columns[name] = column.astype(np.float32).reshape(rows, *shape)
    check_finite(columns, path)
    if not np.isin(columns["done"], (0, 1)).all():
        raise UserError(f"{path}: done must be 0 or 1 everywhere")
    columns["done"] = columns["done"].astype(bool)
    clip(columns["action"], path, task)
    return columns
