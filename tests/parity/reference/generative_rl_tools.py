"""What the scripts share that run GenerativeRL: its imports without the packages that its losses do without."""

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterable
from typing import ClassVar
from unittest import mock

import torch
from torch_tools import ACTION, OBSERVATION, Stub

SUPPORT = 4
SMALL = {"units": [16, 8, 4], "time": 8, "observation": 4, "condition": 8, "critic": 12}
PUBLISHED = {"units": [512, 256, 128], "time": 32, "observation": 32, "condition": 128, "critic": 256}
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


def settings(
    path_type: str,
    model: str,
    loss: str,
    ode_solver: str = "euler",
    scale: float = 30.0,
    sizes: tuple[int, int] = (OBSERVATION, ACTION),
    widths: dict = SMALL,
) -> Settings:
    """The configuration of their benchmarks with layers of these widths."""
    observation, action = sizes
    place, kind = torch.device("cpu"), {"gvp": {}, "linear_vp_sde": {"beta_0": 0.1, "beta_1": 20.0}}[path_type]
    way = {"type": path_type, **kind}
    net = {"hidden_sizes": widths["units"], "output_dim": action, "t_dim": widths["time"], "condition_dim": observation}
    net |= {"condition_hidden_dim": widths["observation"], "t_condition_hidden_dim": widths["condition"]}
    encoder = {"type": "GaussianFourierProjectionTimeEncoder", "args": {"embed_dim": widths["time"], "scale": scale}}
    backbone = {"type": "TemporalSpatialResidualNet", "args": net}
    network = {"type": model, "args": {"t_encoder": encoder, "backbone": backbone}}
    solver = {"type": "ODESolver", "args": {"library": "torchdiffeq", "ode_solver": ode_solver}}
    whole = {"device": place, "x_size": action, "solver": solver, "path": way, "reverse_path": way, "model": network}
    hidden = [widths["critic"]] * 2
    q = {"type": "ConcatenateMLP", "args": {"hidden_sizes": [action + observation, *hidden], "output_size": 1}}
    v = {"type": "MultiLayerPerceptron", "args": {"hidden_sizes": [observation, *hidden], "output_size": 1}}
    for part in (q, v):
        part["args"]["activation"] = "relu"
    critic = {"device": place, "q_alpha": 1.0, "DoubleQNetwork": {"backbone": q}, "VNetwork": {"backbone": v}}
    policy = {"device": place, "model_type": "DiffusionModel", "model_loss_type": loss, "model": whole}
    return Settings(policy | {"critic": critic})


class Buffer:
    """Their replay buffer; the batches of an epoch are `given`. after: called with the number of those trained on."""

    after = staticmethod(lambda number: None)
    given: ClassVar[list] = []

    def __init__(self, **more):
        pass

    def __iter__(self):
        for number, batch in enumerate(self.given, 1):
            yield batch
            Buffer.after(number)


def train(
    algorithm_type: str, policy: torch.nn.Module, stage: str, given: list, beta: float = 8.0, weight_clamp: float = 2
) -> None:
    """One stage over these batches, by GMPOAlgorithm.train, in which epoch 0 counts as done."""
    from grl.algorithms import gmpo

    stages = {
        "behaviour_policy": {"learning_rate": 1e-4},
        "critic": {"learning_rate": 3e-4, "discount_factor": 0.99, "update_momentum": 0.005, "tau": 0.7},
        "guided_policy": {"learning_rate": 1e-4, "beta": beta, "weight_clamp": weight_clamp},
    }
    stages["critic"]["method"] = "iql"
    parameter = {name: values | {"batch_size": None, "epochs": 2 * (name == stage)} for name, values in stages.items()}
    parameter |= {"algorithm_type": algorithm_type, "evaluation": {"eval": False}, "action_augment_num": SUPPORT}
    config = Settings(project="parity", parameter=parameter, model={"GPPolicy": policy.config})
    algorithm = gmpo.GMPOAlgorithm.__new__(gmpo.GMPOAlgorithm)
    algorithm.config, algorithm.simulator, algorithm.seed_value = Settings(train=config), None, 0
    algorithm.dataset, algorithm.model = types.SimpleNamespace(storage=None), {"GPPolicy": policy}
    algorithm.behaviour_policy_train_epoch = algorithm.critic_train_epoch = algorithm.guided_policy_train_epoch = 0
    run = mock.MagicMock()
    run.__enter__.return_value.config = {}
    Buffer.given = given
    with (
        mock.patch.object(gmpo, "TensorDictReplayBuffer", Buffer),
        mock.patch.object(gmpo, "SamplerWithoutReplacement", mock.MagicMock()),
        mock.patch.object(gmpo, "track", lambda numbers, description: numbers),
        mock.patch.object(gmpo, "wandb", mock.MagicMock(init=lambda **more: run)),
        mock.patch.object(gmpo, "merge_two_dicts_into_newone", lambda first, second: second),
    ):
        algorithm.train()
