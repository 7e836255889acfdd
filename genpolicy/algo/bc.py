"""Behaviour cloning with a generative policy."""

from __future__ import annotations

from dataclasses import InitVar, dataclass

from genpolicy.algo.algorithm import Algorithm, imitation
from genpolicy.settings import setting


@dataclass(kw_only=True, eq=False, repr=False)
class BC(Algorithm):
    """Fit the policy to the data's actions; needs no critic."""

    behaviour_steps: int = setting(10_000, ge=1, doc="updates")
    behaviour_batch_size: int = setting(512, ge=1, doc="transitions an update")
    behaviour_lr: float = setting(3e-4, gt=0.0, doc="Adam's learning rate")
    policy: InitVar
    objective: InitVar
    critic: InitVar

    def __post_init__(self, policy, objective, critic):
        super().__init__()
        self.policy, self.critic = policy, None
        self.phases = [
            imitation(
                "behaviour",
                policy,
                objective,
                self.behaviour_steps,
                self.behaviour_batch_size,
                self.behaviour_lr,
            )
        ]

    @property
    def behaviour(self):
        """The policy itself."""
        return self.policy
