"""GMPO, its softmax variants and their critic beside the authors' code, GenerativeRL, each for ten updates."""

import pytest
import torch
from parity import batches, made, put
from parity_generative_rl import SIZES, critic, double, frequencies, network
from parity_torch import assert_moved, doubles

WORDS = (*SIZES, "critic.hidden=[12,12]", "algo.beta=8")


def begun(*words):
    about, arrays = doubles("gmpo")
    assert about["settings"] == {
        "beta": 8.0,
        "weight_clamp": 2,
        "tau": 0.7,
        "discount": 0.99,
        "update_momentum": 0.005,
        "lr": 1e-4,
    }
    algorithm = made(*WORDS, *words)
    start = critic(arrays, "0") | network(arrays, "0", "guided", "policy")
    put(algorithm, start)
    frequencies(algorithm.policy.network, arrays, "guided")
    return algorithm, start, arrays


def test_ten_updates_of_critic_and_policy():
    algorithm, start, arrays = begun("algo=gmpo", "algo.weight_clamp=2")
    data = batches(arrays)
    [update] = algorithm.phases[1].updates.values()
    double(update)
    for number, batch in enumerate(data):
        # Theirs: (1 - 1e-5) u + 1e-5.
        t = (1 - 1e-5) * arrays["draw/t"][number] + 1e-5
        metrics = update.step(batch, {"t": t, "noise": arrays["draw/noise"][number]}, number / 10)
        if number == 0:
            assert 0 < metrics["clamped"] < 1
            wanted, named = network(arrays, "gmpo/gradient", "guided", "policy"), dict(algorithm.named_parameters())
            for name, value in wanted.items():
                torch.testing.assert_close(named[name].grad, 2 * value, rtol=1e-5, atol=1e-9)
            assert_moved(algorithm, start, network(arrays, "gmpo/1", "guided", "policy"))
    assert_moved(algorithm, start, network(arrays, "gmpo/10", "guided", "policy"))

    [update] = algorithm.phases[0].updates.values()
    for number, batch in enumerate(data):
        update.step(batch, {}, number / 10)
        if number in (0, 9):
            assert_moved(algorithm, start, critic(arrays, str(number + 1)))


@pytest.mark.parametrize("name", ["gmpo_softmax_static", "gmpo_softmax_fresh"])
def test_ten_updates_of_the_softmax_variants(name):
    algorithm, start, arrays = begun(f"algo={name}", "algo.num_actions=4")
    [update] = algorithm.phases[2].updates.values()
    double(update)
    for number, batch in enumerate(batches(arrays)):
        t = (1 - 1e-5) * arrays["draw/t_softmax"][number] + 1e-5
        algorithm.actions = lambda *given, number=number: arrays["batch/behaviour_action"][number]
        update.step(batch, {"t": t, "noise": arrays["draw/noise_softmax"][number]}, number / 10)
        if number in (0, 9):
            wanted = network(arrays, f"softmax/{number + 1}", "guided", "policy")
            assert_moved(algorithm, start, wanted)


def test_the_weights_begin_as_torch_begins_linear_layers():
    algorithm = made("algo=gmpo", "network=residual")
    layer, critic = algorithm.policy.network.down[0].first, algorithm.critic
    layers = [(layer.weight, layer.bias)]
    layers += [(net.layers[1].weight, net.layers[1].bias) for net in (critic.q_network, critic.v_network)]
    for weight, bias in layers:
        size = layer.in_features if weight is layer.weight else 256
        assert 0.95 < weight.abs().max() * size**0.5 <= 1
        assert 0.5 < bias.abs().max() * size**0.5 <= 1
    assert all(map(torch.equal, critic.q_target.parameters(), critic.q_network.parameters()))
