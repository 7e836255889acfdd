"""Solution maps against exact ones: of Gaussians in closed form, of mixtures by their quantiles."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from solution_map import Mixture
from torch import nn
from torchdiffeq import odeint

from genpolicy.algo.update import imitation
from genpolicy.dataset.transitions import Transitions
from genpolicy.model.path import EDM, GVP, ICFM, OTCFM
from genpolicy.model.trajectory import TrajectoryPolicy
from genpolicy.network.mlp import MLP
from genpolicy.network.residual import TemporalSpatialResidual
from genpolicy.objective.consistency import Consistency
from genpolicy.objective.meanflow import MeanFlow
from genpolicy.objective.shortcut import Shortcut
from genpolicy.objective.solution_map import doubling, grid_time
from genpolicy.objective.trajectory import Trajectory
from genpolicy.solver.adaptive import Dopri5
from genpolicy.solver.fixed import RK4
from genpolicy.solver.jumps import Jumps, Renoise

MIXTURE = Mixture()
MEAN, STD = 0.3, 0.4  # of the Gaussian's coordinates


class Exact(nn.Module):
    """What a perfect network outputs for a solution map, given as (x, sigma_t, sigma_s) -> phi(x, t, s).

    shift [..., A] is added to the output: its gradient is that of the network's output.
    """

    action_size = 2

    def __init__(self, surrogate):
        super().__init__()
        self.surrogate, self.shift = surrogate, nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.path = EDM()

    def forward(self, scaled, times, observation):
        t, s = times.unbind(-1)
        sigma, end = self.path.sigma(t)[:, None], self.path.sigma(s)[:, None]
        variance = 0.25 + sigma**2  # sigma_data = 0.5
        x = scaled * torch.sqrt(variance)
        output = (self.surrogate(x, sigma, end) - 0.25 / variance * x) * torch.sqrt(variance) / (0.5 * sigma)
        return output + self.shift


def of_mixture(x, sigma, end):
    moved, ratio = MIXTURE.move(x, sigma, end), end / sigma
    away = torch.where(ratio < 1, 1 - ratio, 1.0)
    return torch.where(ratio < 1, (moved - ratio * x) / away, MIXTURE.denoised(x, sigma))


def of_gaussian(x, sigma, end):
    # Phi is affine; phi has no singularity at s = t: (sqrt(v + s^2) / sqrt(v + t^2) - s / t) / (1 - s / t)
    late, early = torch.sqrt(STD**2 + sigma**2), torch.sqrt(STD**2 + end**2)
    slope = STD**2 * (sigma + end) / (late * (early * sigma + end * late))
    return MEAN + slope * (x - MEAN)


def policy_of(network, solver=None, **kwargs):
    return TrajectoryPolicy(
        path=EDM(),
        network=network,
        prediction="preconditioned",
        solver=solver or Jumps(),
        likelihood=kwargs.pop("likelihood", RK4(steps=16)),
        **kwargs,
    )


def nothing(size, dtype=torch.float64):
    return torch.zeros(size, 0, dtype=dtype)


def noisy(size, t, seed=0):
    """Points x_t of the mixture."""
    generator = torch.Generator().manual_seed(seed)
    data = MIXTURE.sample(size, generator)
    return data + EDM().sigma(t)[:, None] * torch.randn(data.shape, generator=generator, dtype=torch.float64)


@given(st.floats(0.0, 1.0), st.sampled_from([EDM, GVP]))
def test_a_jump_to_the_same_time_is_no_jump(time, path):
    torch.manual_seed(0)
    network = MLP(hidden=[16], action_size=2, observation_size=1, num_times=2)
    policy = TrajectoryPolicy(
        path=path(), network=network, prediction="preconditioned", solver=Jumps(), likelihood=RK4(steps=4)
    )
    x, t = 10 * torch.randn(5, 2), torch.full((5,), max(time, policy.path.t_min))
    assert torch.equal(policy.jump(x, t, t, torch.randn(5, 1)), x)


def test_the_surrogate_is_the_mean_direction_of_the_flow():
    # phi = x_t + t / (t - s) * the integral of the field from t to s (eq. 3), by torchdiffeq
    path, t, s = EDM(), torch.full((64,), 0.7, dtype=torch.float64), torch.full((64,), 0.2, dtype=torch.float64)
    x, policy = noisy(64, t), policy_of(Exact(of_mixture))
    sigma, end = path.sigma(t)[0], path.sigma(s)[0]
    solved = odeint(
        lambda level, point: (point - MIXTURE.denoised(point, level)) / level,
        x,
        torch.stack([sigma, end]),
        rtol=1e-9,
        atol=1e-9,
    )[-1]
    expected = x + sigma / (sigma - end) * (solved - x)
    torch.testing.assert_close(policy.surrogate(x, t, s, nothing(64)), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(policy.jump(x, t, s, nothing(64)), solved, atol=1e-6, rtol=0)


def test_exact_jumps_compose():
    t, u, s = (torch.full((64,), value, dtype=torch.float64) for value in (0.9, 0.5, 0.1))
    x, policy = noisy(64, t), policy_of(Exact(of_mixture))
    there = policy.jump(policy.jump(x, t, u, nothing(64)), u, s, nothing(64))
    torch.testing.assert_close(there, policy.jump(x, t, s, nothing(64)), atol=1e-9, rtol=0)


def test_the_surrogate_tends_to_the_denoiser():
    t = torch.linspace(0.1, 1.0, 64, dtype=torch.float64)
    x, policy = noisy(64, t), policy_of(Exact(of_mixture))
    gaps = [
        (policy.surrogate(x, t, t - step, nothing(64)) - policy.data(x, t, nothing(64))).abs().max()
        for step in (1e-2, 1e-3)
    ]
    assert gaps[1] < 1e-2
    assert (gaps[1] / gaps[0]).item() == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize("solver", [Jumps(steps=1), Jumps(steps=2), Jumps(steps=7, power=3.0), Renoise(steps=1)])
def test_any_number_of_jumps_follows_the_exact_map(solver):
    policy = policy_of(Exact(of_mixture), solver)
    noise = torch.randn(256, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = MIXTURE.move(80 * noise, torch.tensor(80.0).double(), torch.tensor(0.002).double())
    torch.testing.assert_close(policy.sample(nothing(256), noise=noise), exact, atol=1e-6, rtol=0)


def test_multistep_consistency_samples_follow_the_data():
    policy = policy_of(Exact(of_mixture), Renoise(steps=3, lowest=0.5))
    samples = policy.sample(nothing(4000), torch.Generator().manual_seed(0)).detach()
    assert policy.draw_noise(7, None, samples).shape == (7, 3, 2)
    # the noise at sigma = 80 is not quite that of x_80, so the shares of the modes are off by 1e-3
    assert (samples > 0).double().mean().item() == pytest.approx(0.5, abs=0.03)
    assert (samples.abs() - 0.6).std().item() == pytest.approx(0.15, rel=0.05)


@pytest.mark.parametrize(("path", "highest"), [(EDM(), 80.0), (ICFM(t_min=0.0), math.inf), (GVP(), math.inf)])
@pytest.mark.parametrize("sigma_data", [0.3, 0.5, 1.0])
def test_noise_levels_of_consistency_samples_fall_linearly_from_80(path, highest, sigma_data):
    network = MLP(hidden=[8], action_size=2, observation_size=0, num_times=2).double()
    more = {"prediction": "preconditioned", "likelihood": RK4(), "sigma_data": sigma_data}
    policy = TrajectoryPolicy(path=path, network=network, solver=Renoise(steps=4, lowest=0.5), **more)
    angles, noise = [], torch.randn(8, 4, 2, dtype=torch.float64)
    flow = replace(policy.flow(nothing(8)), solution=lambda y, between: angles.append(between[0]) or y)
    policy.solver.sample(flow, noise[:, 0], noise[:, 1:])
    assert angles[0] == pytest.approx(math.atan2(highest, sigma_data))
    levels = [sigma_data * math.tan(angle) for angle in angles[1:]]
    assert levels == pytest.approx([80 - 79.5 / 3, 80 - 2 * 79.5 / 3, 0.5])


def test_a_trajectory_policy_has_the_density_of_its_instantaneous_map():
    policy = policy_of(Exact(of_mixture), likelihood=Dopri5(rtol=1e-6, atol=1e-6))
    action = MIXTURE.sample(64, torch.Generator().manual_seed(0))
    components = torch.distributions.Normal(MIXTURE.means, math.hypot(MIXTURE.std, 0.002))
    exact = components.log_prob(action[..., None]).logsumexp(-1) - math.log(2)
    torch.testing.assert_close(policy.log_prob(nothing(64), action), exact.sum(-1), atol=2e-3, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "tolerance"),
    [
        (Trajectory(target="heun", first_intervals=40, last_intervals=40), 2e-3),
        (Trajectory(target="euler", target_steps=3, first_intervals=160, last_intervals=160), 5e-3),
        (Trajectory(), 2e-3),
        (Consistency(), 5e-3),
        (Consistency(improved=True), 1e-3),
        (Shortcut(intervals=1024, bootstrap=0.9), 3e-3),
        (MeanFlow(instantaneous=0.5, power=0.0), 1e-4),  # an adaptive weight moves the optimum, as its authors know
    ],
    ids=str,
)
def test_the_exact_map_is_stationary(objective, tolerance):
    # The mean gradient with respect to the network's output is zero at the exact map of a Gaussian, up to the bias of
    # the objective's grid (tolerance) and the noise of the draws.
    size = 200_000
    network = Exact(of_gaussian)
    policy = policy_of(network)
    if objective.uses_target:
        policy.keep_average()
    network.shift = nn.Parameter(torch.zeros(size, 2, dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    action = MEAN + STD * torch.randn(size, 2, generator=generator, dtype=torch.float64)
    draws = objective.draw(policy, nothing(size), action, generator)
    if isinstance(objective, Trajectory):  # whose loss evaluates the network twice a sample
        network.shift = nn.Parameter(torch.zeros(2 * size, 2, dtype=torch.float64))
    loss = objective.loss(policy, nothing(size), action, draws)
    (gradient,) = torch.autograd.grad(loss.sum(), network.shift)
    scale = gradient.square().mean().sqrt()
    mean, error = gradient.mean(0) / scale, gradient.std(0) / scale / math.sqrt(len(gradient))
    assert scale > 1e-6
    assert ((mean.abs() - 4 * error) < tolerance).all(), mean


@pytest.mark.parametrize(
    "objective",
    [
        Trajectory(),
        Trajectory(target="heun"),
        Consistency(),
        Consistency(improved=True),
        Shortcut(intervals=4, bootstrap=0.5),
    ],
    ids=str,
)
def test_a_path_may_end_without_noise(objective):
    torch.manual_seed(0)
    network = MLP(hidden=[8], action_size=2, observation_size=0, num_times=2)
    action, losses = torch.linspace(-1, 1, 128).view(64, 2), []
    for t_min in (0.0, 1e-7):
        policy = TrajectoryPolicy(
            path=ICFM(t_min=t_min), network=network, prediction="preconditioned", solver=Jumps(), likelihood=RK4()
        )
        policy.keep_average()
        generator = torch.Generator().manual_seed(0)
        draws = objective.draw(policy, nothing(64, torch.float32), action, generator, progress=0.0)
        losses.append(objective.loss(policy, nothing(64, torch.float32), action, draws))
    assert (draws["s" if "s" in draws else "u"] < 1e-6).any()
    torch.testing.assert_close(*losses, atol=1e-4, rtol=0)


def test_the_grid_is_karras_and_doubles():
    policy = policy_of(MLP(hidden=[8], action_size=2, observation_size=0, num_times=2))
    i = torch.arange(41, dtype=torch.float64)
    karras = (0.002 ** (1 / 7) + i / 40 * (80 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7
    torch.testing.assert_close(policy.path.sigma(grid_time(policy, i, 40)), karras)
    total, seen = 80_000, []
    for step in range(0, total, 100):
        block = total // (math.floor(math.log2(1280 // 10)) + 1)  # Song and Dhariwal 2024, eq. 9
        assert doubling(step / total, 10, 1280) == min(10 * 2 ** (step // block), 1280)
        seen.append(doubling(step / total, 10, 1280))
    assert sorted(set(seen)) == [10, 20, 40, 80, 160, 320, 640, 1280]
    assert {doubling(step / 10, 40, 40) for step in range(11)} == {40}


@pytest.mark.parametrize("objective", [Trajectory(), Consistency(), Consistency(improved=True), Shortcut(), MeanFlow()])
@given(st.floats(0.0, 1.0), st.integers(0, 1000))
def test_times_are_ordered_and_on_the_path(objective, progress, seed):
    policy = policy_of(MLP(hidden=[8], action_size=2, observation_size=0, num_times=2))
    action = torch.zeros(64, 2)
    draws = objective.draw(policy, nothing(64, torch.float32), action, torch.Generator().manual_seed(seed), progress)
    t, s = draws["t"], draws.get("s", draws.get("u"))
    u = draws.get("u", s)
    assert (policy.path.t_min <= s).all()
    assert (s <= u + 1e-6).all()
    assert (u <= t + 1e-6).all()
    assert (t <= policy.t_max).all()
    assert (t > 0).all()
    assert draws["noise"].shape == action.shape


def test_improved_consistency_draws_lognormal_noise_levels():
    policy, path = policy_of(MLP(hidden=[8], action_size=2, observation_size=0, num_times=2)), EDM()
    draws = Consistency(improved=True).draw(
        policy, nothing(200_000), torch.zeros(200_000, 2), torch.Generator().manual_seed(0)
    )
    sigma = path.sigma(draws["u"].double()).log()
    low, high = norm.cdf([math.log(0.002), math.log(80)], -1.1, 2.0)
    for level in (-4.0, -2.0, 0.0, 2.0):
        expected = (norm.cdf(level, -1.1, 2.0) - low) / (high - low)
        assert (sigma < level).double().mean().item() == pytest.approx(expected, abs=0.01)


def test_shortcuts_cover_all_lengths_and_their_halves_meet():
    policy = policy_of(MLP(hidden=[8], action_size=2, observation_size=0, num_times=2))
    draws = Shortcut(intervals=16, bootstrap=0.5).draw(
        policy, nothing(20_000), torch.zeros(20_000, 2), torch.Generator().manual_seed(0)
    )
    t, u, s = (16 * draws[name] for name in "tus")
    torch.testing.assert_close(t - u, u - s)
    lengths, counts = (t - s).round().unique(return_counts=True)
    assert lengths.tolist() == [0, 2, 4, 8, 16]
    assert (counts / 20_000).tolist() == pytest.approx([0.5, 0.125, 0.125, 0.125, 0.125], abs=0.02)
    assert ((t / (t - s).clamp(min=1)).frac().abs() < 1e-4).all()  # multiples of their own length


def test_the_target_follows_the_network():
    torch.manual_seed(0)
    policy = policy_of(MLP(hidden=[8], action_size=2, observation_size=0, num_times=2), target_rate=0.25)
    policy.keep_average()
    before = policy.target.network.layers[0].weight.clone()
    with torch.no_grad():
        policy.network.layers[0].weight += 1
    policy.update_target()
    torch.testing.assert_close(policy.target.network.layers[0].weight, before + 0.25)
    assert not any(parameter.requires_grad for parameter in policy.target.parameters())


def steps_error(intervals: int, heun: bool) -> float:
    """The relative error of so many denoiser steps from noise to the data of a centred Gaussian, all of them linear."""
    level = EDM().sigma(torch.arange(intervals + 1, dtype=torch.float64) / intervals).tolist()
    denoiser = [STD**2 / (STD**2 + sigma**2) for sigma in level]
    slope = 1.0
    for i in range(intervals, 0, -1):
        ratio = level[i - 1] / level[i]
        step = ratio + (1 - ratio) * denoiser[i]
        if heun:
            step = ratio + (1 - ratio) * 0.5 * (denoiser[i] + step * denoiser[i - 1])
        slope *= step
    return slope / math.sqrt((STD**2 + level[0] ** 2) / (STD**2 + level[-1] ** 2)) - 1


LEARNED = [
    (Trajectory(target="heun", first_intervals=10, last_intervals=10), True),
    (Trajectory(first_intervals=12, last_intervals=12), False),
    (Shortcut(intervals=8), False),
]


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "heun"), LEARNED, ids=str)
def test_what_is_learned_for_a_gaussian_is_the_chain_of_the_grid_s_steps(objective, heun):
    """With one seed; `tests/acceptance/closed_forms.py` has more."""
    assert_learned(objective, heun, 0)


def assert_learned(objective, heun, seed):
    # The minimiser's one jump is as far from the exact map as all the grid's steps are: 13, 21 and 31 %.
    torch.manual_seed(seed)
    network = MLP(hidden=[64, 64], action_size=2, observation_size=0, num_times=2)
    policy = policy_of(network, target_rate=0.2)
    if objective.uses_target:
        policy.keep_average()
    generator = torch.Generator().manual_seed(seed)
    size, steps, lr = 50_000, 1200, 3e-3
    action = MEAN + STD * torch.randn(size, 2, generator=generator)
    columns = {"observation": nothing(size, torch.float32), "action": action, "reward": torch.zeros(size)}
    columns |= {"next_observation": columns["observation"], "terminated": torch.ones(size)}
    data = Transitions.of({name: column.numpy() for name, column in columns.items()})
    update = imitation(policy, objective, lr, schedule="cosine")
    for step in range(steps):
        update(data.sample(256, generator), generator, step / steps)
    noise = torch.randn(4000, 2, generator=generator)
    policy.solver = Jumps(steps=1)
    samples = policy.sample(nothing(4000, torch.float32), noise=noise).detach()
    intervals = objective.intervals if isinstance(objective, Shortcut) else objective.last_intervals
    error, allowed = (samples - (MEAN + STD * noise)) / STD, steps_error(intervals, heun)
    assert error.square().mean().sqrt().item() == pytest.approx(abs(allowed), rel=0.4)
    assert (error * noise).mean().item() == pytest.approx(allowed, abs=0.08)  # too wide or too narrow alike


def test_the_residual_network_takes_two_times():
    torch.manual_seed(0)
    network = TemporalSpatialResidual(hidden=[32, 16], action_size=2, observation_size=3, num_times=2)
    policy = policy_of(network)
    t, s = torch.full((5,), 0.8), torch.full((5,), 0.3)
    x, observation = torch.randn(5, 2), torch.randn(5, 3)
    here, there = policy.surrogate(x, t, t, observation), policy.surrogate(x, t, s, observation)
    assert here.shape == (5, 2)
    assert not torch.allclose(here, there)
    torch.testing.assert_close(here, policy.data(x, t, observation))


@pytest.mark.parametrize("objective", [Trajectory(), Consistency(), MeanFlow(), Shortcut()], ids=type)
def test_noise_is_paired_with_actions_as_the_path_says(objective):
    network = MLP(action_size=2, observation_size=0, num_times=2)
    policy = TrajectoryPolicy(path=OTCFM(), network=network, prediction="data", solver=Jumps(), likelihood=RK4())
    generator = torch.Generator().manual_seed(0)
    action = torch.randn(128, 2, generator=generator)
    noise = objective.draw(policy, torch.zeros(128, 0), action, generator)["noise"]
    assert (action * noise).mean() > 0.5
