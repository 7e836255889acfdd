"""SRPO beside its authors' code, thu-ml/SRPO: behaviour model, critic and policy, each for ten updates."""

import pytest
import torch
from parity import batches, made, put
from parity_thu import frequencies, q
from parity_torch import assert_moved, doubles, ensemble, layers
from torch import nn

WORDS = ("algo=srpo", "network.width=8", "network.blocks=2", "network.time_size=8", "network.time_hidden=[6,6]")
WORDS += ("critic.hidden=[12,12]", "algo.policy_steps=10")


def behaviour(arrays, prefix):
    names = {"main.fc": "first", "main.out_fc": "last", "cond_model.0": "time.0", "cond_model.2": "time.2"}
    blocks = {"layer_norm": "norm", "fc1": "first", "fc2": "second"}
    names |= {f"main.blocks.{i}.{one}": f"residual.{i}.{other}" for i in (0, 1) for one, other in blocks.items()}
    return layers(
        arrays, {f"{prefix}/behaviour/{theirs}": f"behaviour.network.{ours}" for theirs, ours in names.items()}
    )


def critic(arrays, prefix):
    found = q(arrays, prefix, "q", "critic.q_network", [0, 2, 4])
    return found | ensemble(arrays, [f"{prefix}/v/v"], [0, 2, 4], "critic.v_network")


def target(arrays, prefix):
    return q(arrays, prefix, "q_target", "critic.q_target", [0, 2, 4])


def policy(arrays, prefix, hidden):
    names = {f"{prefix}/policy/net.{2 * i}": f"policy.network.layers.{2 * i}" for i in range(hidden + 1)}
    return layers(arrays, names)


def gradients(algorithm, names):
    return {name: parameter.grad for name, parameter in algorithm.named_parameters() if name in names}


@pytest.mark.parametrize(("name", "more"), [("srpo", {}), ("srpo_antmaze", {"normalize": True, "expectile": 0.9})])
def test_ten_updates_of_each_stage(name, more):
    about, arrays = doubles(name)
    settings, hidden = about["settings"], about["settings"]["policy_layer"]
    assert (settings["regq"], settings["WT"]) == (int(more.get("normalize", False)), "VDS")
    words = [*WORDS, f"algo.beta={settings['beta']}", f"algo.policy_hidden={[12] * hidden}".replace(" ", "")]
    words += [f"algo.normalize={str(more.get('normalize', False)).lower()}"]
    words += [f"critic.expectile={more.get('expectile', 0.7)}"]
    algorithm, data = made(*words), batches(arrays)
    start = behaviour(arrays, "0") | critic(arrays, "0") | target(arrays, "0") | policy(arrays, "0", hidden)
    stages = {phase.name: phase for phase in algorithm.phases}

    put(algorithm, start)
    frequencies(algorithm.behaviour.network, arrays["0/behaviour/embed.0.W"])
    [update] = stages["policy"].updates.values()
    for number, batch in enumerate(data):
        # Theirs: 0.96 u + 0.02.
        draws = {"t": 0.96 * arrays["draw/t"][number] + 0.02, "noise": arrays["draw/noise"][number]}
        update.step(batch, draws | {"action_noise": torch.zeros_like(draws["noise"])}, number / 10)
        if number == 0:
            wanted = policy(arrays, "gradient", hidden)
            torch.testing.assert_close(gradients(algorithm, wanted), wanted, rtol=1e-5, atol=1e-9)
            assert_moved(algorithm, start, policy(arrays, "1", hidden))
    assert_moved(algorithm, start, policy(arrays, "10", hidden))

    [update] = stages["critic"].updates.values()
    for number, batch in enumerate(data):
        metrics = update.step(batch, {})
        if number == 0:
            torch.testing.assert_close(metrics["v_loss"], arrays["info/v_loss"])
            torch.testing.assert_close(metrics["q_loss"], arrays["info/q_loss"])
            assert_moved(algorithm, start, critic(arrays, "1") | target(arrays, "1"))
    assert_moved(algorithm, start, critic(arrays, "10") | target(arrays, "10"))

    if name == "srpo":
        [update] = stages["behaviour"].updates.values()
        for number, batch in enumerate(data):
            draws = {"t": (1 - 1e-3) * arrays["draw/behaviour_t"][number] + 1e-3}
            draws |= {"noise": arrays["draw/behaviour_noise"][number], "kept": arrays["draw/kept"][number] / 0.9}
            metrics = update.step(batch, draws)
            if number == 0:
                torch.testing.assert_close(metrics["loss"], arrays["info/loss"])
                assert_moved(algorithm, start, behaviour(arrays, "1"))
        assert_moved(algorithm, start, behaviour(arrays, "10"))


def test_what_is_drawn():
    algorithm, [batch] = made(*WORDS), batches(doubles("srpo")[1], 1)
    generator, policy, fitting = torch.Generator().manual_seed(0), algorithm.phases[2], algorithm.phases[0]
    times = [policy.updates[""].draw(batch, generator, 0.0)["t"] for _ in range(100)]
    assert 0.02 <= torch.cat(times).min() < 0.03 < 0.97 < torch.cat(times).max() <= 0.98
    drawn = [fitting.updates[""].draw(batch, generator, 0.0) for _ in range(100)]
    times = torch.cat([draws["t"] for draws in drawn])
    assert 1e-3 <= times.min() < 0.01 < 0.99 < times.max() <= 1
    kept = torch.stack([draws["kept"] for draws in drawn])
    assert set(kept.unique().tolist()) == {0.0, 1 / 0.9}
    assert (kept == 0).double().mean() == pytest.approx(0.1, abs=0.01)


def test_the_networks_are_initialised_as_theirs():
    """By nn.Linear's own scheme: uniform within 1 / sqrt(inputs), biases too; frequencies are of scale 30."""
    algorithm = made("algo=srpo")
    for part in (algorithm.behaviour.network, algorithm.policy.network):
        for layer in part.modules():
            if isinstance(layer, nn.Linear) and layer.weight.numel() > 1000:
                bound = layer.in_features**-0.5
                assert 0.95 * bound < layer.weight.abs().max() <= bound
                assert layer.bias.abs().max() <= bound
    frequency = algorithm.behaviour.network.embed.frequency / (2 * torch.pi)
    assert frequency.shape == (32,)
    assert 15 < frequency.std() < 45
