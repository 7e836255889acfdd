"""What the scripts share that run a PyTorch reference: float64, draws of our own, parameters as arrays of a fixture.

A script is run as `python tests/parity/reference/<name>.py <checkout>`; it calls the reference's own functions and
writes tests/parity/fixtures/<name>.npz. Weights, batches and draws are numbers that float16 has, so that fixtures are
small; all is computed in float64.
"""

import contextlib
import json
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
OBSERVATION, ACTION, BATCH, UPDATES = 5, 3, 16, 10

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)


class Stub(types.ModuleType):
    """A module whose every name is an empty class, in place of one that is imported and not needed."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def checkout(*stubs: str) -> Path:
    """The reference's folder, the script's one argument, made importable. stubs: modules that it shall not find."""
    path = Path(sys.argv[1]).resolve()
    sys.path.insert(0, str(path))
    sys.modules.update({name: Stub(name) for name in stubs})
    return path


class Double(types.ModuleType):
    """torch, whose float32 is float64."""

    float32 = torch.float64

    def __getattr__(self, name: str):
        return getattr(torch, name)


@contextlib.contextmanager
def narrow(width: int = 16) -> Iterator[None]:
    """Inside, linear layers and layer norms of 256 units are made with `width` ones."""

    def made(cls):
        def __init__(self, *sizes, **more):
            cls.__init__(self, *(width if size == 256 else size for size in sizes), **more)

        return type(cls.__name__, (cls,), {"__init__": __init__})

    with mock.patch.object(nn, "Linear", made(nn.Linear)), mock.patch.object(nn, "LayerNorm", made(nn.LayerNorm)):
        yield


@contextlib.contextmanager
def drawing(*draws: np.ndarray) -> Iterator[None]:
    """Inside, what draws in torch, and numpy's uniform, return these arrays, one a call, and all of them are taken."""
    left = list(draws)

    def taken(*arguments, **options):
        return torch.as_tensor(left.pop(0))

    with contextlib.ExitStack() as stack:
        for name in ("randn", "rand", "randint", "randn_like"):
            stack.enter_context(mock.patch.object(torch, name, taken))
        stack.enter_context(mock.patch.object(np.random, "uniform", taken))
        stack.enter_context(mock.patch.object(torch.distributions.normal, "_standard_normal", taken))
        yield
    assert not left, f"{len(left)} draws were not taken"


def short(array: np.ndarray) -> np.ndarray:
    """The nearest numbers that float16 has, in float64."""
    return array.astype(np.float16).astype(np.float64)


def normal(draw: np.random.Generator, *shape: int) -> np.ndarray:
    """Standard normal numbers of a shape, rounded."""
    return short(draw.standard_normal(shape))


def uniform(draw: np.random.Generator, *shape: int) -> np.ndarray:
    """Uniform numbers in (0, 1) of a shape, rounded."""
    return short(draw.uniform(0.01, 0.99, shape))


class Parameters:
    """The parameters of named modules, initially their own with noise on each, and how far they have moved since.

    So no bias is 0, no layer norm the identity, no target equal to its source.
    """

    def __init__(self, draw: np.random.Generator, modules: dict[str, nn.Module], size: float = 0.1):
        self.named = {
            f"{part}/{name}": parameter
            for part, module in modules.items()
            for name, parameter in module.named_parameters()
        }
        for parameter in self.named.values():
            noisy = parameter.detach().numpy() + size * draw.standard_normal(parameter.shape)
            parameter.data = torch.as_tensor(short(noisy))
        self.initial = {name: parameter.detach().numpy().copy() for name, parameter in self.named.items()}

    def begin(self) -> dict[str, np.ndarray]:
        """`0/<module>/<name>`: the initial ones."""
        return {f"0/{name}": value for name, value in self.initial.items()}

    def moved(self, updates: int) -> dict[str, np.ndarray]:
        """`<updates>/<module>/<name>`: what has been added to the initial ones."""
        return {
            f"{updates}/{name}": (parameter.detach().numpy() - self.initial[name]).astype(np.float32)
            for name, parameter in self.named.items()
        }


def batches(draw: np.random.Generator) -> dict[str, np.ndarray]:
    """Ten batches of transitions [10, B, ...]; some end an episode, and some actions are at the ends of their range."""
    shape = UPDATES, BATCH
    return {
        "observations": normal(draw, *shape, OBSERVATION),
        "actions": short(np.clip(1.2 * draw.uniform(-1, 1, (*shape, ACTION)), -1, 1)),
        "rewards": normal(draw, *shape),
        "next_observations": normal(draw, *shape, OBSERVATION),
        "masks": (draw.uniform(size=shape) > 0.25).astype(np.float64),
    }


class Buffer:
    """The replay buffer of Diffusion-QL's code and what builds on it, which gives our batches, one a call.

    called: with the number of batches taken before, at each call.
    """

    def __init__(self, data: dict[str, np.ndarray], called: Callable[[int], None]):
        self.data, self.called, self.taken = data, called, 0

    def sample(self, batch_size: int) -> tuple[torch.Tensor, ...]:
        self.called(self.taken)
        i, self.taken = self.taken, self.taken + 1
        names = ("observations", "actions", "next_observations")
        vectors = [torch.as_tensor(self.data[name][i]) for name in names]
        return (*vectors, *(torch.as_tensor(self.data[name][i])[:, None] for name in ("rewards", "masks")))


class Scalars(dict):
    """A log writer that keeps the first value of each name."""

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.setdefault(name, float(value))


def played(agent, observation: np.ndarray, noise: list[np.ndarray], chosen: int) -> dict[str, np.ndarray]:
    """`act`: the candidate with this number at an observation [O]; `chances` [K]: what the numbers are drawn by."""
    double = mock.patch.object(torch, "FloatTensor", torch.DoubleTensor)
    with drawing(*noise), double, mock.patch.object(torch, "multinomial", return_value=[chosen]) as draw:
        return {"act": agent.sample_action(observation), "chances": draw.call_args.args[0].numpy()}


def save(name: str, repository: str, path: Path, licence: str, settings: dict, **arrays: np.ndarray) -> None:
    """Write a fixture."""
    command = ["git", "-C", path, "rev-parse", "HEAD"]
    commit = subprocess.run(command, check=True, text=True, capture_output=True).stdout.strip()
    about = {"repository": repository, "commit": commit, "licence": licence, "settings": settings}
    brief = {
        key: array.astype(np.float16) if key.startswith(("0/", "batch/", "draw/")) else array
        for key, array in arrays.items()
    }
    np.savez_compressed(FIXTURES / f"{name}.npz", about=json.dumps(about), **brief)
    print(f"{name}.npz: {(FIXTURES / f'{name}.npz').stat().st_size} bytes")
