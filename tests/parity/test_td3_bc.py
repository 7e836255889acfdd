"""TD3+BC is that of its authors' code (Fujimoto and Gu 2021): tests/parity/reference/td3_bc.py."""

import pytest
import torch
from parity import batches, made, put
from parity_torch import assert_moved, doubles, layers

SMALL = ("algo=td3_bc", "network.hidden=[16,16]", "critic.hidden=[16,16]")
MEMBERS = ((1, 2, 3), (4, 5, 6))  # the layers of their two Q functions


def weights(arrays, updates: int) -> dict:
    """Ours, of the reference's."""
    found = {}
    for theirs, ours in {"actor": "policy", "actor_target": "policy.target"}.items():
        names = {f"{updates}/{theirs}/l{number + 1}": f"{ours}.network.layers.{2 * number}" for number in range(3)}
        found |= layers(arrays, names)
    for theirs, ours in {"critic": "q_network", "critic_target": "q_target"}.items():

        def stacked(layer: int, part: str, theirs=theirs):
            return torch.stack([arrays[f"{updates}/{theirs}/l{member[layer]}.{part}"] for member in MEMBERS])

        for layer in range(2):
            found[f"critic.{ours}.layers.{layer}.weight"] = stacked(layer, "weight").mT
            found[f"critic.{ours}.layers.{layer}.bias"] = stacked(layer, "bias")[:, None]
        found |= {f"critic.{ours}.head.{part}": stacked(2, part) for part in ("weight", "bias")}
    return found


def test_updates_are_theirs():
    about, arrays = doubles("td3_bc")
    algorithm = made(*SMALL)
    put(algorithm, weights(arrays, 0))
    [phase] = algorithm.phases
    critic, initial = phase.updates["critic"], weights(arrays, 0)
    for number, batch in enumerate(batches(arrays)):
        noise = arrays["draw/noise"][number][:, None, None]
        critic.draw = lambda *given, noise=noise: {"next_noise": noise}
        phase.update(batch, torch.Generator(), number)
        if number in (0, 1, 9):
            assert_moved(algorithm, initial, weights(arrays, number + 1))
    ours = {"discount": algorithm.critic.discount, "tau": algorithm.critic.target_rate}
    ours |= {"policy_noise": algorithm.smoothing, "noise_clip": algorithm.smoothing_limit}
    ours |= {"policy_freq": algorithm.policy_delay, "alpha": algorithm.eta}
    assert about["settings"] == ours
    assert algorithm.policy.target_rate == ours["tau"]


def test_the_actor_asks_the_first_q_function_alone():
    algorithm = made(*SMALL)
    [phase] = algorithm.phases
    with torch.no_grad():
        for parameter in algorithm.critic.q_network.parameters():
            parameter[1] = torch.nan
    _, arrays = doubles("td3_bc")
    metrics = phase.updates["actor"](batches(arrays)[0], torch.Generator(), 0.0)
    assert all(metric.isfinite() for metric in metrics.values())
    assert all(parameter.isfinite().all() for parameter in algorithm.policy.network.parameters())


def test_networks_begin_as_torch_s_layers_do():
    torch.manual_seed(0)
    algorithm = made("algo=td3_bc")
    first, second = algorithm.policy.network.layers[0], algorithm.critic.q_network.layers[1]
    assert first.in_features == 5  # observations alone
    assert 0.98 / 5**0.5 < first.weight.abs().max() <= 1 / 5**0.5
    assert 0.98 / 16 < second.weight.abs().max() <= 1 / 16


def test_the_action_played_is_the_mean():
    algorithm = made(*SMALL)
    observation = torch.randn(4, 5, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(algorithm.act(observation), algorithm.policy.mean(observation))


def test_noise_is_limited_and_actions_stay_in_their_space():
    algorithm = made(*SMALL)
    action, noise = torch.tensor([0.0, 0.0, 0.9]), torch.tensor([1.0, 9.0, 9.0])
    assert algorithm.smoothed(action, noise).tolist() == pytest.approx([0.2, 0.5, 1.0])
