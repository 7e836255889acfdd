"""EDP is that of its authors' code (Kang et al. 2023): tests/parity/reference/edp.py."""

import pytest
import torch
from parity import batches, made, put
from parity_torch import assert_logged, assert_moved, choosing, doubles, sampling_from, tossing

OBSERVATION, ACTION, TIME = 5, 3, 16
SMALL = ("algo=edp", "network.hidden=[16,16,16]", "critic.hidden=[16,16,16]", "algo.gradient_norm=0.2")
SMALL += ("model.path.steps=25", "solver.steps=25")  # of 100: of the reference, too, for speed
MORE = {"edp": ()}


def weights(arrays, updates: int) -> dict:
    """Ours, of the reference's; its network is given observation, action and time, and cosines before sines."""
    observed, acted, time = torch.arange(OBSERVATION + ACTION + TIME).split([OBSERVATION, ACTION, TIME])
    first, sines_first = torch.cat([acted, time, observed]), torch.arange(TIME).roll(TIME // 2)
    found = {}
    for theirs, ours in {"policy": "policy", "target_policy": "policy.target"}.items():
        base, network = f"{updates}/{theirs}/base_net", f"{ours}.network"
        named = {f"{base}/Dense_{number}": f"{network}.layers.{2 * number}" for number in range(4)}
        named |= {f"{base}/TimeEmbedding_0/Dense_{number}": f"{network}.embed.layers.{2 * number}" for number in (0, 1)}
        for flax, torch_name in named.items():
            found[f"{torch_name}.weight"] = arrays[f"{flax}/kernel"].T
            found[f"{torch_name}.bias"] = arrays[f"{flax}/bias"]
        for name, order in {"layers.0.weight": first, "embed.layers.0.weight": sines_first}.items():
            found[f"{network}.{name}"] = found[f"{network}.{name}"][:, order]
    for theirs, ours in {"": "q_network", "target_": "q_target"}.items():
        for number in range(4):
            name = "head" if number == 3 else f"layers.{number}"
            members = [f"{updates}/{theirs}qf{j}/Dense_{number}" for j in (1, 2)]
            kernel = torch.stack([arrays[f"{member}/kernel"] for member in members])
            bias = torch.stack([arrays[f"{member}/bias"] for member in members])
            found[f"critic.{ours}.{name}.weight"] = kernel.mT if number == 3 else kernel
            found[f"critic.{ours}.{name}.bias"] = bias if number == 3 else bias[:, None]
    return found


@pytest.fixture(params=MORE)
def given(request):
    about, arrays = doubles(request.param)
    algorithm = made(*SMALL, *MORE[request.param])
    put(algorithm, weights(arrays, 0))
    [phase] = algorithm.phases
    phase.updates["actor"].optimizer.count = about["settings"]["start"]
    return arrays, algorithm


def update(algorithm, arrays, number: int) -> dict:
    """One step of the phase with the fixture's draws; its metrics."""
    [phase] = algorithm.phases
    matching = {"t": (arrays["draw/t"][number] + 1) / 25, "noise": arrays["draw/noise"][number]}
    algorithm.objective.draw = lambda *given: matching
    with sampling_from(arrays["draw/next_noise"][number]), tossing(arrays["draw/coin"][number]):
        return phase.update(batches(arrays)[number], torch.Generator(), number)


def test_updates_are_theirs(given):
    arrays, algorithm = given
    initial = weights(arrays, 0)
    for number in range(10):
        metrics = update(algorithm, arrays, number)
        theirs = {"actor_loss": "policy_loss", "actor_matching": "diff_loss", "critic_loss": "qf_loss"}
        theirs |= {"critic_target": "tgt_q", "actor_gradient": "policy_grad_norm"}
        assert_logged(metrics, arrays, theirs, number)
        if number in (0, 9):
            # optax's clipping is torch's without 1e-6 beside the norm
            assert_moved(algorithm, initial, weights(arrays, number + 1), rtol=1e-4)


def test_the_action_played_is_theirs(given):
    arrays, algorithm = given
    for number in range(10):
        update(algorithm, arrays, number)
    with sampling_from(arrays["draw/candidates"]), choosing(7) as chosen:
        action = algorithm.act(arrays["batch/observations"][0, :1], torch.Generator())
    torch.testing.assert_close(action[0], arrays["act"], rtol=1e-5, atol=1e-6)
    chances = torch.softmax(arrays["logits"], -1)
    torch.testing.assert_close(chosen[0][0], chances, rtol=1e-5, atol=0)


def test_networks_begin_as_flax_s_layers_do():
    torch.manual_seed(0)
    algorithm = made("algo=edp")
    layer = algorithm.policy.network.layers[2]
    q_network = algorithm.critic.q_network
    for weight in (layer.weight, q_network.layers[1].weight[0], q_network.head.weight[1]):
        assert weight.std().item() == pytest.approx(256**-0.5, rel=0.15)
        assert weight.abs().max() < 2.3 * 256**-0.5  # cut at two standard deviations
    inputs = OBSERVATION + ACTION
    assert q_network.layers[0].weight.std().item() == pytest.approx(inputs**-0.5, rel=0.05)
    assert (layer.bias == 0).all()
