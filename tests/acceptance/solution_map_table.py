"""How far learned solution maps are from the exact one of a two-dimensional mixture of four Gaussians.

    python tests/acceptance/solution_map_table.py [UPDATES]

prints, for each objective and grid, the root mean square error of the jump from pure noise, and over all pairs of grid
times t > s, in per cent of the data's standard deviation. Beside it stands what the objective's own minimiser has, with
an infinitely capable network (found by solving its recursion in one dimension by quadrature).
"""

import math
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from solution_map import Mixture

from genpolicy.algo.update import imitation
from genpolicy.dataset.transitions import Transitions
from genpolicy.model.path import EDM
from genpolicy.model.trajectory import TrajectoryPolicy
from genpolicy.network.mlp import MLP
from genpolicy.objective.consistency import Consistency
from genpolicy.objective.shortcut import Shortcut
from genpolicy.objective.trajectory import Trajectory
from genpolicy.solver.fixed import RK4
from genpolicy.solver.jumps import Jumps

BATCH, LR, RATE = 512, 1e-3, 0.05
mixture = Mixture()


def make(objective, seed=0) -> TrajectoryPolicy:
    torch.manual_seed(seed)
    policy = TrajectoryPolicy(
        path=EDM(),
        network=MLP(hidden=[256, 256, 256], action_size=2, observation_size=0, num_times=2),
        prediction=objective.prediction,
        solver=Jumps(),
        likelihood=RK4(steps=16),
        target_rate=RATE,
    )
    if objective.uses_target:
        policy.keep_average()
    return policy


def train(policy, objective, updates: int, seed=0) -> float:
    """The learning rate is annealed to zero; seconds used."""
    generator = torch.Generator().manual_seed(seed)
    update = imitation(policy, objective, LR, schedule="cosine")
    begin = time.perf_counter()
    for step in range(updates):
        action = mixture.sample(BATCH, generator).float()
        nothing = torch.zeros(BATCH, 0)
        batch = Transitions.of(
            {
                "observation": nothing.numpy(),
                "action": action.numpy(),
                "reward": torch.zeros(BATCH).numpy(),
                "next_observation": nothing.numpy(),
                "terminated": torch.ones(BATCH).numpy(),
            }
        )
        update(batch, generator, step / updates)
    return time.perf_counter() - begin


@torch.no_grad()
def errors(policy, intervals=40, count=200) -> tuple[float, float]:
    """Of the jump from t = 1, and over t > s on a grid of `intervals`, in per cent of the data's std."""
    generator = torch.Generator().manual_seed(12345)
    grid = torch.arange(intervals + 1, dtype=torch.float64) / intervals
    index = torch.tensor([(i, j) for i in range(1, intervals + 1) for j in range(i)]).repeat_interleave(count, 0)
    t, s = grid[index[:, 0]], grid[index[:, 1]]
    mean = rms(policy, t, s, generator)
    return rms(
        policy, torch.ones(20_000, dtype=torch.float64), torch.zeros(20_000, dtype=torch.float64), generator
    ), mean


def rms(policy, t, s, generator) -> float:
    """The root mean square error of Phi(x_t, t, s), in per cent of the data's std."""
    sigma, sigma_end = policy.path.sigma(t)[:, None], policy.path.sigma(s)[:, None]
    x = mixture.sample(len(t), generator)
    x = x + sigma * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    exact = mixture.move(x, sigma, sigma_end)
    learned = policy.jump(x.float(), t.float(), s.float(), torch.zeros(len(x), 0)).double()
    return 100 * (learned - exact).square().mean().sqrt().item() / mixture.data_std


def minimiser(intervals: int, target: str, nodes=1500, quadrature=48) -> tuple[float, float]:
    """The same errors of the map that minimises the trajectory objective on a fixed grid, in one dimension.

    Phi_i(x, j) = E[Phi_{i-1}(x_u, j) | x_t = x] for grid times j < i, from Phi_j(x, j) = x upwards; with a denoiser's
    step for x_u there is nothing to average.
    """
    path = EDM()
    sigma = path.sigma(torch.arange(intervals + 1, dtype=torch.float64) / intervals)
    unit, weights = (torch.from_numpy(a) for a in __import__("numpy").polynomial.hermite_e.hermegauss(quadrature))
    weights = weights / weights.sum()
    spread = torch.sqrt(mixture.std**2 + sigma**2)
    line = torch.linspace(-1, 1, nodes, dtype=torch.float64)
    points = [line.sign() * (mixture.means.abs().max() + 6 * s) * line.abs() ** 1.5 for s in spread]
    maps = [points[0][None]]  # maps[i][j]: Phi(points[i], sigma_i, sigma_j), j <= i
    for i in range(1, intervals + 1):
        x, ratio = points[i], sigma[i - 1] / sigma[i]
        if target == "closed_form":
            # x_0 given x: a mixture of Gaussians
            variance = mixture.std**2 * sigma[i] ** 2 / (mixture.std**2 + sigma[i] ** 2)
            gap = x[:, None] - mixture.means
            share = torch.softmax(-0.5 * gap.square() / spread[i] ** 2, -1)
            centre = mixture.means + mixture.std**2 / spread[i] ** 2 * gap
            data = centre[..., None] + variance.sqrt() * unit
            earlier, chance = (ratio * x[:, None, None] + (1 - ratio) * data), share[..., None] * weights
        else:
            data = mixture.denoised(x, sigma[i])
            earlier = ratio * x + (1 - ratio) * data
            if target == "heun":
                data = 0.5 * (data + mixture.denoised(earlier, sigma[i - 1]))
                earlier = ratio * x + (1 - ratio) * data
            earlier, chance = earlier[:, None, None], torch.ones(nodes, 1, 1, dtype=torch.float64)
        before = interpolate(earlier, points[i - 1], maps[i - 1])
        maps.append(torch.cat([(before * chance).sum((-1, -2)), x[None]]))
    squared, jump = [], 0.0
    for i in range(1, intervals + 1):
        x = points[i]
        gaps = torch.gradient(x)[0]
        density = torch.exp(-0.5 * ((x[:, None] - mixture.means) / spread[i]) ** 2).mean(-1) * gaps
        density = density / density.sum()
        for j in range(i):
            error = (density * (maps[i][j] - mixture.move(x, sigma[i], sigma[j])).square()).sum()
            squared.append(error)
            jump = error if (i, j) == (intervals, 0) else jump
    return tuple(100 * math.sqrt(value) / mixture.data_std for value in (jump, sum(squared) / len(squared)))


def interpolate(x, points, values):
    """Each row of values [J, nodes] at x [...], linearly: [J, ...]."""
    place = torch.searchsorted(points, x.contiguous()).clamp(1, len(points) - 1)
    low, high = points[place - 1], points[place]
    share = ((x - low) / (high - low)).clamp(0, 1)
    return values[:, place - 1] * (1 - share) + values[:, place] * share


def main(updates: int) -> None:
    torch.set_num_threads(1)
    print(f"{updates} updates of {BATCH}; error in % of the data's std: jump from noise, mean over t > s", flush=True)
    for target, grids in {"closed_form": (10, 20, 40, 80), "euler": (20, 40), "heun": (20, 40)}.items():
        for intervals in grids:
            objective = Trajectory(target=target, first_intervals=intervals, last_intervals=intervals)
            report(f"trajectory {target} N={intervals}", objective, updates, minimiser(intervals, target))
    for objective in (
        Trajectory(),
        Trajectory(target="heun"),
        Consistency(),
        Consistency(improved=True),
        Shortcut(),
    ):
        report(str(objective), objective, updates, None)


def report(name, objective, updates, allowed) -> None:
    policy = make(objective)
    seconds = train(policy, objective, updates)
    jump, mean = errors(policy)
    beside = "" if allowed is None else f"   minimiser {allowed[0]:5.1f} {allowed[1]:5.1f}"
    print(f"{jump:6.1f} {mean:6.1f}{beside}   {seconds:4.0f} s   {name}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
