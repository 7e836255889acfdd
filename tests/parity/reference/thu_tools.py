"""What the scripts share that run the code of SRPO, QGPO and SfBC, which is of one hand; imported before that code."""

import importlib.machinery
import sys
from argparse import Namespace
from collections.abc import Callable
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch_tools import Stub

torch.FloatTensor = torch.as_tensor
nn.Module.to = lambda self, *place, **more: self  # all is float64 on the CPU already, whatever is asked for


def without(*names: str) -> None:
    """Packages that are imported and not used become stubs, which torch's own look for installed ones passes over."""
    for name in names:
        sys.modules[name] = Stub(name)
        sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)


def columns(batch: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """A batch by the names of their code: s, a, r, s_ and d, of which r and d are columns, and fake actions, if any."""
    batch = {name: torch.as_tensor(values) for name, values in batch.items()}
    made = {"s": batch["observations"], "a": batch["actions"], "s_": batch["next_observations"]}
    made |= {"r": batch["rewards"][:, None], "d": 1 - batch["masks"][:, None]}
    return made | {name: values for name, values in batch.items() if name.startswith("fake_a")}


def rows(data: dict[str, np.ndarray], update: int) -> dict[str, Tensor]:
    """One batch of several, as `columns`."""
    return columns({name: values[update] for name, values in data.items()})


def gradients(**modules: nn.Module) -> dict[str, np.ndarray]:
    """`gradient/<module>/<name>`: the gradients that the parameters have, where they have one."""
    return {
        f"gradient/{part}/{name}": parameter.grad.numpy().astype(np.float32)
        for part, module in modules.items()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def prefixed(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays by `<prefix>/<name>`."""
    return {f"{prefix}/{name}": np.asarray(values) for name, values in arrays.items()}


class Bar(list):
    """A progress bar over these epochs, of which nothing is seen."""

    def set_description(self, text: str) -> None:
        pass


WRITER = SimpleNamespace(add_scalar=lambda *values, **more: None)


def loop(train: Callable, args: Namespace, epoch: int, net: nn.Module, given: list) -> None:
    """One of QGPO's training loops over batches, at an epoch."""
    module = sys.modules[train.__module__]
    with (
        mock.patch.object(module.tqdm, "trange", return_value=Bar([epoch])),
        mock.patch.object(module, "range", return_value=given, create=True),
    ):
        train(args, net, given)
