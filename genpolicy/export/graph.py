"""A policy that acts, as a graph of tensor operations: a function of observations and noise that needs no genpolicy."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import itertools
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx

from genpolicy.algo.actor import Actor
from genpolicy.errors import UserError, message

LARGEST_ERROR = 300  # characters of torch's that are shown
ABOUT = "genpolicy"  # the name of the metadata in a file
DISTRIBUTIONS = {"noise": "standard normal", "choice": "exponential of rate 1"}  # of what is random, by its input
_DRAWS = {"standard normal": "standard_normal", "exponential of rate 1": "standard_exponential"}  # NumPy's


def given(actor: Actor, observation: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """The inputs of a policy at observations [B, O]: these and what is random, [B, ...] each, by name."""
    drawn = {"noise": actor.draw_noise, "choice": actor.draw_choice}
    inputs = {name: draw(len(observation), generator) for name, draw in drawn.items()}
    return {"observation": observation} | {name: value for name, value in inputs.items() if value is not None}


def drawn(draw: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """NumPy's draws of an input's distribution, float32."""
    return getattr(draw, _DRAWS[DISTRIBUTIONS[name]])(shape, dtype=np.float32)


def trace(actor: Actor, chunk_length: int, batch: int | None) -> ExportedProgram:
    """The actions [B, A] of a policy, or chunks [B, h, A], as a function of what `given` gives, as far as it counts.

    batch: B; None: any. Raises `UserError` for a policy that torch cannot trace.
    """
    sizes = {size for value in _zeros(actor, 1).values() for size in value.shape[1:]}
    size = batch or next(number for number in itertools.count(2) if number not in sizes)  # told from the others
    inputs = _zeros(actor, size)

    def act(*values: Tensor) -> Tensor:
        action = actor(**dict(zip(inputs, values, strict=True)))
        return action if chunk_length == 1 else action.unflatten(-1, (chunk_length, -1))

    act(*inputs.values())  # what depends on times alone is computed once, and constant
    try:
        with _quiet():
            # Gradients that a policy takes as it acts become operations like others.
            graph = make_fx(act, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*inputs.values())
            graph.graph.eliminate_dead_code()
            for node, name in zip(graph.graph.find_nodes(op="placeholder"), list(inputs), strict=True):
                node.target = name
                if not node.users:
                    graph.graph.erase_node(node)
                    del inputs[name]
            graph.recompile()
            shapes = None if batch else {name: {0: Dim("batch")} for name in inputs}
            return torch.export.export(graph, (), inputs, dynamic_shapes=shapes)
    except UserError:
        raise
    except Exception as error:  # whatever torch may raise
        said = message(error, LARGEST_ERROR)
        raise UserError(f"mode=export: torch cannot trace this policy ({type(error).__name__}: {said})") from error


def _zeros(actor: Actor, size: int) -> dict[str, Tensor]:
    observation = torch.zeros(size, len(actor.scaling.mean))
    return given(actor, observation, torch.Generator().manual_seed(0))


class Graph(ABC):
    """A traced policy in a format, as it is run without genpolicy.

    inputs: their names and shapes [B, ...]; a B that may be any number is None.
    """

    runtime: ClassVar[str]  # what runs it
    suffix: ClassVar[str]  # of its file

    def __init__(self, program: ExportedProgram, threads: int):
        nodes = {node.name: node.meta["val"].shape for node in program.graph.find_nodes(op="placeholder")}
        self.inputs: dict[str, tuple[int | None, ...]] = {
            name: tuple(size if isinstance(size, int) else None for size in nodes[name])
            for name in program.graph_signature.user_inputs
        }

    @abstractmethod
    def __call__(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Actions, [B, A] or [B, h, A], for arrays of float32."""

    @abstractmethod
    def content(self, about: str) -> bytes:
        """The file, with what it is in JSON."""


class OnnxGraph(Graph):
    """ONNX, run by ONNX Runtime on the CPU."""

    runtime, suffix = "ONNX Runtime", ".onnx"

    def __init__(self, program: ExportedProgram, threads: int):
        import onnxruntime

        super().__init__(program, threads)
        shapes = {name: {0: "batch"} for name, shape in self.inputs.items() if shape[0] is None}
        with _quiet():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                input_names=list(self.inputs),
                output_names=["action"],
                dynamic_shapes=shapes or None,
            )
        self._model = exported.model_proto
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self._session = onnxruntime.InferenceSession(
            self._model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        return self._session.run(["action"], dict(inputs))[0]

    def content(self, about: str) -> bytes:
        del self._model.metadata_props[:]
        self._model.metadata_props.add(key=ABOUT, value=about)
        return self._model.SerializeToString()


class TorchGraph(Graph):
    """A program of `torch.export.save`, run by torch."""

    runtime, suffix = "the program", ".pt2"

    def __init__(self, program: ExportedProgram, threads: int):
        super().__init__(program, threads)
        self._program, self._module = program, program.module()

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        with torch.no_grad():
            return self._module(**{name: torch.from_numpy(inputs[name]) for name in self.inputs}).numpy()

    def content(self, about: str) -> bytes:
        file = io.BytesIO()
        with _quiet():
            torch.export.save(self._program, file, extra_files={f"{ABOUT}.json": about})
        return file.getvalue()


FORMATS: dict[str, Callable[[ExportedProgram, int], Graph]] = {"onnx": OnnxGraph, "torch_export": TorchGraph}
_NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime")}


def require(name: str) -> None:
    """Raises `UserError` if packages that a format takes are not installed."""
    missing = [package for package in _NEEDED.get(name, ()) if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(
            f"export.format={name}: takes {', '.join(missing)}, not installed: pip install 'genpolicy[export]', "
            "or give export.format=torch_export"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the notes of torch's exporter on what is not installed, and on its own future."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
