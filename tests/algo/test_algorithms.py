"""What the algorithms learn on a problem with a known answer, that of tests/helpers/tilted.py."""

import pytest
import torch
from command_line import jobs
from scipy.stats import kstest
from small import random_transitions, shrink
from tilted import COVARIANCE, MEAN, data, make, optimum, train, whitened
from torch import nn

from genpolicy.algo.algorithm import assemble
from genpolicy.algo.bc import BC
from genpolicy.algo.gmpg import GMPG, GMPGMatching, GMPGReinforce
from genpolicy.algo.gmpo import GMPO, GMPOSoftmax
from genpolicy.algo.qam import QAM
from genpolicy.algo.qgpo import QGPO
from genpolicy.algo.update import frozen
from genpolicy.dataset.transitions import Transitions
from genpolicy.objective.edm import EDMDenoising
from genpolicy.objective.flow_matching import FlowMatching
from genpolicy.objective.noise_prediction import NoisePrediction
from genpolicy.objective.score_matching import ScoreMatching
from genpolicy.solver.fixed import Midpoint


def whitened_moments(algorithm, mean, covariance, size=20_000):
    """The moments of the policy's actions, as `whitened` has them."""
    algorithm.policy.solver = Midpoint(steps=16)
    samples = algorithm.act(torch.zeros(size, 0), torch.Generator().manual_seed(99))
    return whitened(samples, mean, covariance)


def assert_optimal(algorithm, beta, mean_within, covariance_within):
    assert algorithm.inverse_temperature == beta
    distance, low, high = whitened_moments(algorithm, *optimum(beta))
    assert distance < mean_within
    assert covariance_within[0] < low <= high < covariance_within[1]


FIT = {"policy_steps": 1000, "policy_lr": 6e-3, "policy_batch_size": 512}
BEHAVIOUR = {"behaviour_steps": 1000, "behaviour_lr": 3e-3}
FINETUNE = BEHAVIOUR | {"policy_steps": 80, "policy_lr": 2e-3, "policy_batch_size": 128}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "objective", "beta", "seed"),
    [
        ("vpsde", FlowMatching(), 3.0, 0),
        ("vpsde", ScoreMatching(), 1.0, 1),
        ("gvp", FlowMatching(), 3.0, 0),
        ("gvp", FlowMatching(), 1.0, 1),
        ("icfm", FlowMatching(), 3.0, 0),
        ("edm", EDMDenoising(), 3.0, 0),
    ],
)
def test_gmpo_converges_to_the_known_optimum(path, objective, beta, seed):
    more = {"policy_steps": 2000} if isinstance(objective, ScoreMatching) else {}
    algorithm = make(GMPO, path, seed, objective, beta=beta, **FIT | more)
    train(algorithm, data(seed), seed)
    assert_optimal(algorithm, beta, 0.08, (0.85, 1.15))


@pytest.mark.slow
def test_gmpo_converges_with_optimal_transport():
    algorithm = make(GMPO, "otcfm", 0, beta=3.0, policy_steps=500, policy_lr=5e-3, policy_batch_size=256)
    train(algorithm, data(0), 0)
    assert_optimal(algorithm, 3.0, 0.12, (0.8, 1.2))


@pytest.mark.slow
def test_gmpo_with_clamped_weights_reaches_the_clamped_optimum():
    # At beta = 10 a third of the weights is clamped: the optimum is mu min(w, C), whose moments are taken by weighting
    # draws of the behaviour.
    beta, clamp = 10.0, 10.0
    algorithm = make(GMPO, "gvp", 0, beta=beta, weight_clamp=clamp, **FIT)
    metrics = train(algorithm, data(0), 0)
    generator = torch.Generator().manual_seed(1)
    draws = MEAN + torch.randn(10**6, 2, generator=generator) @ torch.linalg.cholesky(COVARIANCE).T
    weight = (beta * algorithm.critic.advantage(draws[:, :0], draws)).exp().clamp(max=clamp)
    weight = weight / weight.sum()
    mean = weight @ draws
    covariance = (weight[:, None] * (draws - mean)).T @ (draws - mean)
    distance, low, high = whitened_moments(algorithm, mean, covariance)
    assert metrics["clamped"] > 0.2
    assert distance < 0.08
    assert 0.85 < low <= high < 1.15


@pytest.mark.slow
def test_gmpg_converges_to_the_known_optimum():
    """On one path, as it sees paths through samples, log-densities and their gradients alone, which tests/model has."""
    assert_gmpg_converges("edm", 0)


def assert_gmpg_converges(path, seed):
    algorithm = make(GMPG, path, seed, EDMDenoising() if path == "edm" else None, beta=3.0, **FINETUNE)
    train(algorithm, data(seed), seed)
    assert_optimal(algorithm, 3.0, 0.1, (0.8, 1.2))


@pytest.mark.slow
def test_gmpg_reinforce_converges_to_the_known_optimum():
    algorithm = make(GMPGReinforce, "gvp", 0, beta=3.0, **FINETUNE)
    train(algorithm, data(0), 0)
    assert_optimal(algorithm, 3.0, 0.1, (0.8, 1.2))


def test_the_score_function_gradient_is_unbiased_with_probes():
    """Of two actions' dimensions there are two probes, up to the sign: their pairs tell the mean exactly."""
    [(job, _)] = jobs("algo=gmpg_reinforce", "model=gvp", "tuned=none", "network=mlp", "env=multi-goal")
    shrink(job.config)
    job.config.algo.hutchinson = True
    algorithm = assemble(job.config, 2, -torch.ones(2), torch.ones(2)).double()
    with torch.no_grad():
        for parameter in algorithm.behaviour.network.parameters():
            parameter.mul_(2)
        algorithm.copy_behaviour()
        for parameter in algorithm.policy.network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    given = random_transitions()
    batch = Transitions(given.table.double(), given.shapes)
    probes = [torch.tensor([1.0, sign], dtype=torch.float64).expand(batch.size, 2) for sign in (-1, 1)]
    drawn = algorithm.draw(batch, torch.Generator().manual_seed(0), 0.0)
    assert not torch.equal(drawn["cost_probe"], drawn["probe"])

    def gradient(**given):
        draws = {"noise": drawn["noise"], **given}
        with torch.no_grad():
            draws |= algorithm.weighted(batch, draws)
        loss, _ = algorithm.loss(batch, draws)
        found = torch.autograd.grad(loss.mean(), [*algorithm.policy.network.parameters()])
        return torch.cat([each.flatten() for each in found])

    exact = gradient()
    pairs = [gradient(probe=probe, cost_probe=other) for probe in probes for other in probes]
    torch.testing.assert_close(sum(pairs) / 4, exact, rtol=1e-6, atol=1e-9)
    same = [gradient(probe=probe, cost_probe=probe) for probe in probes]
    assert (sum(same) / 2 - exact).norm() > 1e-3 * exact.norm()


@pytest.mark.slow
def test_qam_converges_to_the_known_optimum():
    # With ten steps of the SDE variances are up to a tenth too small, with forty all that is left is the fit's error.
    settings = {"steps": 800, "lr": 5e-3, "batch_size": 64}
    algorithm = make(QAM, "icfm", 0, beta=3.0, **settings)
    train(algorithm, data(0), 0)
    assert_optimal(algorithm, 3.0, 0.12, (0.85, 1.2))


@pytest.mark.slow
def test_gmpg_matching_moves_towards_the_best_action():
    algorithm = make(GMPGMatching, "gvp", 0, beta=3.0, **FINETUNE)
    train(algorithm, data(0), 0)
    observation = torch.zeros(5000, 0)
    q = algorithm.critic.q_min(observation, algorithm.act(observation)).mean()
    q_behaviour = algorithm.critic.q_min(observation, algorithm.behaviour.sample(observation)).mean()
    assert q > q_behaviour + 0.4  # of the 0.66 that the optimum gains


@pytest.mark.slow
@pytest.mark.parametrize("static", [True, False])
def test_gmpo_softmax_converges_to_the_known_optimum(static):
    # With K actions the softmax is biased towards the behaviour by O(1 / K).
    steps = 1500 if static else 500
    algorithm = make(
        GMPOSoftmax,
        "gvp",
        0,
        beta=3.0,
        static=static,
        **BEHAVIOUR,
        policy_steps=steps,
        policy_lr=4e-3,
        policy_batch_size=32,
    )
    train(algorithm, data(0, size=5_000), 0)
    assert_optimal(algorithm, 3.0, 0.15, (0.8, 1.3))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "steps"), [(NoisePrediction(), 1000), (ScoreMatching(weighting="maximum_likelihood"), 2000)]
)
def test_bc_learns_the_density_of_the_data(objective, steps):
    algorithm = make(BC, "vpsde", 0, objective, behaviour_steps=steps, behaviour_lr=6e-3)
    train(algorithm, data(0), 0)
    held_out = data(1, size=2000).action
    gap = torch.distributions.MultivariateNormal(MEAN, COVARIANCE).log_prob(held_out) - algorithm.log_prob(
        held_out[:, :0], held_out
    )
    assert abs(gap.mean()) < 0.05  # the estimated KL divergence, in nats


@pytest.mark.slow
def test_the_policy_gradient_is_unbiased():
    # Against float64 finite differences of the loss itself, same noise: the full estimator is its gradient, the path
    # derivative has the same mean. A likelihood that cuts its own state off fails both by tens of per cent.
    algorithm = make(GMPG, "gvp", 0, beta=2.0, estimator="full", behaviour_steps=600, behaviour_lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    transitions = data(0)
    for _ in range(600):
        algorithm.phases[0].update(transitions.sample(512, generator), generator, 0)
    algorithm.phases[2].start()
    algorithm = algorithm.double()
    with torch.no_grad():  # away from the behaviour model, where the KL's gradient does not vanish
        for parameter in algorithm.policy.network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator) * parameter.std()
    algorithm.policy.solver = algorithm.behaviour.solver = Midpoint(steps=16)
    noise = torch.randn(2048, 2, generator=generator, dtype=torch.float64)

    class Batch:
        observation = torch.zeros(2048, 0, dtype=torch.float64)

    parameters = list(algorithm.policy.network.layers.parameters())
    losses, gradients = {}, {}
    for estimator in ("full", "path_derivative"):
        algorithm.estimator = estimator
        loss, _ = algorithm.loss(Batch, {"noise": noise})
        losses[estimator] = loss
        gradients[estimator] = torch.cat([g.flatten() for g in torch.autograd.grad(loss.mean(), parameters)])
    torch.testing.assert_close(losses["full"], losses["path_derivative"], atol=2e-2, rtol=1e-2)

    direction = torch.randn(gradients["full"].shape, generator=generator, dtype=torch.float64)
    algorithm.estimator, values, step = "full", [], 1e-4
    with torch.no_grad():
        for sign in (1, -2):
            offset = 0
            for parameter in parameters:
                part = direction[offset : offset + parameter.numel()].view_as(parameter)
                parameter += sign * step * part
                offset += parameter.numel()
            values.append(algorithm.loss(Batch, {"noise": noise})[0].mean())
    slope = (values[0] - values[1]) / (2 * step)
    torch.testing.assert_close(gradients["full"] @ direction, slope, rtol=1e-4, atol=1e-6)
    gap = (gradients["path_derivative"] - gradients["full"]).norm() / gradients["full"].norm()
    assert gap < 0.2  # Monte-Carlo noise of 2,048 draws


def test_the_energy_is_learned_at_all_times_of_the_path():
    algorithm, batch = make(QGPO, "vpsde", 0), data(0, size=4000).extended(behaviour_action=torch.zeros(4000, 3, 2))
    draws = algorithm.draw(batch, torch.Generator().manual_seed(0), 0.0)
    low, high = algorithm.policy.path.t_min, algorithm.policy.t_max
    assert kstest(draws["t"].numpy(), "uniform", args=(low, high - low)).pvalue > 0.01
    assert draws["noise"].shape == (4000, 3, 2)
    assert kstest(draws["noise"].flatten().numpy(), "norm").pvalue > 0.01


def test_only_a_tilted_behaviour_has_an_inverse_temperature():
    assert make(QGPO, "vpsde", 0, beta=2.0).inverse_temperature == 2.0
    assert make(QGPO, "vpsde", 0, beta=2.0, guidance_scale=3.0).inverse_temperature is None
    assert make(GMPGMatching, "vpsde", 0, beta=2.0).inverse_temperature is None
    assert make(BC, "vpsde", 0).inverse_temperature is None


def test_frozen_restores_what_it_froze():
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    with frozen(layer.parameters()):
        assert not any(p.requires_grad for p in layer.parameters())
    assert layer.weight.requires_grad
    assert not layer.bias.requires_grad


@pytest.mark.parametrize("cls", [GMPG, GMPGReinforce, GMPGMatching])
def test_chunks_do_not_change_an_update(cls):
    results = []
    for chunk in (65, 16):  # the last one of one state
        algorithm = make(cls, "gvp", 0, beta=1.0, chunk=chunk)
        batch = data(0).sample(65, torch.Generator().manual_seed(1))
        algorithm.phases[2].update(batch, torch.Generator().manual_seed(2), 0)
        results.append(algorithm.policy.network.layers[0].weight)
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cls", [BC, GMPO, GMPG])
def test_state_dict_restores_everything_to_the_bit(cls, tmp_path):
    transitions = data(0)

    def run(algorithm, generator, updates):
        for phase in algorithm.phases:
            for _ in range(updates):
                phase.update(transitions.sample(32, generator), generator, 0)

    algorithm, generator = make(cls, "gvp", 0), torch.Generator().manual_seed(0)
    run(algorithm, generator, 2)
    torch.save({"algorithm": algorithm.state_dict(), "generator": generator.get_state()}, tmp_path / "state.pt")
    run(algorithm, generator, 2)
    restored, other = make(cls, "gvp", 1), torch.Generator()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    restored.load_state_dict(state["algorithm"])
    other.set_state(state["generator"])
    run(restored, other, 2)
    for (name, left), (_, right) in zip(
        algorithm.policy.named_parameters(), restored.policy.named_parameters(), strict=True
    ):
        assert torch.equal(left, right), name
