"""OGBench's own files, in the cache that the package keeps, with the rewards of one of their five tasks.

A file has the rows of trajectories one after the other: observations [N,O], actions [N,A], terminals [N], qpos, qvel
and, for scenes and puzzles, button_states; no rewards. The last row of a trajectory has no next one: its action means
nothing, and it is no transition. Rewards are the package's own relabelling: the number of parts of the task that are
done in the state before the step, less the number of all. A transition is terminated if all are done, and only then;
trajectories go on after that, and their ends are no termination.
"""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from genpolicy.config.schema import component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.download import Downloaded
from genpolicy.dataset.transitions import Behaviour
from genpolicy.dataset.user_file import check_finite, check_shape, check_size, clip, limited_memory, reason
from genpolicy.env.ogbench import OGBench
from genpolicy.env.task import Task
from genpolicy.errors import UserError

COLUMNS = ("observations", "actions", "terminals", "qpos")
BUTTONS = "button_states"


@component
class OGBenchData(Downloaded):
    """The data set that OGBench publishes for the task; the data's episodes have no return: they are of no one task."""

    sparse: bool = setting(
        False, doc="rewards of -1 until the whole task is done, as later papers have them; false: by part, as published"
    )

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """Only OGBench's tasks have a file of OGBench's."""
        if locate(config.env._target_) is not OGBench:
            raise UserError(f"dataset=ogbench does not go with env={config.env.name}: it goes with env=ogbench-...")

    def arrays(self, task: Task) -> tuple[dict[str, np.ndarray], Behaviour]:
        """The file's rows as transitions, with the rewards of the task."""
        path = self.fetched(task, check, "NPZ")
        try:
            return transitions(read(path, task), task, path, self.sparse), Behaviour()
        except UserError as error:
            raise UserError(f"{error}; delete it and get it again") from error


def check(path: Path) -> None:
    """Raises `OSError` for what is no zip archive, or a damaged one."""
    try:
        with zipfile.ZipFile(path) as file:
            if damaged := file.testzip():
                raise OSError(f"{damaged} is damaged")
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, zlib.error) as error:
        raise OSError(str(error)) from error


def read(path: Path, task: OGBench) -> dict[str, np.ndarray]:
    """The checked columns of a file: observations, actions in float32, terminals as bool, and the states as they are.

    Raises `UserError` if it cannot be read, lacks a column, or is of a simulator of other sizes.
    """
    try:
        with limited_memory(), np.load(path, allow_pickle=False) as file:
            if missing := [name for name in COLUMNS if name not in file]:
                raise UserError(f"{path}: has no {missing[0]}, only: {', '.join(file) or 'nothing'}")
            names = [*COLUMNS, *(name for name in (BUTTONS,) if name in file)]
            check_size(sum(file.zip.getinfo(f"{name}.npy").file_size for name in names), path)
            columns = {name: file[name] for name in names}
    except UserError:
        raise
    except Exception as error:  # of zipfile, zlib, NumPy and their parsers, whatever a mutilated file makes them raise
        raise UserError(f"{path}: not a readable NPZ file ({reason(error)})") from error
    shapes = {"observations": (task.observation_size,), "actions": (task.action_size,), "terminals": ()}
    rows = len(columns["observations"]) if columns["observations"].ndim else 0
    for name, column in columns.items():
        if column.dtype.kind not in "bfiu":
            raise UserError(f"{path}: {name} holds values of type {column.dtype}, not numbers")
        check_shape(column.shape, name, shapes.get(name, column.shape[1:]), path)
        if len(column) != rows:
            raise UserError(f"{path}: {name} has {len(column)} rows but observations has {rows}")
    if not np.isin(columns["terminals"], (0, 1)).all():
        raise UserError(f"{path}: terminals must be 0 or 1 everywhere")
    columns["terminals"] = columns["terminals"].reshape(rows).astype(bool)
    if columns["terminals"].all() or not columns["terminals"][-1]:
        raise UserError(f"{path}: its rows are no whole trajectories: the last one must be the end of one")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused below
        columns |= {name: columns[name].astype(np.float32) for name in ("observations", "actions")}
    check_finite(columns, path)
    clip(columns["actions"], path, task)
    return columns


def transitions(columns: dict[str, np.ndarray], task: OGBench, path: Path, sparse: bool) -> dict[str, np.ndarray]:
    """Checked columns [N,...] of a file as the fields of `Transitions`, and the number of each one's trajectory.

    Raises `UserError` for states that are none of the task's simulator.
    """
    rows = np.flatnonzero(~columns["terminals"])
    states = {name: columns[name][rows] for name in ("qpos", BUTTONS) if name in columns}
    from ogbench.relabel_utils import relabel_dataset  # slow to import

    env = task.simulate()
    sizes = {"qpos": env.unwrapped.model.nq}
    if buttons := getattr(env.unwrapped, "_num_buttons", 0):
        sizes |= {BUTTONS: buttons}
    for name, size in sizes.items():
        if name not in states:
            raise UserError(f"{path}: has no {name}")
        check_shape(states[name].shape, name, (size,), path)
    relabel_dataset(task.recorded_in, env, states)
    env.close()
    reward = states["rewards"]
    return {
        "observation": columns["observations"][rows],
        "action": columns["actions"][rows],
        "reward": np.where(reward == 0, reward, np.float32(-1)) if sparse else reward,
        "next_observation": columns["observations"][rows + 1],
        "terminated": states["masks"] == 0,
        "episode": np.cumsum(columns["terminals"])[rows],
    }
