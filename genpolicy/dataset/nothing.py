"""No data: training begins in the simulator."""

from __future__ import annotations

import numpy as np

from genpolicy.config.schema import build, component, locate
from genpolicy.config.validation import Node
from genpolicy.dataset.dataset import Dataset, iql_locomotion, standardize
from genpolicy.dataset.transitions import Behaviour
from genpolicy.env.task import Task
from genpolicy.errors import UserError

OF_DATA = {transform.__name__ for transform in (iql_locomotion, standardize)}


@component
class Nothing(Dataset):
    """A data set of no transitions, for runs that are trained online alone."""

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """Nothing can be learned from it, nor taken from it."""
        if "online" in config and not config.online.steps:
            raise UserError("dataset=none: gives nothing to train on; give online.steps as well, or another data set")
        if config.dataset.held_out:
            raise UserError("dataset.held_out: dataset=none has no episodes to hold out; leave it out")
        if "scaling" in config and config.scaling.action == "data":
            raise UserError(
                "scaling.action=data: takes the range of data, and dataset=none has none; legal: none, space"
            )
        if config.dataset.reward in OF_DATA:
            raise UserError(
                f"dataset.reward={config.dataset.reward}: takes constants from data, and dataset=none has none"
            )
        if "online" in config and "algo" in config:
            require_sequences(config)

    @classmethod
    def without_effect(cls, config: Node) -> dict[str, str]:
        """What tells data and added transitions apart, and what follows from data (`remark_unused`)."""
        names = ("online.offline_ratio", "online.offline_ratio_end", "scaling.observation", "scaling.epsilon")
        return dict.fromkeys(names, "with dataset=none")

    def arrays(self, task: Task) -> tuple[dict[str, np.ndarray], Behaviour]:
        """No rows."""
        sizes = {"observation": (task.observation_size,), "action": (task.action_size,), "reward": ()}
        sizes |= {"next_observation": (task.observation_size,), "terminated": ()}
        columns = {name: np.zeros((0, *shape), np.float32) for name, shape in sizes.items()}
        return columns | {"episode": np.zeros(0, np.int64)}, Behaviour()


def require_sequences(config: Node) -> None:
    """Raises `UserError` if the first update finds no sequence of as many transitions as a batch's are of."""
    learned = locate(config.algo._target_).learns_critic
    lengths = {"chunk.length": config.chunk.length, "critic.steps": config.critic.steps if learned else 1}
    name, length = max(lengths.items(), key=lambda item: item[1])
    if length == 1:
        return
    limit = config.env.max_episode_steps or build(config.env).max_episode_steps
    if length > limit:
        raise UserError(f"{name}={length}: no episode of {config.env.name} has so many steps, but at most {limit}")
    needed = (length - 1) * config.online.simulators
    if config.online.start < needed:
        raise UserError(
            f"online.start={config.online.start}: without data, {name}={length} needs as many steps of an episode "
            f"before the first update; give {needed} or more"
        )
