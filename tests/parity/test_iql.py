"""IQL is that of its authors' code (Kostrikov et al. 2022): tests/parity/reference/iql.py."""

from unittest import mock

import pytest
import torch
from parity import assert_equal, batches, fixture, flax_ensemble, made, put
from torch import Tensor

SMALL = ("algo=iql", "network.hidden=[16,16]", "critic.hidden=[16,16]", "algo.steps=20")


def weights(arrays: dict[str, Tensor], updates: int) -> dict[str, Tensor]:
    """Ours, of the reference's."""
    found = flax_ensemble(arrays, f"{updates}/value/MLP_0", "critic.v_network")
    for theirs, ours in {"critic": "q_network", "target_critic": "q_target"}.items():
        members = [flax_ensemble(arrays, f"{updates}/{theirs}/Critic_{j}/MLP_0", f"critic.{ours}") for j in (0, 1)]
        found |= {name: torch.cat([member[name] for member in members]) for name in members[0]}
    layers = [f"{updates}/actor/{name}" for name in ("MLP_0/Dense_0", "MLP_0/Dense_1", "Dense_0")]
    for number, layer in enumerate(layers):
        found[f"policy.network.layers.{2 * number}.weight"] = arrays[f"{layer}/kernel"].T
        found[f"policy.network.layers.{2 * number}.bias"] = arrays[f"{layer}/bias"]
    return found | {"policy.log_std": arrays[f"{updates}/actor/log_stds"]}


@pytest.mark.parametrize("dropout", [False, True])
def test_updates_are_theirs(dropout):
    about, arrays = fixture("iql")
    settings, rate = about["settings"], 0.0
    kept = arrays["dropout/kept"]
    if dropout:
        rate = settings["dropout_rate"]
        arrays |= {key.removeprefix("dropout/"): array for key, array in arrays.items() if key.startswith("dropout/")}
    more = (f"algo.beta={settings['temperature']}", f"critic.expectile={settings['expectile']}")
    algorithm = made(*SMALL, *more, f"network.dropout={rate}")
    put(algorithm, weights(arrays, 0))
    [phase] = algorithm.phases
    assert list(phase.updates) == ["v", "policy", "q"]
    for number, batch in enumerate(batches(arrays)):
        drawn = phase.updates["policy"].draw(batch, torch.Generator(), 0.0)
        assert {key: draw.shape for key, draw in drawn.items()} == ({"kept": kept[number].shape} if dropout else {})
        theirs = dict.fromkeys(drawn, kept[number])
        with mock.patch.object(phase.updates["policy"], "draw", return_value=theirs):
            metrics = phase.update(batch, torch.Generator(), number)
        if number == 0:
            theirs = {"v_loss": "value_loss", "policy_loss": "actor_loss", "q_loss": "critic_loss", "v_mean": "v"}
            for ours, name in theirs.items():
                torch.testing.assert_close(metrics[ours], arrays[f"info/{name}"], rtol=1e-5, atol=0)
        if number in (0, 9):
            assert_equal(algorithm, weights(arrays, number + 1))
    assert (algorithm.critic.target_rate, algorithm.critic.discount) == (settings["tau"], settings["discount"])
    assert algorithm.steps == settings["max_steps"]  # of the cosine


def test_the_target_is_asked_once_for_v_and_the_policy():
    [phase] = (algorithm := made(*SMALL)).phases
    _, arrays = fixture("iql")
    asked = []
    algorithm.critic.q_target.register_forward_hook(lambda *given: asked.append(1))
    phase.update(batches(arrays)[0], torch.Generator(), 0)
    assert len(asked) == 1


def test_weights_begin_orthogonal_and_biases_at_0():
    torch.manual_seed(0)
    algorithm = made("algo=iql")
    (one, two) = algorithm.critic.q_network.layers[1].weight
    for weight in (one, two, algorithm.policy.network.layers[2].weight):
        torch.testing.assert_close(weight @ weight.T, 2 * torch.eye(256, dtype=weight.dtype), rtol=0, atol=1e-5)
    assert not torch.equal(one, two)
    head = algorithm.critic.v_network.head
    assert head.weight.norm().item() == pytest.approx(2**0.5)
    assert not head.bias.any()
    assert not algorithm.policy.log_std.any()


def test_the_std_is_limited_and_the_mean_is_played():
    algorithm = made(*SMALL)
    with torch.no_grad():
        algorithm.policy.log_std[:] = torch.tensor([-9.0, 0.0, 9.0])
        assert algorithm.policy.std().log().tolist() == pytest.approx([-5.0, 0.0, 2.0])
        observation = torch.randn(4, 5, dtype=torch.float64)
        assert torch.equal(algorithm.act(observation), algorithm.policy.mean(observation))
