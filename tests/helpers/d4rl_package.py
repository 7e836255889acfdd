"""The d4rl package as an oracle: its own functions and tables, with gymnasium in the place of gym.

d4rl 1.1 asks for gym < 0.25 and mujoco-py. What is used of it here works without either, once every import of
`gym.x` finds gymnasium's module of the same name. genpolicy itself never imports d4rl.
"""

import contextlib
import importlib
import importlib.abc
import importlib.util
import sys
import tempfile
import warnings
from pathlib import Path

import pytest


class _GymFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers `import gym...` with the module `gymnasium...`."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] != "gym":
            return None
        return importlib.util.spec_from_loader(name, self)

    def create_module(self, spec):
        return importlib.import_module("gymnasium" + spec.name.removeprefix("gym"))

    def exec_module(self, module):
        pass


@contextlib.contextmanager
def _gym_is_gymnasium():
    finder = _GymFinder()
    sys.meta_path.insert(0, finder)
    try:
        with (
            warnings.catch_warnings(),
            tempfile.TemporaryDirectory() as cache,
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setenv("D4RL_SUPPRESS_IMPORT_ERROR", "1")
            patch.setenv("D4RL_DATASET_DIR", cache)  # which d4rl makes when it is imported
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition(".")[0] == "gym"]:
            del sys.modules[name]


def load(*names: str):
    with _gym_is_gymnasium():
        return [importlib.import_module(name) for name in names]


def load_file(path: Path):
    """A module by itself, whose package cannot be imported."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    with _gym_is_gymnasium():
        spec.loader.exec_module(module)
    return module


d4rl, infos, offline_env, maze_model = load("d4rl", "d4rl.infos", "d4rl.offline_env", "d4rl.pointmaze.maze_model")
LOCOMOTION = Path(d4rl.__file__).parent / "locomotion"
maze_env, wrappers = load_file(LOCOMOTION / "maze_env.py"), load_file(LOCOMOTION / "wrappers.py")
