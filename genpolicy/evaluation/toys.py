"""What is drawn and measured of a policy of the toy tasks, whose exact answers are known."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genpolicy.algo.actor import ActionQueue
from genpolicy.algo.algorithm import Algorithm
from genpolicy.config.setting_groups import Chunk
from genpolicy.env.multi_goal import REACH, MultiGoal, coverage, demonstrations, squared_distance, walk
from genpolicy.env.swiss_roll import EXTENT, SwissRoll, roll
from genpolicy.env.task import Task

SHOWN = 400  # episodes drawn and measured


@functools.singledispatch
def draw(task: Task, algorithm: Algorithm, chunk: Chunk, directory: Path, **more: Any) -> dict[str, float]:
    """Draws the policy of a toy task into PNG files of `directory`, and gives what is measured of it beside returns.

    chunk: how many of the actions that it chooses at once are played. more: what `figures.draw_plane` takes beside, for
    the Swiss roll. Other tasks have nothing to draw.
    """
    return {}


@draw.register
def _(task: SwissRoll, algorithm: Algorithm, chunk: Chunk, directory: Path, **more: Any) -> dict[str, float]:
    """Draws samples, generation trajectories, densities and values, and measures how far densities are from exact.

    total_variation: of the trained policy from its optimum p(a) exp(beta Q(a)) / Z, for algorithms that have one;
    behaviour_total_variation: of the behaviour model from the data's distribution p. 0 is equal, 1 is disjoint.
    """
    from genpolicy.evaluation.figures import draw_plane  # matplotlib is slow to import and needed only here

    return draw_plane(algorithm, roll(), 1.25 * EXTENT, directory, **more)


@draw.register
def _(task: MultiGoal, algorithm: Algorithm, chunk: Chunk, directory: Path, **more: Any) -> dict[str, float]:
    """Draws the trajectories that the policy takes, and measures how they cover the goals."""
    from genpolicy.evaluation.figures import draw_trajectories  # matplotlib is slow to import and needed only here

    device = algorithm.action_low.device
    generator = torch.Generator(device).manual_seed(0)
    queue = ActionQueue(algorithm.act, chunk)

    def act(position: np.ndarray) -> np.ndarray:
        observation = torch.as_tensor(position, dtype=torch.float32, device=device)
        return queue(observation, generator).cpu().numpy()

    shown = {
        "data": demonstrations(SHOWN, task.max_episode_steps)[0],
        "policy": walk(act, SHOWN, task.max_episode_steps, np.random.default_rng(0))[0],
    }
    measured = {name: coverage(trajectories) for name, trajectories in shown.items()}
    draw_trajectories(shown, squared_distance, REACH, measured, directory / "trajectories.png")
    return measured["policy"]
