"""Units are left out where data are fitted, in every algorithm that fits them by a network with dropout."""

import pytest
import torch
from command_line import jobs
from small import begun, random_transitions, shrink

from genpolicy.algo.algorithm import assemble
from genpolicy.network.dropout import draw_kept, dropped


def trained(*words: str):
    """An algorithm after two updates of its last phase."""
    [(job, _)] = jobs("env=multi-goal", "tuned=none", *words)
    config = job.config
    shrink(config)
    algorithm = assemble(config, 2, -torch.ones(2), torch.ones(2), seed=0)
    data, phase = random_transitions(), algorithm.phases[-1]
    source = begun(phase, data)
    generator = torch.Generator().manual_seed(0)
    for step in range(2):
        phase.update(source.rows(slice(0, 16)), generator, step)
    return algorithm


@pytest.mark.parametrize(
    "words",
    [
        ("algo=iql",),
        ("algo=awr",),
        ("algo=td3_bc",),
        ("algo=rebrac",),
        ("algo=bc", "model=gaussian", "network=mlp"),
        ("algo=bc", "model=icfm", "network=mlp"),
        ("algo=bc", "model=icfm", "network=ln_resnet"),
    ],
    ids=" ".join,
)
def test_dropout_changes_what_is_learned_and_not_what_acts(words):
    without, algorithm = (trained(*words, f"network.dropout={rate}") for rate in (0.0, 0.5))
    observation, noise = torch.rand(8, 2), algorithm.draw_noise(8)
    assert not torch.equal(algorithm.act(observation, noise=noise), without.act(observation, noise=noise))
    without.load_state_dict(algorithm.state_dict())
    assert torch.equal(algorithm.act(observation, noise=noise), without.act(observation, noise=noise))


@pytest.mark.parametrize("words", ["network=mlp network.hidden=[6,4]", "network=ln_resnet network.blocks=2"])
def test_each_unit_is_left_out_at_the_rate_and_the_rest_is_scaled(words):
    [(job, _)] = jobs("env=multi-goal", "tuned=none", "algo=bc", "model=icfm", "network.dropout=0.2", *words.split())
    network = assemble(job.config, 2, -torch.ones(2), torch.ones(2), seed=0).policy.network
    kept = draw_kept(network, 4000, torch.Generator().manual_seed(0), torch.empty(0))["kept"]
    assert set(kept.unique().tolist()) == {0.0, 1.25}
    assert (kept == 0).double().mean(0).sub(0.2).abs().max() < 5 * (0.16 / 4000) ** 0.5
    given = torch.rand(3, 2), torch.rand(3), torch.rand(3, 2)
    with dropped(network, torch.ones_like(kept[:3])):
        everything = network(*given)
    torch.testing.assert_close(everything, network(*given))
    with dropped(network, torch.zeros_like(kept[:3])):
        nothing = network(*given)
    assert not torch.equal(nothing, everything)


def test_a_perceptron_leaves_out_what_its_hidden_layers_give():
    [(job, _)] = jobs("env=multi-goal", "tuned=none", "algo=bc", "model=icfm", "network=mlp", "network.hidden=[6,4]")
    network = assemble(job.config, 2, -torch.ones(2), torch.ones(2), seed=0).policy.network
    with dropped(network, torch.cat([torch.ones(3, 6), torch.zeros(3, 4)], 1)):
        given = network(torch.rand(3, 2), torch.rand(3), torch.rand(3, 2))
    torch.testing.assert_close(given, network.layers[-1].bias.expand(3, 2))
