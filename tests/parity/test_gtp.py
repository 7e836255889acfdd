"""GTP, of which no authors' code is known, against its paper's equations (Feng et al. 2025), written out here."""

import copy
import itertools

import pytest
import torch
from parity import made
from parity_torch import sampling_from, tossing
from small import random_transitions

from genpolicy.dataset.transitions import Transitions

SMALL = ("network.hidden=[16,16]", "critic.hidden=[16,16]")
ETA, RATE, DISCOUNT, LR, SIZE = 0.5, 0.005, 0.99, 3e-4, 16


def noise_level(t):
    return (0.002 ** (1 / 7) + t * (80 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7


def phi(policy, x, t, s, observation):
    """phi(x_t, t, s): EDM's preconditioning of the network, with sigma_data .5."""
    level = noise_level(t)[:, None]
    variance = level**2 + 0.25
    output = policy.network(x / variance.sqrt(), torch.stack([t, s], -1), observation)
    return 0.25 / variance * x + 0.5 * level / variance.sqrt() * output


def jump(policy, x, t, s, observation):
    """Phi(x_t, t, s), eq. 4."""
    ratio = (noise_level(s) / noise_level(t))[:, None]
    return (1 - ratio) * phi(policy, x, t, s, observation) + ratio * x


def sample(policy, noise, observation):
    """Eq. 15, on the solver's own grid."""
    flow = policy.flow(observation)
    levels = [0.5 * torch.tensor(angle).tan() for angle in policy.solver.grid(flow.end, flow.start)]
    times = [policy.path.time(torch.ones(()), level).double() for level in levels]
    x = 80 * noise
    for t, s in itertools.pairwise(times):
        x = jump(policy, x, t.expand(len(x)), s.expand(len(x)), observation)
    return x.clamp(-1, 1)


def matching(policy, batch, draws):
    """Eqs. 17 to 19, without the weight, lambda_Flow = 1."""
    action, observation, noise = batch.action, batch.observation, draws["noise"]
    x_t, x_u = (action + noise_level(draws[name])[:, None] * noise for name in ("t", "u"))
    with torch.no_grad():
        target = jump(policy.target, x_u, draws["u"], draws["s"], observation)
    consistency = (jump(policy, x_t, draws["t"], draws["s"], observation) - target).square().sum(-1)
    return consistency + (action - phi(policy, x_t, draws["t"], draws["t"], observation)).square().sum(-1)


@pytest.fixture
def batch():
    data = random_transitions(SIZE)
    return Transitions(data.table.double(), data.shapes)


def times(algorithm, batch):
    generator = torch.Generator().manual_seed(0)
    return algorithm.objective.draw(algorithm.policy, batch.observation, batch.action, generator, 0.3)


def step(parameters, loss, optimizer):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def q_of(network, observation, action):
    return network(torch.cat([observation, action], -1))


@pytest.mark.parametrize("name", ["gtp", "gtp_linear_q"])
def test_an_update_is_algorithm_1(name, batch):
    torch.manual_seed(0)
    algorithm = made(f"algo={name}", *SMALL, observation=2, action=2)
    with torch.no_grad():  # no moving average is equal to what it follows
        for parameter in algorithm.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    paper = copy.deepcopy(algorithm)
    policy, critic, draws = paper.policy, paper.critic, times(paper, batch)
    next_noise, noise = torch.randn(2, 1, SIZE, 2, dtype=torch.float64)

    # line 4: the critic, eq. 16
    with torch.no_grad():
        next_action = sample(policy.target, next_noise[0], batch.next_observation)
        bootstrap = q_of(critic.q_target, batch.next_observation, next_action).min(0).values
        target = batch.reward + DISCOUNT * ~batch.terminated * bootstrap
    q_loss = (q_of(critic.q_network, batch.observation, batch.action) - target).square().mean(1).sum()
    step(critic, q_loss, torch.optim.Adam(critic.q_network.parameters(), LR))
    # lines 5 to 8: the actor, eqs. 14 and 17 to 19
    loss = matching(policy, batch, draws)
    if name == "gtp":
        with torch.no_grad():
            value_action = sample(policy.target, noise[0], batch.observation)
            advantage = q_of(critic.q_network, batch.observation, batch.action).min(0).values
            advantage = advantage - q_of(critic.q_network, batch.observation, value_action).min(0).values
            weight = (ETA * advantage.clamp(min=0) / advantage.std()).exp()
        loss = (weight * loss).mean()
    else:
        action = sample(policy, noise[0], batch.observation)
        loss = (loss - 0.01 * q_of(critic.q_network, batch.observation, action)[0]).mean()
    actor = [parameter for key, parameter in policy.named_parameters() if not key.startswith("target.")]
    step(policy, loss, torch.optim.Adam(actor, LR))
    # line 9: the moving averages
    pairs = [*zip(policy.target.network.parameters(), policy.network.parameters(), strict=True)]
    pairs += zip(critic.q_target.parameters(), critic.q_network.parameters(), strict=True)
    with torch.no_grad():
        for average, own in pairs:
            average.mul_(1 - RATE).add_(RATE * own)

    [phase] = algorithm.phases
    algorithm.objective.draw = lambda *given: draws
    with sampling_from(next_noise, noise), tossing(0.9):  # the first Q
        metrics = phase.update(batch, torch.Generator(), 0)
    torch.testing.assert_close(metrics["actor_loss"], loss.detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(metrics["critic_loss"], q_loss.detach(), rtol=1e-5, atol=0)
    expected = dict(paper.named_parameters())
    for key, parameter in algorithm.named_parameters():
        torch.testing.assert_close(parameter, expected[key], rtol=1e-5, atol=1e-8, msg=lambda m, n=key: f"{n}: {m}")


def test_behaviour_cloning_is_eqs_17_to_19_with_weight_1(batch):
    torch.manual_seed(0)
    algorithm = made("algo=gtp_bc", *SMALL, observation=2, action=2)
    draws = times(algorithm, batch)
    assert (draws["t"] > draws["u"]).all()
    assert (draws["u"] >= draws["s"]).all()
    algorithm.objective.draw = lambda *given: draws
    expected = matching(algorithm.policy, batch, draws).mean().detach()
    [phase] = algorithm.phases
    torch.testing.assert_close(phase.update(batch, torch.Generator(), 0)["loss"], expected, rtol=1e-5, atol=0)
