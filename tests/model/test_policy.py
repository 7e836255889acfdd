"""Samples and log-likelihoods of policies whose exact prediction is known in closed form, in float64."""

import copy
import functools
import math

import pytest
import torch
from gaussian import PATHS, GaussianNetwork, MixtureNetwork, exact_end, make_policy

from genpolicy.model.direct import GaussianPolicy
from genpolicy.model.flow import exact_divergence, hutchinson_divergence, rademacher
from genpolicy.model.path import GVP, ICFM, VPSDE
from genpolicy.network.mlp import MLP
from genpolicy.objective.edm import EDMDenoising
from genpolicy.objective.flow_matching import FlowMatching
from genpolicy.solver.adaptive import Dopri5
from genpolicy.solver.exponential import DPMSolver, ReverseSDE, SinglestepDPM
from genpolicy.solver.fixed import AB2, RK4, Euler, Heun, Midpoint

MEAN = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
COVARIANCE = torch.diag(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)) ** 2
GAUSSIAN = torch.distributions.MultivariateNormal(MEAN, COVARIANCE)
EVERY_PATH = ["vpsde", "gvp", "icfm", "edm"]


def policy_of(name, prediction="velocity", **kwargs):
    path = PATHS[name]()
    return make_policy(path, GaussianNetwork(path, MEAN, COVARIANCE, prediction), prediction=prediction, **kwargs)


def nothing(size):
    return torch.zeros(size, 0, dtype=torch.float64)


def actions(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        MEAN + torch.randn(size, 3, generator=generator, dtype=torch.float64) @ COVARIANCE.sqrt()
    )  # the covariance is diagonal


@pytest.mark.parametrize("name", EVERY_PATH)
def test_log_prob_of_a_gaussian_is_the_closed_form(name):
    policy, action = policy_of(name), actions(256)
    with exact_end(policy.path, MEAN, COVARIANCE):
        found = policy.log_prob(nothing(256), action)
    assert (found - GAUSSIAN.log_prob(action)).abs().mean() < 1e-4


@pytest.mark.parametrize("name", EVERY_PATH)
def test_log_prob_with_the_standard_prior_and_the_default_likelihood_solver(name):
    # The paths that do not end in pure noise are off by alpha(1) / sigma(1) times the mean, 0.01 at the most.
    policy, action = policy_of(name, likelihood=RK4(steps=16)), actions(256)
    found = policy.log_prob(nothing(256), action)
    assert (found - GAUSSIAN.log_prob(action)).abs().mean() < 5e-3


@pytest.mark.slow
@pytest.mark.parametrize("prediction", ["score", "noise", "data"])
@pytest.mark.parametrize("name", EVERY_PATH)
def test_log_prob_does_not_depend_on_what_the_network_predicts(name, prediction):
    policy, action = policy_of(name, prediction), actions(64)
    found = policy.log_prob(nothing(64), action)
    assert (found - policy_of(name).log_prob(nothing(64), action)).abs().mean() < 5e-3


@functools.cache
def tight(name):
    return policy_of(name, likelihood=Dopri5(rtol=1e-10, atol=1e-10)).log_prob(nothing(64), actions(64))


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY_PATH)
@pytest.mark.parametrize(("scheme", "order"), [(Euler, 1), (Heun, 2), (Midpoint, 2), (AB2, 2), (RK4, 4)])
def test_fixed_step_schemes_have_their_order(name, scheme, order):
    policy, action, reference = policy_of(name), actions(64), tight(name)
    steps = (8, 16) if order == 4 else (32, 64)
    errors = [
        (policy.log_prob(nothing(64), action, solver=scheme(steps=n)) - reference).abs().mean().item() for n in steps
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, rel=0.3)


@pytest.mark.parametrize("name", EVERY_PATH)
def test_hutchinson_is_unbiased(name):
    draws = 4096
    policy = policy_of(name, divergence="hutchinson")
    flow, angle = policy.flow(nothing(draws)), torch.tensor(0.7, dtype=torch.float64)
    # A field whose Jacobian is not diagonal: rotate, flow, and shear.
    mixing = torch.tensor([[1.0, 0.5, 0.2], [-0.3, 1.0, 0.4], [0.1, -0.6, 1.0]], dtype=torch.float64)
    field = lambda time, y: torch.tanh(flow.field(time, y @ mixing)) @ mixing  # noqa: E731
    point = actions(1).expand(draws, 3)
    _, exact = exact_divergence(field, angle, point)
    probe = rademacher(point.shape, torch.Generator().manual_seed(0), point)
    _, estimates = hutchinson_divergence(field, probe)(angle, point)
    assert estimates.std() > 0
    assert abs(estimates.mean() - exact[0]) < 4 * estimates.std() / math.sqrt(draws)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY_PATH)
def test_an_estimated_divergence_gives_the_closed_form_on_average(name):
    path, draws = PATHS[name](), 4096
    covariance = torch.tensor([[0.25, 0.15, -0.1], [0.15, 0.2, 0.05], [-0.1, 0.05, 0.3]], dtype=torch.float64)
    policy = make_policy(path, GaussianNetwork(path, MEAN, covariance), likelihood=RK4(steps=32))
    action = actions(1).expand(draws, 3)
    with exact_end(path, MEAN, covariance):
        how, generator = policy.coarser_likelihoods()["hutchinson"], torch.Generator().manual_seed(0)
        estimates = policy.log_prob(nothing(draws), action, generator, **how)
        exact = policy.log_prob(nothing(2), action[:2])
    stderr = estimates.std() / math.sqrt(draws)
    expected = torch.distributions.MultivariateNormal(MEAN, covariance).log_prob(action[0])
    assert estimates.std() > 0.05
    assert abs(estimates.mean() - expected) < 4 * stderr
    torch.testing.assert_close(exact, expected.expand(2), rtol=0, atol=1e-3)  # as before


def test_an_estimate_is_none_where_it_would_say_the_same():
    path = PATHS["gvp"]()
    one = GaussianNetwork(path, MEAN[:1], COVARIANCE[:1, :1])
    for policy in (make_policy(path, one), policy_of("gvp", divergence="hutchinson")):
        assert "hutchinson" not in policy.coarser_likelihoods()
    direct = GaussianPolicy(
        network=MLP(hidden=[4], action_size=3, observation_size=0, num_times=0),
        action_low=-torch.ones(3),
        action_high=torch.ones(3),
        log_std_min=-5.0,
        log_std_max=2.0,
    )
    assert direct.coarser_likelihoods() == {}


def test_exact_divergence_is_the_trace_of_the_jacobian():
    network = MLP(hidden=[16], action_size=4, observation_size=2).double()
    observation, y = torch.randn(5, 2, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    field = lambda t, x: network(x, t.expand(len(x)), observation)  # noqa: E731
    time = torch.tensor(0.3, dtype=torch.float64)
    value, divergence = exact_divergence(field, time, y)
    jacobian = torch.autograd.functional.jacobian(lambda x: field(time, x), y)
    expected = torch.stack([jacobian[b, :, b, :].trace() for b in range(5)])
    torch.testing.assert_close(divergence, expected)
    torch.testing.assert_close(value, field(time, y))


@pytest.mark.parametrize("solver", [RK4(steps=8), Dopri5(rtol=1e-6, atol=1e-6)])
def test_gradient_of_the_log_prob_agrees_with_finite_differences(solver):
    torch.manual_seed(0)
    path = PATHS["gvp"]()
    network = MLP(hidden=[32, 32], action_size=2, observation_size=1).double()
    policy = make_policy(path, network, likelihood=solver)
    observation = torch.randn(3, 1, dtype=torch.float64)
    action = torch.randn(3, 2, dtype=torch.float64).requires_grad_()
    parameter = network.layers[2].weight
    by_action, by_parameter = torch.autograd.grad(policy.log_prob(observation, action).sum(), [action, parameter])
    step = 1e-5
    with torch.no_grad():
        for index in range(2):
            shift = step * torch.eye(2, dtype=torch.float64)[index]
            change = policy.log_prob(observation, action + shift) - policy.log_prob(observation, action - shift)
            torch.testing.assert_close(by_action[:, index], change / (2 * step), rtol=1e-3, atol=1e-4)
        values = []
        for sign in (1, -1):
            parameter[3, 5] += sign * step
            values.append(policy.log_prob(observation, action).sum())
            parameter[3, 5] -= sign * step
    torch.testing.assert_close(by_parameter[3, 5], (values[0] - values[1]) / (2 * step), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_adjoint_gives_the_gradients_of_backpropagation():
    torch.manual_seed(0)
    network = MLP(hidden=[16], action_size=2, observation_size=1).double()
    observation, noise = torch.randn(4, 1, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    gradients = []
    for adjoint in (False, True):
        solver = Dopri5(rtol=1e-8, atol=1e-8, adjoint=adjoint)
        policy = make_policy(PATHS["gvp"](), network, solver=solver)
        loss = policy.sample(observation, noise=noise).square().sum()
        gradients.append(torch.autograd.grad(loss, list(network.parameters())))
    for direct, adjoint in zip(*gradients, strict=True):
        torch.testing.assert_close(direct, adjoint, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scheme", [Euler, Heun, Midpoint, RK4])
def test_recomputed_steps_have_the_gradients_of_kept_ones_and_keep_one_state_each(scheme):
    torch.manual_seed(0)
    network = MLP(hidden=[16], action_size=2, observation_size=1).double()
    noise = torch.randn(4, 2, dtype=torch.float64)
    observation = torch.linspace(-1, 1, 4, dtype=torch.float64)[:, None].requires_grad_()
    gradients = []
    for recompute in (False, True):
        policy = make_policy(PATHS["gvp"](), network, solver=scheme(steps=5, recompute=recompute))
        action, log_prob = policy.sample_with_log_prob(observation, noise=noise)
        loss = (action.sin().sum(-1) * log_prob).sum()
        gradients.append(torch.autograd.grad(loss, [observation, *network.parameters()]))
    torch.testing.assert_close(*gradients)

    def kept(steps):
        policy.solver.steps, found = steps, {}
        keep = lambda tensor: found.setdefault(tensor.data_ptr(), tensor)  # noqa: E731, kept alive: no address twice
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            policy.sample(observation, noise=noise)
        return len(found)

    assert kept(20) - kept(5) == 15


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY_PATH)
@pytest.mark.parametrize("solver", [Midpoint(steps=64), AB2(steps=64), Dopri5(rtol=1e-8, atol=1e-8)])
def test_the_gradient_of_the_log_density_is_the_score_of_the_data(name, solver):
    policy, action = policy_of(name), actions(64)
    value, gradient = policy.log_prob_and_gradient(nothing(64), action, solver)
    torch.testing.assert_close(value, policy.log_prob(nothing(64), action, solver=solver))
    score = (MEAN - action) @ COVARIANCE.inverse()
    # VP and EDM do not end in pure noise.
    assert (gradient - score).norm() / score.norm() < 0.02


def test_the_gradient_of_the_log_density_is_that_of_its_own_solve():
    torch.manual_seed(0)
    network = MLP(hidden=[16], action_size=2, observation_size=1).double()
    policy = make_policy(PATHS["vpsde"](), network, divergence="hutchinson")
    observation, action = torch.randn(4, 1, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    probe = rademacher(action.shape, None, action)
    for solver in (Euler(steps=3), Midpoint(steps=3), RK4(steps=2)):
        point = action.clone().requires_grad_()
        value = policy.log_prob(observation, point, solver=solver, probe=probe)
        found = policy.log_prob_and_gradient(observation, action, solver, probe)
        torch.testing.assert_close(found, (value.detach(), torch.autograd.grad(value.sum(), point)[0]))


@pytest.mark.parametrize("name", EVERY_PATH)
@pytest.mark.parametrize(
    ("solver", "tolerance"),
    [
        (Midpoint(steps=16), 2e-3),
        (AB2(steps=32), 2e-3),
        (RK4(steps=8), 2e-3),
        (Heun(steps=32), 2e-3),
        (Euler(steps=256), 5e-3),
        (Dopri5(), 2e-3),
        (DPMSolver(steps=64), 2e-3),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, float) else "",
)
def test_samples_follow_the_exact_flow_map(name, solver, tolerance):
    # From N(0, I) the flow to a Gaussian is affine: noise -> mean + std noise.
    policy = policy_of(name, solver=solver)
    noise = torch.randn(256, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = policy.sample(nothing(256), noise=noise)
    exact = MEAN + noise @ COVARIANCE.sqrt()
    # VP and EDM do not end in pure noise: up to alpha(1) / sigma(1) = 0.013 times the mean is missing.
    assert (samples - exact).square().mean().sqrt() < tolerance


@pytest.mark.parametrize("name", EVERY_PATH)
@pytest.mark.parametrize(
    "solver", [SinglestepDPM(), SinglestepDPM(prediction="noise"), SinglestepDPM(order=3, prediction="noise")], ids=str
)
def test_single_steps_follow_it_roughly_from_pure_noise_on(name, solver):
    policy = policy_of(name, solver=solver)
    noise = torch.randn(256, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    error = policy.sample(nothing(256), noise=noise) - (MEAN + noise @ COVARIANCE.sqrt())
    assert error.square().mean().sqrt() < 0.08


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY_PATH)
def test_the_reverse_sde_has_the_moments_of_the_data(name):
    policy = policy_of(name, solver=ReverseSDE(steps=200, power=2.0))
    samples = policy.sample(nothing(20_000), torch.Generator().manual_seed(0))
    std = COVARIANCE.diagonal().sqrt()
    assert ((samples.mean(0) - MEAN) / std).abs().max() < 0.03
    assert (samples.std(0) / std - 1).abs().max() < 0.03


@pytest.mark.parametrize("name", EVERY_PATH)
@pytest.mark.parametrize("solver", [DPMSolver(steps=1), ReverseSDE(steps=1), Euler(steps=1), AB2(steps=2)])
def test_any_step_count_gives_finite_samples(name, solver):
    assert policy_of(name, solver=solver).sample(nothing(16)).isfinite().all()


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(
    ("path", "steps"),
    [(VPSDE(beta_max=40.0), 40), (GVP(), 300), (ICFM(), 200), (ICFM(t_min=0.0), 1500)],
    ids=str,
)
def test_single_steps_may_begin_beyond_the_noise_that_they_are_limited_to(path, steps, order):
    policy = make_policy(path, GaussianNetwork(path, MEAN, COVARIANCE), solver=SinglestepDPM(steps=steps, order=order))
    noise = torch.randn(256, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    error = policy.sample(nothing(256), noise=noise) - (MEAN + noise @ COVARIANCE.sqrt())
    assert error.square().mean().sqrt() < 0.1


@pytest.mark.parametrize("name", EVERY_PATH)
def test_the_weight_of_flow_matching_is_the_velocitys_and_finite_without_noise(name):
    """With a preconditioned network, whose error is (D / sigma) c_out times as large in the velocity."""
    policy = make_policy(PATHS[name](), MLP(action_size=3, observation_size=0), prediction="preconditioned")
    t = torch.linspace(0.01, policy.t_max, 20, dtype=torch.float64)
    of_network = policy.path.wronskian(t) / policy.path.sigma(t) * policy.preconditioning(t)[1]
    torch.testing.assert_close(FlowMatching().weight(policy, t), of_network**-2)
    assert FlowMatching().weight(policy, torch.zeros(1, dtype=torch.float64)).isfinite().all()


def test_sample_with_log_prob_is_one_solve_of_both():
    policy = policy_of("gvp", solver=RK4(steps=16))
    noise = torch.randn(128, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    action, log_prob = policy.sample_with_log_prob(nothing(128), noise=noise)
    torch.testing.assert_close(action, policy.sample(nothing(128), noise=noise))
    torch.testing.assert_close(log_prob, GAUSSIAN.log_prob(action), atol=1e-3, rtol=0)


def test_half_the_steps_tell_the_error_of_a_solver():
    policy, action = policy_of("gvp", likelihood=Midpoint(steps=8)), actions(64)
    fine, true = policy.log_prob(nothing(64), action).mean(), GAUSSIAN.log_prob(action).mean()
    how = policy.coarser_likelihoods()["halved"]
    assert how["solver"].steps == 4
    coarse = policy.log_prob(nothing(64), action, **how).mean()
    assert 0 < abs(fine - true) < abs(coarse - fine)
    assert "halved" not in policy_of("gvp", likelihood=Dopri5()).coarser_likelihoods()


def test_log_prob_of_a_sharp_mixture():
    path = PATHS["gvp"]()
    means = torch.tensor([[0.55, 0.55], [-0.55, 0.5], [-0.5, -0.55]], dtype=torch.float64)
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    policy = make_policy(path, MixtureNetwork(path, means, 0.1, weights))
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(weights),
        torch.distributions.Independent(torch.distributions.Normal(means, torch.full_like(means, 0.1)), 1),
    )
    torch.manual_seed(0)
    action = mixture.sample((128,))
    found = policy.log_prob(nothing(128), action, solver=RK4(steps=32))
    assert (found - mixture.log_prob(action)).abs().mean() < 1e-3


@pytest.mark.parametrize("name", ["icfm", "gvp", "vpsde"])
def test_loglogistic_noise_levels_are_finite_for_any_draw(name, monkeypatch):
    path = PATHS[name](**{} if name == "vpsde" else {"t_min": 0.0})
    policy = make_policy(path, MLP(hidden=[8], action_size=3, observation_size=0), prediction="preconditioned")
    objective, ends = EDMDenoising(density="loglogistic", log_ratio_std=0.5), torch.tensor([0.0, 1 - 2**-24])
    monkeypatch.setattr(torch, "rand", lambda *size, **more: ends)
    t = objective.draw_time(policy, 2, None, ends)
    assert t.isfinite().all()
    assert objective.weight(policy, t).isfinite().all()


def test_several_samples_a_state():
    policy = policy_of("gvp")
    assert policy.sample(nothing(4), num_samples=5).shape == (4, 5, 3)


def test_of_no_states_there_are_no_samples_and_no_densities():
    policy = policy_of("gvp", likelihood=RK4(steps=2), solver=ReverseSDE(steps=2))
    assert policy.sample(nothing(0)).shape == (0, 3)
    assert policy.sample(nothing(0), num_samples=5).shape == (0, 5, 3)
    assert policy.log_prob(nothing(0), actions(0)).shape == (0,)


@pytest.mark.parametrize("name", ["gvp", "icfm"])
def test_a_preconditioned_flow_may_end_without_noise(name):
    torch.manual_seed(0)
    network = MLP(hidden=[8], action_size=3, observation_size=0).double()
    found = [
        make_policy(PATHS[name](t_min=t_min), network, solver=RK4(steps=4), prediction="preconditioned")
        for t_min in (0.0, 1e-9)
    ]
    densities = [policy.log_prob(nothing(8), actions(8), solver=RK4(steps=4)) for policy in found]
    torch.testing.assert_close(*densities, atol=1e-6, rtol=0)
    ends = torch.tensor([0.0, 1.0] * 4, dtype=torch.float64)  # QAM takes velocities at both
    assert found[0].velocity(actions(8), ends, nothing(8)).isfinite().all()
    samples = [policy.sample(nothing(8), noise=actions(8)) for policy in found]
    torch.testing.assert_close(*samples, atol=1e-6, rtol=0)


def test_the_preconditioned_network_sees_and_gives_numbers_of_unit_size():
    policy = make_policy(PATHS["edm"](), GaussianNetwork(PATHS["edm"](), MEAN, COVARIANCE))
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    skip, out = policy.preconditioning(t)
    sigma = policy.path.sigma(t)
    torch.testing.assert_close(skip, 0.25 / (sigma**2 + 0.25))  # Karras et al. 2022, table 1
    torch.testing.assert_close(out, sigma * 0.5 / (sigma**2 + 0.25).sqrt())


def test_a_trajectory_leads_from_the_noise_to_the_sample():
    policy = policy_of("icfm", solver=RK4(steps=16), likelihood=RK4(steps=4))
    noise = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    times, ways = policy.trajectory(nothing(8), noise, 9)
    assert times[0] == pytest.approx(1)
    assert times[-1] == pytest.approx(policy.path.t_min)
    assert (times.diff() < 0).all()
    torch.testing.assert_close(ways[0], noise)
    sample = policy.sample(nothing(8), noise=noise)
    torch.testing.assert_close(ways[-1], policy.path.alpha(times[-1]) * sample, atol=1e-4, rtol=0)


def test_a_policy_whose_densities_were_asked_for_can_be_copied():
    network = MLP(hidden=[8], action_size=3, observation_size=0)
    policy = make_policy(PATHS["icfm"](), network, likelihood=RK4(steps=4))
    observation, action = torch.zeros(4, 0), torch.zeros(4, 3)
    expected = policy.log_prob(observation, action)
    assert torch.equal(copy.deepcopy(policy).log_prob(observation, action), expected)
