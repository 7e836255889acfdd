"""Consistency-AC is that of its authors' code (Ding and Jin 2024): tests/parity/reference/consistency_ac.py."""

import pytest
import torch
from parity import batches, made, put
from parity_torch import assert_moved, choosing, doubles, sampling_from, tossing
from test_diffusion_ql import weights  # the networks are Diffusion-QL's

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
    about, arrays = doubles(request.param)
    algorithm = made(*SMALL, *MORE[request.param])
    put(algorithm, weights(arrays, 0))
    [phase] = algorithm.phases
    phase.updates["actor"].count = about["settings"]["start"]
    return arrays, algorithm


def update(algorithm, arrays, number: int) -> dict:
    """One step of the phase with the fixture's draws; its metrics."""
    [phase] = algorithm.phases
    index, intervals = arrays["draw/index"][number], arrays["points"][number].item() - 1
    times = {name: grid_time(algorithm.policy, index + step, intervals) for name, step in (("t", 1), ("u", 0))}
    matching = {"noise": arrays["draw/noise"][number]} | {name: time.double() for name, time in times.items()}
    algorithm.objective.draw = lambda *given: matching
    noises = arrays["draw/next_noise"][number], arrays["draw/action_noise"][number]
    with sampling_from(*noises), tossing(arrays["draw/coin"][number]):
        return phase.update(batches(arrays)[number], torch.Generator(), number)


def test_updates_are_theirs(given):
    arrays, algorithm = given
    initial = weights(arrays, 0)
    for number in range(10):
        metrics = update(algorithm, arrays, number)
        theirs = {"actor_loss": "actor_loss", "actor_matching": "bc_loss", "critic_loss": "critic_loss"}
        if number == 0:
            theirs |= {"critic_target": "Target_Q Mean", "critic_gradient": "Critic Grad Norm"}
            theirs |= {"actor_gradient": "Actor Grad Norm"}
        for ours, name in theirs.items():
            value = arrays[f"info/{name}"]
            value = value[number] if value.dim() else value
            torch.testing.assert_close(metrics[ours], value, rtol=1e-5, atol=0, msg=lambda m, n=ours: f"{n}: {m}")
        if number in (0, 9):
            assert_moved(algorithm, initial, weights(arrays, number + 1))


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
    arrays, algorithm = given
    for number in range(10):
        update(algorithm, arrays, number)
    with sampling_from(arrays["draw/candidates"]), choosing(7) as draw:
        action = algorithm.act(arrays["batch/observations"][0, :1], torch.Generator())
    torch.testing.assert_close(action[0], arrays["act"])
    torch.testing.assert_close(draw.call_args.args[0][0], arrays["chances"], rtol=1e-6, atol=0)
