"""The data of the Swiss-roll toy as transitions."""

import numpy as np

from genpolicy.config.schema import component
from genpolicy.config.validation import Node
from genpolicy.dataset.dataset import Dataset, require_task
from genpolicy.dataset.transitions import Behaviour
from genpolicy.env.swiss_roll import SwissRoll, roll
from genpolicy.env.task import Task


@component
class SwissRollData(Dataset):
    """Every point of the roll as an episode of one action, rewarded with its value."""

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """The roll's data are about the roll's task only."""
        require_task(config, SwissRoll, "swiss_roll")

    def made(self, task: Task) -> tuple[int, int]:
        """A point each."""
        return len(roll().value), 1

    def arrays(self, task: Task) -> tuple[dict[str, np.ndarray], Behaviour]:
        """The points as actions and their values as rewards; all terminated."""
        action, value = roll().action, roll().value
        nothing = np.zeros((len(value), 0), np.float32)
        arrays = {
            "observation": nothing,
            "action": action.astype(np.float32),
            "reward": value.astype(np.float32),
            "next_observation": nothing,
            "terminated": np.ones(len(value), dtype=bool),
            "episode": np.arange(len(value)),
        }
        return arrays, Behaviour.of(value)
