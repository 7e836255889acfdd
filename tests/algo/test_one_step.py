"""What GFP and FAC add to FQL, held against values by hand and closed forms."""

import math
from dataclasses import replace

import pytest
import torch
from gaussian import GaussianNetwork
from parity import made
from torch import nn

from genpolicy.dataset.sequences import Sequences
from genpolicy.dataset.transitions import Transitions
from genpolicy.model.direct import normal_log_prob

SMALL = ("network.hidden=[8]", "critic.hidden=[8]", "algo.policy_hidden=[8]")


def batch(size: int, action: torch.Tensor) -> Transitions:
    generator = torch.Generator().manual_seed(0)
    columns = {name: torch.randn(size, 5, generator=generator) for name in ("observation", "next_observation")}
    columns |= {"action": action, "reward": torch.zeros(size), "terminated": torch.zeros(size)}
    table = torch.cat([column.reshape(size, -1) for column in columns.values()], 1).double()
    return Transitions(table, {name: column.shape[1:] for name, column in columns.items()})


class FirstCoordinates(nn.Module):
    """Q functions that are the action's first coordinate, and that plus 0.2."""

    def forward(self, pairs, members=None):
        return torch.stack([pairs[:, 5], pairs[:, 5] + 0.2])


def test_gfp_weighs_the_flow_s_loss_by_the_softmax_of_the_two_values():
    algorithm = made("algo=gfp", *SMALL, "algo.eta=0.5")
    algorithm.critic.q_network = FirstCoordinates()
    action = torch.zeros(3, 3)
    action[:, 0] = torch.tensor([0.4, -0.6, 0.0])  # Q = 0.5, -0.5, 0.1
    given, q = batch(3, action), torch.tensor([0.3, -0.5, 0.4], dtype=torch.float64, requires_grad=True)
    size = (0.3 + 0.5 + 0.4) / 3
    expected = [1 / (1 + math.exp(-gap / (0.5 * size))) for gap in (0.5 - 0.3, -0.5 + 0.5, 0.1 - 0.4)]
    weight = algorithm.weight(given, q)
    assert weight.tolist() == pytest.approx(expected)
    assert not weight.requires_grad
    draws = {"t": torch.full((3,), 0.5).double(), "noise": torch.ones(3, 3).double()}
    plain = algorithm.objective.loss(algorithm.behaviour, given.observation, given.action, draws)
    matching, metrics = algorithm.matching(given, draws, q)
    torch.testing.assert_close(matching, weight * plain)
    torch.testing.assert_close(metrics["matching"], plain)


MEAN, STD = torch.tensor([0.2, -0.3, 0.1]).double(), 0.5


def fac(*words):
    """FAC whose behaviour flow is exactly that of N(MEAN, STD^2)."""
    algorithm = made("algo=fac", *SMALL, *words)
    algorithm.behaviour.network = GaussianNetwork(algorithm.behaviour.path, MEAN, STD**2 * torch.eye(3).double())
    return algorithm


def log_density(action):
    return normal_log_prob(action, MEAN.expand(action.shape), torch.full_like(action, STD))


@pytest.mark.parametrize("probes", ["null", "64"])
def test_facs_log_density_tends_to_the_exact_one_of_a_gaussian(probes):
    action = MEAN + STD * torch.randn(200, 3, generator=torch.Generator().manual_seed(1)).double()
    gaps = []
    for steps in (20, 40):
        algorithm = fac(f"algo.density_steps={steps}", f"algo.probes={probes}")
        drawn = algorithm.draw_probes(action, torch.Generator().manual_seed(2)).get("probes")
        found = algorithm.log_density(torch.zeros(200, 5).double(), action, drawn)
        gaps.append((found - log_density(action)).mean().item())
    assert gaps[1] == pytest.approx(gaps[0] / 2, rel=0.2)  # first order
    assert abs(gaps[1]) < 0.1


def test_facs_penalty_is_zero_inside_the_support_and_grows_with_the_distance_from_it():
    algorithm = fac("algo.density_steps=100", "algo.alpha_q=2")
    algorithm.critic.q_network = FirstCoordinates()
    away = torch.tensor([0.0, 1.0, 2.0, 3.0]).double()[:, None] * torch.ones(3).double() * STD
    data = batch(4, MEAN + away[[1, 1, 1, 1]])
    source = algorithm.phases[1].prepare(data)
    torch.testing.assert_close(source["log_threshold"], log_density(data.action), rtol=0, atol=0.1)
    penalty, metrics = algorithm.penalty(source, {"penalised_action": MEAN + away})
    # |a - mean|^2 / STD^2 is 0, 3, 12, 27 and of the threshold 3
    weight = torch.tensor([0.0, 0.0, 1 - math.exp(-4.5), 1 - math.exp(-12)]).double()
    torch.testing.assert_close(penalty[0].item(), 0.0)
    torch.testing.assert_close(penalty, 2 * weight * (MEAN[0] + away[:, 0] + 0.1), rtol=0, atol=2e-2)
    assert (penalty[2:] > 0).all()
    assert metrics["outside"].item() == pytest.approx(weight.mean().item(), abs=1e-2)


@pytest.mark.parametrize("threshold", ["row", "batch", "data"])
def test_facs_three_thresholds(threshold):
    algorithm = fac(f"algo.threshold={threshold}")
    generator = torch.Generator().manual_seed(3)
    data = batch(6, MEAN + STD * torch.randn(6, 3, generator=generator).double())
    own = algorithm.log_density(data.observation, data.action)
    rows = algorithm.phases[1].prepare(data).rows(torch.tensor([0, 1, 2]))
    limit = {"row": own[:3], "batch": own[:3].min(), "data": own.min()}[threshold]
    action = MEAN + 2 * STD * torch.ones(3, 3).double()
    expected = (1 - (algorithm.log_density(rows.observation, action) - limit).exp()).clamp(0, 1)
    torch.testing.assert_close(algorithm.weight(rows, action, None), expected)


def test_the_least_density_of_the_data_is_not_that_of_a_chunk_which_a_time_limit_cuts():
    algorithm = made("algo=fac", *SMALL, "algo.threshold=data", action=6)
    identity = torch.eye(6).double()
    algorithm.behaviour.network = GaussianNetwork(algorithm.behaviour.path, torch.zeros(6).double(), STD**2 * identity)
    action = torch.zeros(6, 3).double()
    action[2] = 2.0  # the last of its episode, after which it would be repeated
    data = replace(batch(6, action), ends=torch.arange(6) % 3 == 2)
    prepared = algorithm.phases[1].prepare(Sequences.of_transitions(data, 2, 2, 0.9, False))
    expected = algorithm.log_density(data.observation[:1], action[1:3].reshape(1, 6))
    torch.testing.assert_close(prepared["log_threshold"], expected.expand(6))
