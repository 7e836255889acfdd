"""D4RL's locomotion tasks in gymnasium's MuJoCo simulators."""

from dataclasses import dataclass

import gymnasium

from genpolicy.env.task import Task, make_quietly
from genpolicy.settings import setting

SIMULATORS = tuple(f"{robot}-{version}" for robot in ("Hopper", "HalfCheetah", "Walker2d") for version in ("v4", "v5"))


@dataclass(kw_only=True, eq=False)
class Locomotion(Task):
    """Hopper, HalfCheetah or Walker2d: rewarded for forward speed and for being upright."""

    simulator: str = setting(choices=SIMULATORS, doc="what stands in for D4RL's simulator: its gymnasium id")

    def simulate(self) -> gymnasium.Env:
        """The simulator named by `simulator`, without wrappers."""
        return make_quietly(self.simulator).unwrapped
