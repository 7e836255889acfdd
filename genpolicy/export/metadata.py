"""What a file of an exported policy says of itself."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from genpolicy.algo.actor import Actor
from genpolicy.config.schema import TARGET
from genpolicy.config.setting_groups import executed
from genpolicy.dataset.transitions import Transitions
from genpolicy.env.task import Task
from genpolicy.export.graph import DISTRIBUTIONS, Graph
from genpolicy.runs.run import Run
from genpolicy.system.git import revision


def about(
    run: Run,
    config: DictConfig,
    choices: Mapping[str, str],
    task: Task,
    actor: Actor,
    graph: Graph,
    data: Transitions | None,
) -> dict[str, Any]:
    """All that follows from the run and the graph, as JSON has it; sizes that may be any number are null.

    config, choices: the run's, with the solver and the selection that the policy acts by. data: the run's, in the
    environment's units.
    """
    status, chunk = run.status(), config.chunk
    size = len(actor.action_low) // chunk.length
    observed = {"low": None, "high": None}
    if data is not None:
        low, high = data.observation.aminmax(dim=0)
        observed = {"low": _numbers(low), "high": _numbers(high)}
    batch = next(iter(graph.inputs.values()))[0]
    unit = "the task's" if task.registered_as is None else "the simulator's"
    parts = {"solver": hasattr(actor.policy, "solver"), "select": actor.selection.num_candidates > 1}
    return {
        "task": {
            "name": task.name,
            "simulator": task.registered_as,
            "max_episode_steps": task.max_episode_steps,
        },
        "algorithm": choices["algo"],
        "model": choices["model"],
        "run": {
            "name": "/".join(run.directory.parts[-3:]),
            "id": run.id,
            "seed": config.seed,
            "commit": status.get("commit"),
            "uncommitted_changes": status.get("dirty"),
        },
        "exported_by": {
            "genpolicy": importlib.metadata.version("genpolicy"),
            "commit": revision(Path(__file__).parent)[0],
            "torch": torch.__version__,
        },
        "observation": {"shape": [batch, task.observation_size], "dtype": "float32", "unit": unit} | {"data": observed},
        "draws": {
            name: {"shape": list(shape), "dtype": "float32", "distribution": DISTRIBUTIONS[name]}
            for name, shape in graph.inputs.items()
            if name in DISTRIBUTIONS
        },
        "action": {
            "shape": [batch, size] if chunk.length == 1 else [batch, chunk.length, size],
            "dtype": "float32",
            "unit": unit,
            "low": _numbers(actor.scaling.low[:size]),
            "high": _numbers(actor.scaling.high[:size]),
        },
        "chunk": {"length": chunk.length, "execute": executed(chunk)},
        "sampling": {name: _option(config[name], choices[name]) for name, used in parts.items() if used},
    }


def _option(node: DictConfig, name: str) -> dict[str, Any]:
    settings = OmegaConf.to_container(node, resolve=True)
    return {"option": name} | {key: value for key, value in settings.items() if key != TARGET}


def _numbers(values: torch.Tensor) -> list[float | None]:
    """JSON's numbers, which has none for what is infinite."""
    return [value if math.isfinite(value) else None for value in values.tolist()]
