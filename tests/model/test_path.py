"""Probability paths: derivatives, conversions and inverse times, for random settings and times."""

import pytest
import torch
from gaussian import PATHS
from hypothesis import given, settings
from hypothesis import strategies as st

from genpolicy.model.path import EDM, ICFM, OTCFM, VPSDE

EVERY_PATH = st.one_of(
    st.sampled_from(sorted(PATHS)).map(lambda name: PATHS[name]()),
    st.tuples(st.floats(0.05, 1), st.floats(5, 30)).map(lambda b: VPSDE(beta_min=b[0], beta_max=b[1])),
    st.floats(0, 0.3).map(lambda s: ICFM(sigma_min=s)),
    st.tuples(st.floats(1e-3, 0.01), st.floats(20, 100)).map(lambda s: EDM(sigma_min=s[0], sigma_max=s[1])),
)
TIMES = st.floats(0.01, 0.99)


def tensor(t):
    return torch.tensor(t, dtype=torch.float64)


@given(EVERY_PATH, TIMES)
def test_derivatives_agree_with_finite_differences(path, t):
    h = 1e-5
    for function, derivative in [(path.alpha, path.d_alpha), (path.sigma, path.d_sigma)]:
        numeric = (function(tensor(t + h)) - function(tensor(t - h))) / (2 * h)
        torch.testing.assert_close(derivative(tensor(t)), numeric, rtol=1e-5, atol=1e-7)


@given(EVERY_PATH, TIMES)
def test_time_inverts_the_ratio_of_noise_to_signal(path, t):
    for scale in (1.0, 0.3):  # only the ratio counts
        found = path.time(scale * path.alpha(tensor(t)), scale * path.sigma(tensor(t)))
        torch.testing.assert_close(found, tensor(t), rtol=1e-9, atol=1e-9)


@given(EVERY_PATH, TIMES)
def test_forward_sde_keeps_the_marginal_variance(path, t):
    # d(sigma^2)/dt = 2 f sigma^2 + g^2 for dx = f x dt + g dw.
    sigma = path.sigma(tensor(t))
    drift = path.d_alpha(tensor(t)) / path.alpha(tensor(t))
    diffusion_squared = 2 * sigma * path.wronskian(tensor(t)) / path.alpha(tensor(t))
    growth = 2 * drift * sigma**2 + diffusion_squared
    torch.testing.assert_close(2 * sigma * path.d_sigma(tensor(t)), growth, rtol=1e-9, atol=1e-12)


@given(
    EVERY_PATH,
    TIMES,
    st.sampled_from(["velocity", "score", "noise", "data"]),
    st.sampled_from(["velocity", "score", "noise", "data"]),
    st.integers(0, 2**16),
)
@settings(max_examples=300)
def test_predictions_convert_into_each_other_exactly(path, t, source, target, seed):
    generator = torch.Generator().manual_seed(seed)
    data, noise = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    times = tensor(t).expand(5)
    x = path.perturb(data, noise, times)
    found = path.data_and_noise(source, path.target(source, data, noise, times), x, times)
    converted = path.target(target, *found, times)
    expected = path.target(target, data, noise, times)
    torch.testing.assert_close(converted, expected, rtol=1e-7, atol=1e-7 * expected.abs().max().item())


@pytest.mark.parametrize("name", ["vpsde", "gvp", "icfm", "edm"])
def test_ends(name):
    path = PATHS[name]()
    start, end = tensor(path.t_min), tensor(1.0)
    assert path.sigma(start) / path.alpha(start) < 0.01
    assert path.alpha(end) / path.sigma(end) < 0.02


def test_optimal_transport_shortens_the_way_and_keeps_the_noise():
    generator = torch.Generator().manual_seed(0)
    action, noise = torch.randn(2, 300, 2, generator=generator)
    nothing = torch.zeros(300, 0)
    path = OTCFM(coupling_size=128)
    coupled = path.couple(action, noise, nothing)
    assert (coupled - action).square().sum() < 0.5 * (noise - action).square().sum()
    for rows in torch.arange(300).split(128):  # a permutation within each chunk
        torch.testing.assert_close(coupled[rows].sort(0).values, noise[rows].sort(0).values)


def test_optimal_transport_leaves_the_noise_independent_of_the_observation():
    # The action is the observation's sign: a coupling blind to observations would make the noise predict it.
    generator = torch.Generator().manual_seed(0)
    observation = torch.randn(4096, 1, generator=generator).sign()
    action = observation + 0.1 * torch.randn(4096, 1, generator=generator)
    noise = torch.randn(4096, 1, generator=generator)
    aware = OTCFM(condition_weight=10.0).couple(action, noise, observation)
    blind = OTCFM(condition_weight=0.0).couple(action, noise, observation)
    assert abs((aware * observation).mean()) < 0.05
    assert abs((blind * observation).mean()) > 0.5
