"""RL Unplugged's control-suite data in the file format in which GenerativeRL publishes them.

The file is `numpy.save(path, [{"s": {part: array}, "a": array, "r": number, "s_": {part: array}}, ...])`: a pickle,
which could make whoever loads it run anything. It is read here without executing it: every name that a
pickle of plain data and arrays needs is answered by a stand-in of this module, and any other name is refused.
"""

import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from genpolicy.config.schema import component, locate
from genpolicy.config.validation import Node
from genpolicy.dataset.transition_table import checked, transitions
from genpolicy.dataset.transitions import Behaviour
from genpolicy.dataset.user_file import OwnFile, limited_memory, reason
from genpolicy.env.control_suite import ControlSuite
from genpolicy.env.task import Task
from genpolicy.errors import UserError

MEMORY_PER_BYTE = 32  # of a file, at most: its numbers lie in small objects


@component
class RLUnplugged(OwnFile):
    """Transitions of a task of the control suite, of which none is a termination: the suite's tasks have no end."""

    format: ClassVar[str] = "npy"
    shuffled: ClassVar[bool] = True

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """Only the suite's tasks name the parts of an observation."""
        if not issubclass(locate(config.env._target_), ControlSuite):
            raise UserError(f"dataset=rl_unplugged does not go with env={config.env.name}: it goes with env=dmc-...")

    def arrays(self, task: Task) -> tuple[dict[str, np.ndarray], Behaviour]:
        """The rows, as they are; the file is shuffled, so that its episodes and their returns are not known."""
        path = self.existing(self.path)
        return transitions(checked(columns(path, task.layout), path, task), path, task)


def columns(path: Path, layout: dict[str, int]) -> dict[str, np.ndarray]:
    """The columns obs, action, next_obs, reward and done of a file; `layout` names the parts of an observation.

    Raises `UserError` if the file is not in this format, has other parts, or names what no data need.
    """
    try:
        with limited_memory(MEMORY_PER_BYTE * path.stat().st_size + 2**28):
            records = _records(path)
        found = {"action": _column(records, "a"), "reward": _column(records, "r")}
        for name, key in {"obs": "s", "next_obs": "s_"}.items():
            if set(parts := records[0][key]) != set(layout):
                raise UserError(
                    f"{path}: an observation has the parts {', '.join(map(str, parts))}, but the task's has "
                    f"{', '.join(layout)}; is it a file of another task?"
                )
            found[name] = np.hstack([_column([record[key] for record in records], part) for part in layout])
    except UserError:
        raise
    except Exception as error:  # whatever a mutilated pickle makes of itself
        said = f"no {error}" if isinstance(error, KeyError) else reason(error)
        raise UserError(f"{path}: not a readable file of RL Unplugged's transitions ({said})") from error
    return found | {"done": np.zeros(len(records), dtype=bool)}


def _records(path: Path) -> list[dict]:
    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = read_header[version](file)
        if dtype != np.dtype(object) or len(shape) != 1:
            raise ValueError(f"an array of {dtype} with shape {list(shape)}, not a list of transitions")
        stored = _Reader(file).load()
    if not isinstance(stored, _Array) or not isinstance(stored.content, list) or len(stored.content) != shape[0]:
        raise ValueError("not a list of transitions")
    if not stored.content:
        raise ValueError("it is empty")
    return stored.content


def _column(records: list[dict], name: str) -> np.ndarray:
    """What each of N records has by a name, as an array [N,...]."""
    cells = [record[name] for record in records]
    if not isinstance(cells[0], _Array):
        return np.array(cells, dtype=np.float64).reshape(len(cells), -1)
    kinds = {(cell.dtype, cell.shape) for cell in cells}
    if len(kinds) > 1:
        raise ValueError("its rows have different shapes")
    ((dtype, _),) = kinds
    return np.frombuffer(b"".join(cell.content for cell in cells), dtype).reshape(len(cells), -1)


class _DType:
    """Stands in for numpy.dtype: numbers only."""

    def __init__(self, name: str, *_: object):
        if not (isinstance(name, str) and name[:1] in "bfiuO" and len(name) <= 3):
            raise ValueError(f"it holds values of type {name}")
        self.name, self.order = name, "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1] if state[1] in "<>" else "="

    @property
    def numbers(self) -> np.dtype:
        return np.dtype(self.order + self.name)


class _Array:
    """Stands in for an array or a NumPy number: its bytes in C order, or the list of its objects."""

    __slots__ = ("content", "dtype", "shape")

    def __init__(self, *_: object) -> None:
        self.content, self.dtype, self.shape = b"", None, ()

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, dtype, by_columns, content = state
        self.content = content
        if not isinstance(content, list):
            self.dtype = dtype.numbers
            if by_columns:
                self.content = np.frombuffer(content, self.dtype).reshape(self.shape, order="F").tobytes()


def _scalar(dtype: _DType, content: bytes) -> float:
    (value,) = np.frombuffer(content, dtype.numbers)
    return float(value)


def _from_buffer(content: bytes, dtype: _DType, shape: tuple, order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", bytes(content)))
    return array


class _Reader(pickle.Unpickler):
    """Reads data; nothing that a file names is looked up, let alone called."""

    STAND_INS = {  # noqa: RUF012
        ("numpy", "ndarray"): None,
        ("numpy", "dtype"): _DType,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "scalar"): _scalar,
        ("numpy._core.numeric", "_frombuffer"): _from_buffer,
        ("collections", "OrderedDict"): dict,
    }

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name. Raises `UnpicklingError` for one that data do not need."""
        try:
            return self.STAND_INS[module.replace("numpy.core.", "numpy._core."), name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no data need") from None
