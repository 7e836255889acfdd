"""How far an exported policy is from the policy, and how long each takes for an action."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from genpolicy.algo.actor import Actor
from genpolicy.config.setting_groups import Chunk
from genpolicy.evaluation.evaluator import milliseconds
from genpolicy.export.graph import Graph, drawn, given

TIE = 1e-5  # the share of their size by which the scores of two candidates must differ for the choice to be certain


class Difference(NamedTuple):
    """Of an exported policy from the policy, over observations.

    largest: in units of actions. share: the same in shares of the range of each action. ties: at how many observations
    the choice fell on another candidate as two had the same score but for rounding; these are left out of the others.
    """

    observations: int
    largest: float
    share: float
    ties: int


def compare(actor: Actor, graph: Graph, observation: Tensor, batch: int | None) -> Difference:
    """The difference at observations [N, O], for the same noise; in parts of `batch` if that is given.

    Both are computed in float32. NaN where either gives what is no number.
    """
    generator, found, expected, tied = torch.Generator().manual_seed(0), [], [], []
    for part in observation.split(batch or len(observation)):
        inputs = given(actor, part, generator)
        expected.append(actor(**inputs))
        tied.append(_tied(actor, inputs))
        arrays = {name: inputs[name].numpy() for name in graph.inputs}
        found.append(torch.from_numpy(graph(arrays)).reshape(expected[-1].shape))
    apart = (torch.cat(found) - torch.cat(expected)).abs()
    share = (apart / action_range(actor)).amax(1)
    other = torch.cat(tied) & (share > TIE)
    apart, share = apart[~other], share[~other]
    return Difference(len(observation), _largest(apart), _largest(share), int(other.sum()))


def action_range(actor: Actor) -> Tensor:
    """The ranges [A] of actions: of the action space or, where that has none or is a point, of the scaling."""
    space = actor.scaling.high - actor.scaling.low
    return torch.where(space.isfinite() & (space > 0), space, 2 * actor.scaling.reach)


def _tied(actor: Actor, inputs: dict[str, Tensor]) -> Tensor:
    """At which observations [B] rounding may decide which candidate is chosen."""
    observation, selection = actor.scaling.scale_observation(inputs["observation"]), actor.selection
    if selection.num_candidates == 1 or selection.num_candidates <= selection.num_averaged:
        return torch.zeros(len(observation), dtype=torch.bool)
    with torch.no_grad():
        noise = inputs["noise"].flatten(0, 1)
        candidates = actor.clip(actor.policy.sample(observation, None, selection.num_candidates, noise))
        scores = selection.scores(actor.critic, observation, candidates, inputs.get("choice"))
    ranked = scores.topk(selection.num_averaged + 1, -1).values
    return ranked[:, -2] - ranked[:, -1] <= TIE * scores.abs().amax(-1)


def _largest(values: Tensor) -> float:
    return values.max().item() if values.numel() else 0.0


def playing(graph: Graph, observation: np.ndarray) -> Callable[[], np.ndarray]:
    """What gives the actions of a graph at observations [B, O], of other noise at each call."""
    draw = np.random.default_rng(0)
    shapes = {name: (len(observation), *shape[1:]) for name, shape in graph.inputs.items()}
    given = {"observation": observation} if "observation" in shapes else {}

    def run() -> np.ndarray:
        return graph(given | {name: drawn(draw, name, shape) for name, shape in shapes.items() if name not in given})

    return run


def latencies(actor: Actor, graph: Graph, observation: Tensor, chunk: Chunk) -> dict[str, float]:
    """The median time in milliseconds of one action, the drawing of its noise included: of both, by their names.

    observation: [B, O], what a call takes; a chunk's time counts for all it plays.
    """
    generator = torch.Generator().manual_seed(0)
    both = {graph.runtime: playing(graph, observation.numpy()), "genpolicy": lambda: actor.act(observation, generator)}
    return {name: milliseconds(act, chunk) for name, act in both.items()}
