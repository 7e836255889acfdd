"""Optimisers: torch's fused kernels without `torch.optim`, which imports torch's compiler: as slow as torch itself.

Steps, and the state that is saved and loaded, are to the bit those of `torch.optim.AdamW` and `torch.optim.SGD` with
`fused=True`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor


class Optimizer(ABC):
    """One step on the gradients of parameters, which have one device and one floating-point type.

    param_groups: as in torch, the parameters ("params") and the settings of their steps ("lr", ...), which may be
    changed between two steps. state: for each parameter that has had a gradient, its tensors by the names in `STATE`.
    count: of steps, kept by whoever makes them.
    """

    STATE: ClassVar[tuple[str, ...]]

    def __init__(self, parameters: Iterable[Tensor], **settings: Any):
        self.defaults = settings
        self.param_groups: list[dict[str, Any]] = [{"params": list(parameters), **settings}]
        self.state: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)
        self.count = 0

    def like(self, parameters: Iterable[Tensor]) -> Self:
        """A new optimiser of the same kind and settings for other parameters."""
        other = copy.copy(self)
        Optimizer.__init__(other, parameters, **self.defaults)
        return other

    def zero_grad(self) -> None:
        """Let no parameter have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Change each parameter that has a gradient."""
        for group in self.param_groups:
            if trained := [parameter for parameter in group["params"] if parameter.grad is not None]:
                self._step(group, trained, [parameter.grad for parameter in trained])
        torch.clear_autocast_cache()  # of parameters as they were before

    @abstractmethod
    def _step(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, with numbers in place of the parameters."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        numbers = {parameter: number for number, parameter in enumerate(parameters)}
        groups = []
        for group in self.param_groups:
            settings = {name: value for name, value in group.items() if name != "params"}
            groups.append({**settings, "params": [numbers[parameter] for parameter in group["params"]]})
        return {"state": {numbers[parameter]: own for parameter, own in self.state.items()}, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave. Raises RuntimeError or KeyError for that of another optimiser."""
        groups, saved = self.param_groups, copy.deepcopy(state["param_groups"])
        if [len(group["params"]) for group in groups] != [len(group["params"]) for group in saved]:
            raise RuntimeError("the optimiser's state is that of other parameters")
        parameters = [parameter for group in groups for parameter in group["params"]]
        named = dict(zip((number for group in saved for number in group["params"]), parameters, strict=True))
        self.state.clear()
        for number, tensors in state["state"].items():
            self.state[named[number]] = self._own(tensors, named[number])
        for group, new in zip(groups, saved, strict=True):
            group |= {name: value for name, value in new.items() if name != "params"}
        self.count = max((int(tensors.get("step", 0)) for tensors in self.state.values()), default=0)

    def _own(self, tensors: dict[str, Tensor], parameter: Tensor) -> dict[str, Tensor]:
        """A parameter's state as loaded, on its device and of its type, but for the number of the step."""
        own = {}
        for name in self.STATE:
            count, tensor = name == "step", tensors[name]
            if tensor.shape != (() if count else parameter.shape):
                raise RuntimeError(f"the optimiser's {name} {tuple(tensor.shape)} is not that of its parameter")
            own[name] = tensor.to(parameter.device, torch.float32 if count else parameter.dtype)
        return own


class AdamW(Optimizer):
    """Adam (Kingma and Ba, 2015) with decoupled weight decay (Loshchilov and Hutter, 2019).

    weight_decay: the share of the parameters that lr times this takes away at each step.
    """

    STATE = ("step", "exp_avg", "exp_avg_sq")

    def __init__(self, parameters: Iterable[Tensor], lr: float = 1e-3, weight_decay: float = 0.0):
        settings = {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": weight_decay, "amsgrad": False}
        fixed = {"maximize": False, "foreach": None, "capturable": False, "differentiable": False, "fused": True}
        super().__init__(parameters, **settings, **fixed, decoupled_weight_decay=True)

    def _step(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        for parameter in parameters:
            if not (state := self.state[parameter]):
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        steps, means, squares = ([self.state[parameter][name] for parameter in parameters] for name in self.STATE)
        torch._foreach_add_(steps, 1)
        beta1, beta2 = group["betas"]
        torch._fused_adamw_(
            parameters,
            gradients,
            means,
            squares,
            [],
            steps,
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )


class Momentum(Optimizer):
    """Gradient descent with momentum: v = momentum v + gradient, which lr times is taken from the parameters."""

    STATE = ("momentum_buffer",)

    def __init__(self, parameters: Iterable[Tensor], lr: float = 1e-3, momentum: float = 0.9):
        settings = {"lr": lr, "momentum": momentum, "dampening": 0, "weight_decay": 0, "nesterov": False}
        super().__init__(parameters, **settings, maximize=False, foreach=None, differentiable=False, fused=True)

    def _step(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        first = not any(self.state[parameter] for parameter in parameters)
        buffers = [
            self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter)) for parameter in parameters
        ]
        torch._fused_sgd_(
            parameters,
            gradients,
            buffers,
            lr=group["lr"],
            momentum=group["momentum"],
            weight_decay=0.0,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=first,
        )
