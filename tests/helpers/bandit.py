"""A two-armed contextual bandit whose optimal policies are known by quadrature.

Context s is -1 or 1, action a in [-1, 1]. The behaviour pulls either arm, a about -.5 or .5, whatever the context; the
expected reward has a peak at each arm, .9 high where the sign of a is that of s and .1 where it is not.
"""

import math

import torch
from torch import Tensor

from genpolicy.dataset.transitions import Transitions

ARM, SPREAD, WIDTH, BETTER, NOISE = 0.5, 0.13, 0.45, 0.9, 0.1
CONTEXTS = torch.tensor([[-1.0], [1.0]])
GRID = torch.linspace(-1.5, 1.5, 3001, dtype=torch.float64)
STEP = (GRID[1] - GRID[0]).item()


def reward(context: Tensor, action: Tensor) -> Tensor:
    """The expected reward [...] of contexts [..., 1] and actions [..., 1]."""
    gap = (action * context)[..., 0]  # the better arm is at ARM
    right, left = (torch.exp(-0.5 * ((gap - arm) / WIDTH) ** 2) for arm in (ARM, -ARM))
    return BETTER * right + (1 - BETTER) * left


def behaviour_log_prob(action: Tensor) -> Tensor:
    """log mu(a) [...] of actions [...]."""
    parts = [-0.5 * ((action - arm) / SPREAD) ** 2 for arm in (ARM, -ARM)]
    return torch.logaddexp(*parts) - math.log(2 * SPREAD * math.sqrt(2 * math.pi))


def best() -> float:
    """The largest expected reward."""
    return reward(torch.ones(len(GRID), 1), GRID[:, None]).max().item()


def tilted(weight) -> Tensor:
    """The density [2, grid] of a policy in proportion to mu(a) weight(r(s, a)), in each context."""
    density = torch.stack(
        [behaviour_log_prob(GRID).exp() * weight(reward(c.expand(len(GRID), 1), GRID[:, None])) for c in CONTEXTS]
    )
    return density / (density.sum(-1, keepdim=True) * STEP)


def value(density: Tensor) -> float:
    """The expected reward of a policy given as its density [2, grid]."""
    rewards = torch.stack([reward(c.expand(len(GRID), 1), GRID[:, None]) for c in CONTEXTS])
    return (density * rewards).sum(-1).mul(STEP).mean().item()


def expectile(tau: float) -> float:
    """The tau-expectile of the rewards of behaviour actions, by bisection."""
    density, rewards = tilted(torch.ones_like)[1], reward(torch.ones(len(GRID), 1), GRID[:, None])
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        gap = rewards - middle
        balance = (density * torch.where(gap > 0, tau, 1 - tau) * gap).sum()
        low, high = (middle, high) if balance > 0 else (low, middle)
    return low


def transitions(seed: int, size: int = 8000) -> Transitions:
    """Data of the behaviour; every episode is one step long."""
    generator = torch.Generator().manual_seed(seed)
    context = CONTEXTS[torch.randint(2, (size,), generator=generator)]
    arm = ARM * (2.0 * torch.randint(2, (size, 1), generator=generator) - 1)
    action = (arm + SPREAD * torch.randn(size, 1, generator=generator)).clamp(-1, 1)
    observed = reward(context, action) + NOISE * torch.randn(size, generator=generator)
    columns = {"observation": context, "action": action, "reward": observed, "next_observation": context}
    columns["terminated"] = torch.ones(size)
    return Transitions.of({name: column.numpy() for name, column in columns.items()})


def behaviour_std() -> float:
    """The standard deviation of the expected rewards of behaviour actions."""
    density, rewards = tilted(torch.ones_like)[1], reward(torch.ones(len(GRID), 1), GRID[:, None])
    mean = (density * rewards).sum() * STEP
    return math.sqrt((density * (rewards - mean) ** 2).sum().item() * STEP)
