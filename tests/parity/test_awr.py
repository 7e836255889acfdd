"""AWR's returns and weights are those of its authors' code (Peng et al. 2019): tests/parity/reference/awr.py.

What its networks do is compared by reading: TensorFlow 1 cannot be installed any more.
"""

import pytest
import torch
from parity import fixture, made
from torch import nn

from genpolicy.dataset.transitions import Transitions


class V(nn.Module):
    """The fixture's V in our units, [1, B]."""

    def __init__(self, slope):
        super().__init__()
        self.slope = slope

    def forward(self, observation):
        return 0.01 * 3.0 * torch.tanh(observation @ self.slope)[None]


@pytest.fixture
def prepared():
    """The fixture's arrays, and its paths as the data that an iteration trains on."""
    _, arrays = fixture("awr")
    columns = {"observation": "states", "action": "actions", "reward": "rewards", "next_observation": "next_states"}
    data = Transitions.of(
        {ours: arrays[theirs] for ours, theirs in columns.items()} | {"terminated": arrays["terminated"]}
    )
    algorithm = made("algo=awr", observation=2, action=1)
    algorithm.begin = V(arrays["slope"].float())
    return arrays, algorithm.prepare(data)


def test_returns_are_theirs(prepared):
    arrays, data = prepared
    torch.testing.assert_close(data["value_target"].double(), 0.01 * arrays["returns"], rtol=1e-4, atol=1e-6)


def test_weights_are_theirs(prepared):
    arrays, data = prepared
    assert (arrays["weights"] == 20).any()
    torch.testing.assert_close(data["weight"].double(), arrays["weights"], rtol=1e-4, atol=1e-6)


def test_an_iteration_begins_with_v_as_it_is(prepared):
    _, data = prepared
    algorithm = made("algo=awr", "algo.batch_size=16", observation=2, action=1)
    algorithm.start()
    first, phase = algorithm.phases
    assert (first.steps, phase.refresh) == (200, 1000)
    before = [parameter.clone() for parameter in algorithm.begin.parameters()]
    data = Transitions(data.table.double(), data.shapes)
    for step in range(5):
        metrics = phase.update(data.sample(16, torch.Generator().manual_seed(step)), torch.Generator(), step)
        assert ("value_loss" in metrics) == (step == 4)  # 200 updates of V for 1,000 of the policy
    assert all(torch.equal(old, new) for old, new in zip(before, algorithm.begin.parameters(), strict=True))
    assert not torch.equal(algorithm.value.head.weight, algorithm.begin.head.weight)
    algorithm.start()
    assert torch.equal(algorithm.value.head.weight, algorithm.begin.head.weight)


def test_the_first_step_is_that_of_gradient_descent_with_momentum(prepared):
    """The policy's loss has its gradient by autograd here: -w log N(a; mu, 0.4^2) + 5 |mu outside [-1, 1]|^2."""
    _, data = prepared
    algorithm = made("algo=awr", observation=2, action=1)
    batch = Transitions(data.table.double(), data.shapes).rows(slice(0, 16))
    with torch.no_grad():
        algorithm.policy.network.layers[-1].bias.fill_(1.3)
    mean = algorithm.policy.network(batch.observation[:, :0], batch.observation[:, :0], batch.observation)
    loss = 0.5 * batch["weight"] * ((batch.action - mean) / 0.4).square().sum(-1)
    loss = loss + 5 * ((mean - 1).clamp(min=0).square() + (-1 - mean).clamp(min=0).square()).sum(-1)
    (slope,) = torch.autograd.grad(loss.mean(), algorithm.policy.network.layers[-1].bias)
    before = algorithm.policy.network.layers[-1].bias.detach().clone()
    update = algorithm.phases[1].updates["policy"]
    update.step(batch, {})
    first = algorithm.policy.network.layers[-1].bias.detach().clone()
    torch.testing.assert_close(first, before - 5e-5 * slope, rtol=1e-9, atol=0.0)
    update.step(batch, {})
    assert (first - algorithm.policy.network.layers[-1].bias).abs() > 1.8 * 5e-5 * slope.abs()


def test_networks_begin_as_theirs():
    """Two layers of ReLU, 128 and 64; Xavier's weights, those of the policy's last layer in +-0.01; biases of 0."""
    algorithm = made("algo=awr", observation=30, action=20)
    layers = algorithm.policy.network.layers
    assert [type(layer) for layer in layers] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert type(algorithm.value.act) is nn.ReLU
    hidden = {"policy": layers[2].weight, "value": algorithm.value.layers[1].weight}
    for weight in hidden.values():
        bound = (6 / (128 + 64)) ** 0.5
        assert sorted(weight.squeeze(0).shape) == [64, 128]
        assert 0.98 * bound < weight.abs().max() <= bound
    assert 0.0098 < layers[4].weight.abs().max() <= 0.01
    assert all((value == 0).all() for name, value in algorithm.named_parameters() if "bias" in name)
