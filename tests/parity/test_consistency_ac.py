"""Consistency-AC is that of its authors' code (Ding and Jin 2024): tests/parity/reference/consistency_ac.py."""

import pytest
import torch

# As their code is Diffusion-QL's but for the actor.
from test_diffusion_ql import assert_played, assert_updates, begun, stepped

from genpolicy.objective.solution_map import grid_time

SMALL = ("algo=consistency_ac", "network.hidden=[16,16,16]", "critic.hidden=[16,16,16]", "algo.gradient_norm=0.2")
SMALL += ("algo.steps=10",)
MORE = {
    "consistency_ac": ("algo.eta=1",),
    "consistency_ac_q_norm": (
        "algo.eta=0.1",
        "solver.steps=5",
        "objective.scaled=false",
        "critic.candidates=10",
        "critic.normalize=true",
    ),
}


@pytest.fixture(params=MORE)
def given(request):
    return begun(request.param, *SMALL, *MORE[request.param])


def update(algorithm, arrays, number: int) -> dict:
    """One step of the phase with the fixture's draws; its metrics."""
    index, intervals = arrays["draw/index"][number], arrays["points"][number].item() - 1
    times = {name: grid_time(algorithm.policy, index + step, intervals) for name, step in (("t", 1), ("u", 0))}
    matching = {"noise": arrays["draw/noise"][number]} | {name: time.double() for name, time in times.items()}
    return stepped(algorithm, arrays, number, matching)


def test_updates_are_theirs(given):
    assert_updates(*given, update)


def test_the_grid_is_theirs(given):
    arrays, algorithm = given
    objective, policy = algorithm.objective, algorithm.policy
    for number, points in enumerate(arrays["points"].tolist()):
        generator = torch.Generator().manual_seed(number)
        times = objective.draw_times(policy, torch.zeros(20_000, 3, dtype=torch.float64), generator, number / 10)
        grid = grid_time(policy, torch.arange(points, dtype=torch.float64), points - 1)
        index = (times["u"][:, None] - grid).abs().argmin(1)
        torch.testing.assert_close(times["u"], grid[index])
        torch.testing.assert_close(times["t"], grid[index + 1])
        share = torch.bincount(index, minlength=points - 1) / 20_000
        assert (share * (points - 1) - 1).abs().max() < 0.5
    objective.cycles = 2
    again = [objective.draw_times(policy, torch.zeros(1, 3), None, at)["t"] for at in (0.0, 0.5)]
    assert again == [1.0, 1.0]  # of a grid of two points


def test_the_action_played_is_theirs(given):
    assert_played(*given, update)
