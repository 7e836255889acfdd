"""Encoders of the parts of observations (`observation_parts`), in front of the policy's network and the critic's."""

import json

import pytest
import torch
from command_line import genpolicy, jobs
from small import ALGORITHMS, begun, random_transitions, shrink
from tiny import plain_words, same, whole_and_resumed
from torch.nn.functional import layer_norm, linear

from genpolicy.algo.algorithm import assemble
from genpolicy.api import load_policy
from genpolicy.config.arguments import options
from genpolicy.config.run_settings import TrainSettings
from genpolicy.config.schema import TRAINING, part
from genpolicy.network.ensemble import EnsembleEncoder, EnsembleMLP
from genpolicy.runs import checkpoint
from genpolicy.runs.identity import identity
from genpolicy.runs.phases import recipe

TASK = ("tuned=none", "env=multi-goal")


def composed(*words):
    [(job, _)] = jobs(*TASK, *words)
    return job.config


def small(*words):
    config = composed("network=mlp", *words)
    shrink(config)
    return config


def made(config, observation=2):
    return assemble(config, observation, -torch.ones(2), torch.ones(2), 0)


def test_an_encoder_is_two_layers_and_a_layer_norm_for_each_part_and_member():
    encoder = EnsembleEncoder(3, [2, 1])
    observation = torch.randn(3, 7, 3)
    found, members = encoder(observation), encoder(observation[[2, 0]], torch.tensor([2, 0]))
    assert torch.equal(members, found[[2, 0]])
    for member in range(3):
        pieces = []
        for own, values in zip(encoder.parts, observation[member].split([2, 1], -1), strict=True):
            hidden = linear(values, own.first.weight[member].T, own.first.bias[member, 0]).relu()
            hidden = linear(hidden, own.second.weight[member].T, own.second.bias[member, 0])
            pieces.append(layer_norm(hidden, hidden.shape[-1:]))
        torch.testing.assert_close(found[member], torch.cat(pieces, -1))


@pytest.mark.parametrize("name", sorted(options("network")))
def test_each_network_takes_encoded_observations(name):
    words = (f"network={name}", "algo=gmpo", "chunk.length=2")
    network = made(composed(*words, "observation_parts=[2,3]"), 5).policy.network
    plain = made(composed(*words), 10).policy.network
    plain.load_state_dict({key: value for key, value in network.state_dict().items() if "encoder." not in key})
    x, t, observation = torch.randn(6, 4), torch.rand(6), torch.randn(6, 5)
    encoded = network.encoder(observation[None])[0]
    torch.testing.assert_close(network(x, t, observation), plain(x, t, encoded))
    assert network.observation_size == 5


def updated(algorithm):
    """The algorithm after two updates of each phase."""
    data, generator = random_transitions(), torch.Generator().manual_seed(0)
    for phase in algorithm.phases:
        source = begun(phase, data)
        for step in (phase.steps // 2, phase.steps // 2 + 1):
            metrics = phase.update(source.sample(8, generator), generator, step)
            assert all(torch.isfinite(metric) for metric in metrics.values())
    return algorithm


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_each_algorithm_trains_the_encoders_of_its_network_and_its_critic(name):
    algorithm = made(small(f"algo={name}", "observation_parts=[2]"))
    begin = {key: value.clone() for key, value in algorithm.named_parameters()}
    updated(algorithm)
    updates = [update for phase in algorithm.phases for update in phase.updates.values()]
    trained = {id(parameter) for update in updates for parameter in update.parameters}
    own = {key: value for key, value in algorithm.named_parameters() if ".encoder." in key and id(value) in trained}
    assert len(own) >= 6
    assert not [key for key, value in own.items() if torch.equal(value, begin[key])]
    if algorithm.critic is not None:
        assert all(net.encoder is not None for net in algorithm.critic.modules() if isinstance(net, EnsembleMLP))


def test_a_run_without_encoders_is_what_it_was_and_other_parts_are_another_run():
    config = small("algo=gmpg")
    assert "observation_parts" not in part(config, TrainSettings, TRAINING)
    found = [small("algo=gmpg", f"observation_parts={parts}") for parts in ("[]", "[2,3]", "[3,2]")]
    assert identity(found[0]) == identity(config)
    assert len({identity(each) for each in found}) == 3
    recipes = [recipe(each, made(each, 5).phases, "critic") for each in found]
    assert "observation_parts" not in recipes[0]
    assert len({json.dumps(each) for each in recipes}) == 3


def test_a_run_resumes_to_the_bit_and_its_policy_acts(tmp_path, monkeypatch):
    words = plain_words(tmp_path, "observation_parts=[2,1]", "network=mlp", "algo.critic_steps=20")
    words = [word for word in words if not word.startswith(("paths.outputs=", "algo.policy_steps="))]
    words.append("algo.policy_steps=20")
    runs = whole_and_resumed(tmp_path, words, 30)  # in the second phase
    saved = [checkpoint.load(run / "last.pt")["algorithm"] for run in runs]
    assert same(*saved)
    assert "policy.network.encoder.parts.1.norm.weight" in saved[0]
    policies = [load_policy(run) for run in runs]
    observation = torch.randn(4, 3)
    actions = [policy.act(observation, seed=0) for policy in policies]
    assert torch.equal(*actions)


@pytest.mark.parametrize("more", [(), ("-m", "seed=0,1"), ("seeds=0,1",)])
def test_parts_that_are_no_observation_are_one_line_before_a_run_is_made(more, tmp_path):
    words = plain_words(tmp_path, "observation_parts=[2,2]", "network=mlp")
    result = genpolicy(*more, *words)
    assert result.code == 1
    assert result.err == (
        "genpolicy: observation_parts=[2, 2]: these are 4 numbers, but an observation of this task has 3\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["data.npz"]


@pytest.mark.parametrize("value", ["[0,3]", "[-1]", "3", "[a]", "[1.5]", "[1001]"])
def test_sizes_of_parts_are_whole_numbers_above_nothing(value):
    result = genpolicy(*TASK, "algo=gmpo", f"observation_parts={value}")
    assert result.code == 1
    assert result.err.startswith("genpolicy: observation_parts")
    assert result.err.count("\n") == 1
