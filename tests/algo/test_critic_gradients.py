"""What QAM's variants, DAC and QSM learn on a problem with a known answer, that of tests/helpers/tilted.py."""

import pytest
import torch
from parity import made
from tilted import BEST, COVARIANCE, CURVATURE, LEVELS, MEAN, data, make, optimum, train, whitened

from genpolicy.algo.dac import DAC, QSM
from genpolicy.algo.qam import QAME, QAMF
from genpolicy.critic.critic import maximised, value_and_slope
from genpolicy.dataset.transitions import Transitions
from genpolicy.objective.noise_prediction import NoisePrediction
from genpolicy.solver.exponential import Ancestral
from genpolicy.solver.straight import PathEuler

EYE = torch.eye(2)
SHAPES = {"observation": torch.Size([5]), "action": torch.Size([3]), "reward": torch.Size([])}
SHAPES |= {"next_observation": torch.Size([5]), "terminated": torch.Size([])}


def actions(policy, size=20_000):
    with torch.no_grad():
        return policy.sample(torch.zeros(size, 0), torch.Generator().manual_seed(99))


@pytest.mark.parametrize("variant", ["qam_f", "qam_e"])
def test_what_qams_variants_add_changes_neither_the_flow_nor_the_critic(variant):
    """To both they are QAM, which `test_qam_converges_to_the_known_optimum` is about."""
    small = ("network.hidden=[8]", "critic.hidden=[8]", "critic.ensemble=2", "algo.adjoint_steps=2", "solver.steps=2")
    torch.manual_seed(0)
    plain, other = made("algo=qam", *small), made(f"algo={variant}", *small, "algo.policy_hidden=[8]")
    for name in ("critic", "behaviour", "flow"):
        getattr(other, name).load_state_dict(getattr(plain, name).state_dict())
    batch = Transitions(torch.rand(16, 15).double(), SHAPES)
    draws = other.phases[0].updates[""].drawn(batch, torch.Generator().manual_seed(0), 0.0)
    for algorithm in (plain, other):
        algorithm.loss(batch, draws)[0].mean().backward()
    for name in ("critic", "behaviour", "flow"):
        for ours, theirs in zip(*(getattr(each, name).parameters() for each in (plain, other)), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-15)
    assert all(parameter.grad.abs().sum() > 0 for parameter in other.policy.parameters())


@pytest.mark.parametrize(
    ("kind", "settings"), [(QAMF, {"squash": False, "alpha": 3.0}), (QAME, {"edit_scale": 0.2, "edit_entropy": -1.0})]
)
def test_what_qams_variants_play_maximises_q_from_where_the_flow_is(kind, settings):
    fast = {"steps": 150, "lr": 1e-2, "batch_size": 64, "adjoint_steps": 1, "policy_hidden": [32]}
    algorithm = make(kind, "icfm", 0, solver=PathEuler(steps=2), **settings, **fast)
    train(algorithm, data(0), 0)
    assert algorithm.inverse_temperature is None
    played, flow = (
        algorithm.critic.q_min(None, actions(policy)).mean() for policy in (algorithm.policy, algorithm.flow)
    )
    assert played > flow + 0.1


def test_the_solver_of_an_edited_policy_is_its_flows():
    algorithm = made("algo=qam_e", "network.hidden=[8]", "critic.hidden=[8]", "algo.policy_hidden=[8]")
    algorithm.policy.solver = PathEuler(steps=1)
    assert algorithm.flow.solver.steps == 1
    assert algorithm.policy.num_noises == 2


def predictions(path, kind, weight, eta):
    """The noise prediction E x + e [A] at each level from 1 on that an algorithm's loss is least for: (E, e)."""
    found = []
    for level in range(1, LEVELS + 1):
        t = torch.tensor(level / LEVELS)
        alpha, sigma = path.alpha(t), path.sigma(t)
        precision = torch.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * EYE)  # of x_t
        behaviour = sigma * precision, -sigma * alpha * precision @ MEAN
        pull = CURVATURE, -CURVATURE @ BEST  # minus the gradient of Q
        if kind is DAC:
            found.append(tuple(b + sigma * p / (2 * eta) for b, p in zip(behaviour, pull, strict=True)))
        else:
            found.append(tuple((eta * b + weight * p) / (1 + eta) for b, p in zip(behaviour, pull, strict=True)))
    return found


def sampled(path, found):
    """Mean and covariance of what ancestral sampling with the forward variance makes of noise predictions E x + e."""
    mean, covariance = torch.zeros(2), EYE
    for level in range(LEVELS, 0, -1):
        slope, shift = found[level - 1]
        (alpha, before), (sigma, less) = (
            (of(torch.tensor(level / LEVELS)), of(torch.tensor((level - 1) / LEVELS)))
            for of in (path.alpha, path.sigma)
        )
        forgotten = 1 - (alpha / before) ** 2
        step, start = (EYE - sigma * slope) / alpha, -sigma * shift / alpha  # to the data predicted
        if level > 1:
            data_share, kept = before * forgotten / sigma**2, alpha / before * less**2 / sigma**2
            step, start = data_share * step + kept * EYE, data_share * start
        mean, covariance = step @ mean + start, step @ covariance @ step.T
        covariance = covariance + (forgotten * EYE if level > 1 else 0)
    return mean, covariance


CASES = [(DAC, {"eta": 0.5}), (QSM, {"eta": 10.0, "beta": 2.0})]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_dac_and_qsm_converge_to_what_their_losses_are_least_for(kind, settings):
    """With one seed; `tests/acceptance/closed_forms.py` has more."""
    assert_converges(kind, settings, 0)


def assert_converges(kind, settings, seed):
    solver = Ancestral(steps=LEVELS, variance="forward")
    more = {"steps": 300, "lr": 1e-2, "batch_size": 256, "joint": True, "normalize": False, "gradient_norm": None}
    objective = NoisePrediction(prediction="noise", reduction="mean")
    algorithm = make(kind, "ddpm", seed, objective, solver, **settings, **more)
    train(algorithm, data(seed), seed)
    expected = sampled(
        algorithm.policy.path, predictions(algorithm.policy.path, kind, settings.get("beta"), settings["eta"])
    )
    distance, low, high = whitened(actions(algorithm.policy), *expected)
    assert distance < 0.1
    assert 0.9 < low <= high < 1.12
    if kind is DAC:  # whose guidance is that of the tilted behaviour near the data only
        distance, low, high = whitened(actions(algorithm.policy), *optimum(1 / (2 * settings["eta"])))
        assert 0.2 < distance < 0.4
        assert 0.45 < low <= high < 0.8


def test_the_gradient_of_what_is_maximised_reaches_actions_alone():
    weight, action = torch.tensor([2.0, -1.0], requires_grad=True), torch.tensor([[1.0, 3.0]], requires_grad=True)
    q = maximised(lambda action: (weight * action.square()).sum(-1), action)
    assert q.item() == 2 - 9
    q.sum().backward()
    torch.testing.assert_close(action.grad, torch.tensor([[4.0, -6.0]]))
    assert weight.grad is None
    value, slope = value_and_slope(lambda action: (weight * action.square()).sum(-1), action)
    assert not value.requires_grad
    assert not slope.requires_grad
