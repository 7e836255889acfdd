"""What the scripts share that run GenerativeRL: its imports without the packages that its losses do without."""

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterable

import torch
from torch_tools import ACTION, OBSERVATION, Stub

SUPPORT, TIME, CONDITION, UNITS = 4, 8, 8, [16, 8, 4]
UNUSED = "tensordict torchrl treetensor torchdyn wandb gym d4rl torchvision timm einops torchsde ot beartype sklearn"


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


def without_packages() -> None:
    """Packages that are imported and not used become stubs."""
    unused = "grl.datasets", "grl.agents", "grl.rl_modules.simulators", "grl.utils.plot"
    sys.meta_path.insert(0, _Finder([*UNUSED.split(), *unused]))
    sys.modules["easydict"] = types.ModuleType("easydict")
    sys.modules["easydict"].EasyDict = Settings


def settings(path_type: str, model: str, loss: str, ode_solver: str = "euler", scale: float = 30.0) -> Settings:
    """The configuration of their benchmarks with layers of other widths."""
    place, kind = torch.device("cpu"), {"gvp": {}, "linear_vp_sde": {"beta_0": 0.1, "beta_1": 20.0}}[path_type]
    way = {"type": path_type, **kind}
    sizes = {"hidden_sizes": UNITS, "output_dim": ACTION, "t_dim": TIME, "condition_dim": OBSERVATION}
    sizes |= {"condition_hidden_dim": 4, "t_condition_hidden_dim": CONDITION}
    encoder = {"type": "GaussianFourierProjectionTimeEncoder", "args": {"embed_dim": TIME, "scale": scale}}
    backbone = {"type": "TemporalSpatialResidualNet", "args": sizes}
    network = {"type": model, "args": {"t_encoder": encoder, "backbone": backbone}}
    solver = {"type": "ODESolver", "args": {"library": "torchdiffeq", "ode_solver": ode_solver}}
    whole = {"device": place, "x_size": ACTION, "solver": solver, "path": way, "reverse_path": way, "model": network}
    q = {"type": "ConcatenateMLP", "args": {"hidden_sizes": [ACTION + OBSERVATION, 12, 12], "output_size": 1}}
    v = {"type": "MultiLayerPerceptron", "args": {"hidden_sizes": [OBSERVATION, 12, 12], "output_size": 1}}
    for part in (q, v):
        part["args"]["activation"] = "relu"
    critic = {"device": place, "q_alpha": 1.0, "DoubleQNetwork": {"backbone": q}, "VNetwork": {"backbone": v}}
    policy = {"device": place, "model_type": "DiffusionModel", "model_loss_type": loss, "model": whole}
    return Settings(policy | {"critic": critic})
