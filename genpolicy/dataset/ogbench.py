"""OGBench's own files, in the cache that the package keeps, and others of their layout, with the rewards of a task.

A file has the rows of trajectories one after the other: observations [N,O], actions [N,A], terminals [N], qpos, qvel
and, for scenes and puzzles, button_states; no rewards. The last row of a trajectory has no next one: its action means
nothing, and it is no transition. Rewards are the package's own relabelling: the number of parts of the task that are
done in the state before the step, less the number of all. A transition is terminated if all are done, and only then;
trajectories go on after that, and their ends are no termination.
"""

import urllib.parse
import zipfile
import zlib
from abc import abstractmethod
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np

from genpolicy.config.schema import component, locate, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.dataset import Dataset
from genpolicy.dataset.download import Downloaded
from genpolicy.dataset.ogbench_contents import another_data_set, parts_done
from genpolicy.dataset.transitions import Behaviour
from genpolicy.dataset.user_file import check_finite, check_shape, clip, read_npz
from genpolicy.env.ogbench import BUTTONS, PREFIX, OGBench
from genpolicy.errors import UserError

COLUMNS = ("observations", "actions", "terminals", "qpos")
STATES = ("qpos", "qvel", BUTTONS)
IN_PARTS = ("cube-double", "cube-triple", "cube-quadruple", "scene", "puzzle")


@component
class OGBenchFile(Dataset):
    """A data set that is one file in OGBench's layout; its episodes have no return: they are of no one task.

    option: of `dataset`. published: whether it is OGBench's own. remedy: what to do about a bad file.
    """

    as_recorded: ClassVar[bool] = True
    option: ClassVar[str]
    published: ClassVar[bool] = False
    remedy: ClassVar[str]

    sparse: bool = setting(
        False, doc="rewards of -1 until the whole task is done, as later papers have them; false: by part, as published"
    )

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """Only OGBench's tasks have data of OGBench's; those of one part are sparse as they are."""
        if locate(config.env._target_) is not OGBench:
            raise UserError(
                f"dataset={cls.option} does not go with env={config.env.name}: it goes with env=ogbench-..."
            )
        data = config.env.name.removeprefix(PREFIX)
        if config.dataset.sparse and not data.startswith(IN_PARTS):
            raise UserError(
                f"dataset.sparse=true: the tasks of {data} have one part, so that rewards are sparse already; "
                "legal: false"
            )

    @abstractmethod
    def file(self, task: OGBench) -> Path:
        """The file of `task`, fetched or made if need be."""

    def arrays(self, task: OGBench) -> tuple[dict[str, np.ndarray], Behaviour]:
        """The file's rows as transitions, with the rewards of the task."""
        arrays, _ = self._read(task)
        if self.sparse:
            arrays["reward"] = np.where(arrays["reward"] == 0, arrays["reward"], np.float32(-1))
        return arrays, Behaviour()

    def recorded(self, task: OGBench) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """As of any data set, with the rewards that the simulator gives, sparse or not."""
        return self._read(task)

    def given(self, reward: float) -> float:
        """As in the file's rows: -1 until all is done, if sparse."""
        return -1.0 if self.sparse and reward else reward

    def statistics(self, task: OGBench, arrays: dict[str, np.ndarray], states: dict[str, np.ndarray]) -> list[str]:
        """As of any data set, and how often each part of the task is done."""
        env = task.simulate()
        env.reset(seed=0)
        done = parts_done(env.unwrapped, states)
        env.close()
        shares = [f"{name} {share:.2%}" for name, share in ((name, part.mean()) for name, part in done.items())]
        everything = f"all {np.all(list(done.values()), axis=0).mean():.2%}"
        return [*super().statistics(task, arrays, states), f"done, of all steps: {', '.join([*shares, everything])}"]

    def _read(self, task: OGBench) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        path = self.file(task)
        try:
            columns = read(path, task)
            found = transitions(columns, task, path)
            if self.published and (another := another_data_set(columns, task)):
                raise UserError(f"{path}: is not {task.data}: {another}")
            return found
        except UserError as error:
            raise UserError(f"{error}; {self.remedy}") from error


@component
class OGBenchData(Downloaded, OGBenchFile):
    """The data set that OGBench publishes for the task."""

    option: ClassVar[str] = "ogbench"
    published: ClassVar[bool] = True
    remedy: ClassVar[str] = "delete it and get it again"

    def probe(self, task: OGBench, length: int = 1) -> None:
        """The address must not be that of another data set of OGBench's, and as for any download."""
        name = PurePosixPath(urllib.parse.urlparse(task.url).path).name.removesuffix(".npz")
        if name.endswith("-v0") and name != task.data:
            raise UserError(f"env.url: {task.url} is the data set {name}, not {task.data}")
        super().probe(task, length)

    def file(self, task: OGBench) -> Path:
        """The file in the cache, downloaded first if it is not there."""
        return self.fetched(task, check, "NPZ")


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
    columns = read_npz(path, COLUMNS, STATES)
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


def transitions(
    columns: dict[str, np.ndarray], task: OGBench, path: Path
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Checked columns [N,...] of a file as the fields of `Transitions`, with the number of each one's trajectory.

    And the state before each, as `Task.place` takes it. Raises `UserError` for states that are none of the task's
    simulator.
    """
    rows = np.flatnonzero(~columns["terminals"])
    states = {name: columns[name][rows] for name in STATES if name in columns}
    from ogbench.relabel_utils import relabel_dataset  # slow to import

    env = task.simulate()
    sizes = {"qpos": env.unwrapped.model.nq}
    if buttons := getattr(env.unwrapped, "_num_buttons", 0):
        sizes |= {BUTTONS: buttons}
    for name, size in sizes.items():
        if name not in states:
            raise UserError(f"{path}: has no {name}")
        check_shape(states[name].shape, name, (size,), path)
    relabelled = states.copy()
    relabel_dataset(task.recorded_in, env, relabelled)
    env.close()
    return {
        "observation": columns["observations"][rows],
        "action": columns["actions"][rows],
        "reward": relabelled["rewards"],
        "next_observation": columns["observations"][rows + 1],
        "terminated": relabelled["masks"] == 0,
        "episode": np.cumsum(columns["terminals"])[rows],
    }, states
