"""What `compile=` makes of the functions of an update: torch.compile's code, or CUDA graphs of what they launch."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.objective.objective import Draws

T = TypeVar("T")

CUDA_GRAPHS = "cudagraphs"  # the mode that compiles nothing
WARM_UP = 3  # calls before a graph is recorded, in which libraries and optimisers make what they keep


def compiled(function: Callable[..., Any], mode: str) -> Callable[..., Any]:
    """A pure function as torch.compile makes it, for each shape of its arguments; itself where nothing is compiled.

    Raises `UserError` when it is first called, if it cannot be compiled.
    """
    if mode in ("none", CUDA_GRAPHS):
        return function
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch._inductor")  # of torch's own code
    made, known = torch.compile(function, mode=mode, dynamic=False), False

    def call(*given: Any) -> Any:
        nonlocal known
        if known:
            return made(*given)
        with torch.no_grad():
            function(*given)  # models keep coefficients of the solvers' times, the making of which cannot be traced
        try:
            result, known = made(*given), True
        except RuntimeError as error:  # it has worked without: so it is the compiler's
            reason, remedy = str(error).partition("\n")[0], "compile=none does without"
            if isinstance(getattr(error, "inner_exception", None), OSError | ImportError):
                remedy = f"delete what a compilation that was broken off has left there; {remedy}"
            raise UserError(f"compile={mode}: {reason}; {remedy}") from error
        return result

    return call


def owned(derived: Draws, mode: str) -> Draws:
    """The same as tensors of their own: what a CUDA graph of torch.compile's gives lasts until its next one runs."""
    return derived if mode in ("none", CUDA_GRAPHS) else {name: value.clone() for name, value in derived.items()}


class Recorded(NamedTuple):
    """A CUDA graph: `replay` computes its `result` anew, in the same memory, from what `inputs` then hold."""

    inputs: list[Tensor]
    replay: Callable[[], None]
    result: Any


class Captured:
    """A function of a batch and draws as CUDA graphs, so that its kernels are launched by one call.

    function: (batch, draws) -> tensors, in any structure. Beside its arguments it may read and change tensors that stay
    where they are: parameters, buffers, an optimiser's state. What it decides by anything else than the arguments'
    names, shapes and types is decided once, when it is recorded: after `WARM_UP` calls with arguments of these shapes.
    Its result lasts until the next call. Raises `UserError` if it cannot be recorded.
    """

    def __init__(self, function: Callable[[Transitions, Draws], Any]):
        self.function = function
        self.calls: Counter[tuple] = Counter()
        self.graphs: dict[tuple, Recorded] = {}

    def __call__(self, batch: Transitions, draws: Draws) -> Any:
        given = [batch.table, *draws.values()]
        key = (*batch.shapes.items(), *draws, *((value.shape, value.dtype) for value in given))
        if key not in self.graphs:
            self.calls[key] += 1
            if self.calls[key] <= WARM_UP:
                return beside(lambda: self.function(batch, draws))
            inputs = [value.clone(memory_format=torch.contiguous_format) for value in given]
            own, named = replace(batch, table=inputs[0]), dict(zip(draws, inputs[1:], strict=True))
            torch.clear_autocast_cache()  # of parameters as they are now, which a graph would not compute anew
            try:
                self.graphs[key] = Recorded(inputs, *recorded(lambda: self.function(own, named)))
            except RuntimeError as error:  # it has worked without
                reason = str(error).partition("\n")[0]
                raise UserError(f"compile={CUDA_GRAPHS}: {reason}; compile=none does without") from error
        graph = self.graphs[key]
        torch._foreach_copy_(graph.inputs, given)
        graph.replay()
        torch.clear_autocast_cache()  # of parameters as they were before
        return graph.result


def beside(function: Callable[[], T]) -> T:
    """What a function gives, computed by another stream than the usual one, as graphs are recorded."""
    usual, other = torch.cuda.current_stream(), torch.cuda.Stream()
    other.wait_stream(usual)
    with torch.cuda.stream(other):
        result = function()
    usual.wait_stream(other)
    return result


def recorded(function: Callable[[], T]) -> tuple[Callable[[], None], T]:
    """A graph of the kernels that a function launches, which are not run yet: what replays it, and its result."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = function()
    return graph.replay, result
