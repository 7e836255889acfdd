"""The data of the multi-goal toy: noisy walkers that each have chosen one of the goals."""

import numpy as np

from genpolicy.config.schema import component, setting
from genpolicy.config.validation import Node
from genpolicy.dataset.dataset import Dataset, require_task
from genpolicy.dataset.transitions import Behaviour
from genpolicy.env.multi_goal import MultiGoal, demonstrations, squared_distance
from genpolicy.env.task import Task
from genpolicy.errors import UserError


@component
class MultiGoalData(Dataset):
    """Episodes that go straight to a random goal and stay there, each step disturbed by N(0, 0.1^2)."""

    episodes: int = setting(1000, ge=1, le=10**6, doc="episodes to make")

    @classmethod
    def check_compatibility(cls, config: Node) -> None:
        """These data are about the toy only."""
        require_task(config, MultiGoal, "multi_goal")
        if config.env.max_episode_steps < 2:
            raise UserError(
                "env.max_episode_steps=1: the data are without each episode's last step, so of nothing; give 2"
            )

    def made(self, task: Task) -> tuple[int, int]:
        """All as long as the task's, but for each one's last step."""
        return self.episodes, task.max_episode_steps - 1

    def arrays(self, task: Task) -> tuple[dict[str, np.ndarray], Behaviour]:
        """The transitions of all episodes but each one's last, which a time limit cut off."""
        positions, actions = demonstrations(self.episodes, task.max_episode_steps)
        reward = -squared_distance(positions[1:])
        kept = slice(0, task.max_episode_steps - 1)
        size = reward[kept].size
        arrays = {
            "observation": positions[:-1][kept].reshape(size, 2).astype(np.float32),
            "action": actions[kept].reshape(size, 2).astype(np.float32),
            "reward": reward[kept].reshape(size).astype(np.float32),
            "next_observation": positions[1:][kept].reshape(size, 2).astype(np.float32),
            "terminated": np.zeros(size, dtype=bool),
            "episode": np.tile(np.arange(self.episodes), task.max_episode_steps - 1),
        }
        return arrays, Behaviour.of(reward.sum(0))
