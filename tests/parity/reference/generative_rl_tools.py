"""What the scripts share that run GenerativeRL: its imports without the packages that its losses do without."""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterable

from torch_tools import Stub


class _Anything(type):
    def __getattr__(cls, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})


class _Missing(Stub):
    """A package that is not there: each of its names is a class, each of that class's names, too."""

    __path__ = ()

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Has these packages."""

    def __init__(self, names: Iterable[str]):
        self.names = frozenset(names)

    def find_spec(self, name, path, target=None):
        known = any(name == own or name.startswith(f"{own}.") for own in self.names)
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if known else None

    def create_module(self, spec):
        return _Missing(spec.name)

    def exec_module(self, module):
        pass


class Settings(dict):
    """A dictionary whose entries are attributes, as their configurations are."""

    def __getattr__(self, name: str):
        if name not in self:
            raise AttributeError(name)
        value = self[name]
        return Settings(value) if isinstance(value, dict) else value


def without(*names: str) -> None:
    """Packages that are imported and not used become stubs."""
    sys.meta_path.insert(0, _Finder(names))
