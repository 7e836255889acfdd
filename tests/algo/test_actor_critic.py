"""Policy evaluation, the weights of GTP, and what the actor-critic algorithms learn."""

import math

import pytest
import torch
from scipy.stats import expectile
from tiny import same
from torch import nn

from genpolicy.algo.gtp import GTP
from genpolicy.algo.q_guided import QGuided
from genpolicy.critic.double_q import DoubleQ
from genpolicy.critic.in_support import InSupport
from genpolicy.dataset.scaling import Scaling
from genpolicy.dataset.transitions import Transitions
from genpolicy.model.path import EDM
from genpolicy.model.trajectory import TrajectoryPolicy
from genpolicy.network.ensemble import EnsembleMLP
from genpolicy.network.mlp import MLP
from genpolicy.objective.consistency import Consistency
from genpolicy.objective.trajectory import Trajectory
from genpolicy.solver.fixed import RK4
from genpolicy.solver.jumps import Jumps, Renoise

MEAN, STD, BEST = 0.0, 0.4, 0.8


def transitions(size, reward, terminated, seed=0):
    generator = torch.Generator().manual_seed(seed)
    observation = torch.zeros(size, 1)
    action = (MEAN + STD * torch.randn(size, 2, generator=generator)).clamp(-1, 1)
    columns = {"observation": observation, "action": action, "reward": reward(action)}
    columns |= {"next_observation": observation, "terminated": torch.as_tensor(terminated).expand(size)}
    return Transitions.of({name: column.numpy() for name, column in columns.items()})


def make(cls, critic, objective=None, solver=None, seed=0, **settings):
    torch.manual_seed(seed)
    policy = TrajectoryPolicy(
        path=EDM(),
        network=MLP(hidden=[32, 32], action_size=2, observation_size=1, num_times=2),
        prediction="preconditioned",
        solver=solver or Jumps(steps=3),
        likelihood=RK4(steps=8),
        target_rate=0.02,
    )
    policy.keep_average()
    objective = objective or Trajectory(first_intervals=10, last_intervals=40)
    scaling = Scaling(1, -torch.ones(2), torch.ones(2))
    return cls(policy=policy, objective=objective, critic=critic, scaling=scaling, lr=2e-3, **settings)


def train(algorithm, data, seed=0):
    generator = torch.Generator().manual_seed(seed)
    (phase,) = algorithm.phases
    for step in range(phase.steps):
        metrics = phase.update(data.sample(phase.batch_size, generator), generator, step)
    return metrics


class LinearQ(nn.Module):
    """Two Q functions, linear in the action, as nothing is learned of them."""

    def __init__(self):
        super().__init__()
        self.slopes = torch.tensor([[1.0, -2.0], [2.0, 1.0]])

    def forward(self, pairs, members=None):
        return (self.slopes @ pairs[:, 1:].T)[:members]


def test_the_target_is_that_of_clipped_double_q_with_max_q_backup():
    torch.manual_seed(0)
    critic = DoubleQ(observation_size=1, action_size=2, discount=0.9, candidates=2)
    critic.q_target = LinearQ()
    batch = transitions(2, lambda action: torch.tensor([1.0, 2.0]), torch.tensor([False, True]))
    next_action = torch.tensor([[[0.5, 0.1], [0.2, 0.4]], [[1.0, 1.0], [0.0, 0.0]]])
    # Q_1 = a - 2 b: .3 and -.6; Q_2 = 2 a + b: 1.1 and .8; the best of each .3 and 1.1, the smaller .3
    loss, metrics = critic.loss(batch, {"next_action": next_action})
    target = torch.tensor([1.0 + 0.9 * 0.3, 2.0])
    expected = (critic.q(batch.observation, batch.action) - target).square().sum(0)
    torch.testing.assert_close(loss, expected)
    assert metrics["target"].item() == pytest.approx(target.mean().item())
    critic.normalize = True
    expected = (critic.q(batch.observation, batch.action) - target / target.std()).square().sum(0)
    torch.testing.assert_close(critic.loss(batch, {"next_action": next_action})[0], expected, rtol=1e-4, atol=1e-5)


def test_the_in_support_target_is_the_softmax_mean_of_the_smaller_q():
    critic = InSupport(observation_size=1, action_size=2, hidden=[8], discount=0.9, candidates=2, beta=2.0)
    critic.q_target = LinearQ()
    batch = transitions(2, lambda action: torch.tensor([1.0, 2.0]), torch.tensor([False, True]))
    next_action = torch.tensor([[[0.5, 0.1], [0.2, 0.4]], [[1.0, 1.0], [0.0, 0.0]]])
    # min_j Q_j of the two actions at the first state: .3 and -.6
    share = 1 / (1 + math.exp(-2 * 0.9))
    target = torch.tensor([1.0 + 0.9 * (share * 0.3 - (1 - share) * 0.6), 2.0])
    loss, _ = critic.loss(batch, {"next_action": next_action})
    torch.testing.assert_close(loss, (critic.q(batch.observation, batch.action) - target).square().sum(0))


def test_the_target_can_take_the_mean_of_the_q_functions():
    critic = DoubleQ(observation_size=1, action_size=2, hidden=[8], discount=0.9, aggregate="mean")
    critic.q_target = LinearQ()
    batch = transitions(1, lambda action: torch.tensor([1.0]), False)
    # Q_1 = a - 2 b = .3, Q_2 = 2 a + b = 1.1
    loss, _ = critic.loss(batch, {"next_action": torch.tensor([[[0.5, 0.1]]])})
    target = 1.0 + 0.9 * 0.7
    torch.testing.assert_close(loss, (critic.q(batch.observation, batch.action) - target).square().sum(0))


@pytest.mark.parametrize("members", [1, 3])
def test_layer_norm_is_torch_s_in_every_member(members):
    torch.manual_seed(0)
    network = EnsembleMLP(members, 4, [8, 8], "silu", layer_norm=True)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    x = torch.randn(5, 4)
    for member, found in enumerate(network(x)):
        y = x
        for layer, norm in zip(network.layers, network.norms, strict=True):
            y = nn.functional.silu(y @ layer.weight[member] + layer.bias[member])
            y = nn.functional.layer_norm(y, (8,), norm.weight[member, 0], norm.bias[member, 0])
        torch.testing.assert_close(found, y @ network.head.weight[member, 0] + network.head.bias[member])


@pytest.mark.slow
def test_policy_evaluation_finds_the_value():
    # reward 1 for ever: 1 / (1 - gamma) = 5
    torch.manual_seed(0)
    critic = DoubleQ(observation_size=1, action_size=2, hidden=[32], discount=0.8, target_rate=0.1, lr=5e-3)
    algorithm = make(GTP, critic, steps=300, batch_size=64)
    train(algorithm, transitions(1000, lambda action: torch.ones(len(action)), False))
    action = torch.zeros(1, 2)
    assert critic.q(torch.zeros(1, 1), action).flatten().tolist() == pytest.approx([5.0, 5.0], rel=0.1)


def test_the_weights_are_those_of_the_paper():
    critic = DoubleQ(observation_size=1, action_size=2)
    algorithm = make(GTP, critic, eta=1.5, value_samples=2)
    critic.q_network = LinearQ()
    batch = transitions(64, lambda action: torch.zeros(len(action)), False)
    draws = algorithm.draw_value(batch, torch.Generator().manual_seed(1), 0.0)
    with torch.no_grad():
        value_action = algorithm.policy.target.sample(batch.observation, None, 2, draws["value_noise"]).clamp(-1, 1)
    weight, metrics = algorithm.weight(batch, draws)

    def q_min(action):
        return torch.minimum(action[..., 0] - 2 * action[..., 1], 2 * action[..., 0] + action[..., 1])

    advantage = q_min(batch.action) - q_min(value_action).mean(1)
    expected = torch.exp(1.5 * advantage.clamp(min=0) / (advantage.std() + 1e-6))
    torch.testing.assert_close(weight, expected)
    assert weight.min() == 1
    algorithm.weight_clamp = 2.0
    clamped, _ = algorithm.weight(batch, draws)
    torch.testing.assert_close(clamped, expected.clamp(max=2.0))
    algorithm.weight_clamp = 100.0
    critic.q_network.slopes *= 100  # the unit of the reward does not matter
    rescaled, _ = algorithm.weight(batch, draws)
    torch.testing.assert_close(rescaled, expected, rtol=1e-4, atol=0)
    assert metrics["advantage"].item() == pytest.approx(advantage.mean().item(), abs=1e-6)


@pytest.mark.slow
def test_the_value_can_be_an_expectile_of_the_data():
    # reward a + b of actions N(0, .4^2), one an episode: the .5-expectile is the mean, the .9-expectile scipy's
    data = transitions(4000, lambda action: action.sum(-1), True)
    for level in (0.5, 0.9):
        torch.manual_seed(0)
        critic = DoubleQ(
            observation_size=1, action_size=2, hidden=[32], lr=5e-3, target_rate=0.05, ensemble=1, expectile=level
        )
        algorithm = make(GTP, critic, steps=200, batch_size=512)
        train(algorithm, data)
        value = critic.v(torch.zeros(1, 1)).item()
        assert value == pytest.approx(expectile(data.reward.numpy(), level), abs=0.06)
        assert algorithm.draw_value(data, None, 0.0) == {}
        weight, _ = algorithm.weight(data, {})
        assert weight.min() == 1


def test_targets_are_the_moving_average_s_actions_inside_the_action_space():
    critic = DoubleQ(observation_size=1, action_size=2)
    algorithm = make(GTP, critic)
    batch = transitions(64, lambda action: action[:, 0], False)
    draws = algorithm.draw_target(batch, torch.Generator().manual_seed(0), 3, "next")
    actions = algorithm.target_action(batch.observation, draws, "next")
    assert actions.shape == (64, 3, 2)
    assert actions.abs().max() <= 1
    with torch.no_grad():
        algorithm.policy.network.layers[0].weight.mul_(0)  # not the average
    torch.testing.assert_close(algorithm.target_action(batch.observation, draws, "next"), actions)


GUIDED = [
    (GTP, {"eta": 3.0}),
    (QGuided, {"eta": 0.2, "objective": Consistency(improved=True), "solver": Renoise(steps=2)}),
    (QGuided, {"eta": 0.3, "normalize": False}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "settings"), GUIDED)
def test_guidance_moves_the_policy_towards_the_better_actions(cls, settings):
    """With one seed; `tests/acceptance/closed_forms.py` has more."""
    assert_guided(cls, settings, 0)


def assert_guided(cls, settings, seed):
    # One action an episode, the best at .8 in both coordinates; the data's mean is 0.
    data = transitions(5000, lambda action: -(action - BEST).square().sum(-1), True)
    means = {}
    for eta in (0.0, settings["eta"]):
        critic = DoubleQ(observation_size=1, action_size=2, hidden=[32], lr=3e-3)
        algorithm = make(cls, critic, seed=seed, steps=250, batch_size=256, **settings | {"eta": eta})
        train(algorithm, data, seed)
        means[eta] = algorithm.act(torch.zeros(2000, 1), torch.Generator().manual_seed(0)).mean().item()
    # a consistency model is off by up to .2 after so few updates, guided or not
    assert means[0.0] == pytest.approx(MEAN, abs=0.3 if "objective" in settings else 0.12)
    assert means[settings["eta"]] > means[0.0] + 0.12


@pytest.mark.parametrize("cls", [GTP, QGuided])
def test_state_dict_restores_everything_to_the_bit(cls, tmp_path):
    data = transitions(500, lambda action: action.sum(-1), False)

    def continued(algorithm, generator, begin):
        (phase,) = algorithm.phases
        for step in range(begin, begin + 3):
            phase.update(data.sample(32, generator), generator, step)
        return algorithm.state_dict()

    def fresh(seed):
        return make(cls, DoubleQ(observation_size=1, action_size=2), seed=seed)

    algorithm, generator = fresh(0), torch.Generator().manual_seed(0)
    continued(algorithm, generator, 0)
    torch.save({"algorithm": algorithm.state_dict(), "generator": generator.get_state()}, tmp_path / "state.pt")
    expected = continued(algorithm, generator, 3)
    restored, other = fresh(1), torch.Generator()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    restored.load_state_dict(state["algorithm"])
    other.set_state(state["generator"])
    assert same(continued(restored, other, 3), expected)
