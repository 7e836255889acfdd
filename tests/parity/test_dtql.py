"""DTQL is that of its authors' code (Chen et al. 2024): tests/parity/reference/dtql.py."""

import contextlib
from unittest import mock

import pytest
import torch
from parity import batches, made, put
from parity_torch import assert_logged, assert_moved, choosing, doubles, ensemble, layers, sampling_from

OBSERVATION, ACTION, TIME = 5, 3, 16
SMALL = ("algo=dtql", "network.hidden=[16,16,16,16]", "critic.hidden=[16,16,16]", "algo.policy_hidden=[16,16,16]")
SMALL += ("algo.behaviour_steps=10", "algo.policy_lr=1e-4", "algo.behaviour_lr=1e-4", "select.num_candidates=50")
MORE = {
    "dtql": ("algo.alpha=5", "algo.policy_steps=10"),
    "dtql_antmaze": (
        "algo.alpha=1",
        "algo.imitation=1",
        "critic.expectile=0.9",
        "algo.policy_schedule=cosine",
        "algo.policy_steps=20",
    ),
}


def weights(arrays, updates: int | str) -> dict:
    """Ours, of the reference's; its score network is given action, observation and time, in this order."""
    named = {f"embed.{number}": f"embed.layers.{number - 1}" for number in (1, 3)}
    named |= {f"layers.layers.{theirs}": f"layers.{ours}" for theirs, ours in ((0, 0), (1, 2), (3, 4), (5, 6), (7, 8))}
    found = layers(
        arrays, {f"{updates}/behaviour/{theirs}": f"behaviour.network.{ours}" for theirs, ours in named.items()}
    )
    first = found["behaviour.network.layers.0.weight"]
    x, observation, time = first.split([ACTION, OBSERVATION, TIME], 1)
    found["behaviour.network.layers.0.weight"] = torch.cat([x, time, observation], 1)
    members = [f"{updates}/critic/q{j}_model" for j in (1, 2)]
    found |= ensemble(arrays, members, [0, 3, 6, 9], "critic.q_network", [1, 4, 7])
    found |= ensemble(arrays, [f"{updates}/critic/v_model"], [0, 2, 4, 6], "critic.v_network")
    if updates != "pretrained_10":  # policy and target Q are not trained then
        named = {f"{updates}/policy/net.{number}": f"policy.network.layers.{number}" for number in (0, 2, 4, 6)}
        target = [member.replace("critic", "critic_target") for member in members]
        found |= layers(arrays, named) | ensemble(arrays, target, [0, 3, 6, 9], "critic.q_target", [1, 4, 7])
    return found


@pytest.fixture(params=MORE)
def given(request):
    _, arrays = doubles(request.param)
    algorithm = made(*SMALL, *MORE[request.param])
    put(algorithm, weights(arrays, 0))
    return arrays, algorithm


def update(algorithm, arrays, phase: int, number: int) -> dict:
    """One step of a phase with the fixture's draws; its metrics."""
    pairs = ["behaviour_", ""] if phase else ["behaviour_"]
    units = [arrays[f"draw/{prefix}unit"][number] for prefix in pairs]
    noises = [arrays[f"draw/{prefix}noise"][number] for prefix in pairs]
    actions = [arrays["draw/action_noise"][number][None]] if phase else []
    with contextlib.ExitStack() as stack:
        stack.enter_context(sampling_from(*actions))
        stack.enter_context(mock.patch.object(torch, "rand", side_effect=units))
        for module, noise in zip(("objective.regression", "algo.distilled"), noises, strict=False):
            stack.enter_context(mock.patch(f"genpolicy.{module}.standard_normal", side_effect=[noise]))
        return algorithm.phases[phase].update(batches(arrays)[number], torch.Generator(), number)


def pretrained(arrays, algorithm) -> None:
    """Trains the first phase, where the fixture has it."""
    if any(name.startswith("pretrained") for name in arrays):
        for number in range(10):
            update(algorithm, arrays, 0, number)


def test_updates_are_theirs(given):
    arrays, algorithm = given
    initial = weights(arrays, 0)
    pretrained(arrays, algorithm)
    if "pretrained_10/behaviour/embed.1.weight" in arrays:
        assert_moved(algorithm, initial, weights(arrays, "pretrained_10"))
        torch.testing.assert_close(
            dict(algorithm.named_parameters())["critic.q_target.head.weight"], initial["critic.q_target.head.weight"]
        )
    for number in range(10):
        metrics = update(algorithm, arrays, 1, number)
        metrics["policy_penalty"] /= algorithm.alpha
        theirs = {"policy_loss": "actor_loss", "policy_penalty": "distill_loss"}
        theirs |= {"behaviour_loss": "bc_loss", "critic_loss": "critic_loss"}
        assert_logged(metrics, arrays, theirs, number)
        if number in (0, 9):
            assert_moved(algorithm, initial, weights(arrays, number + 1))


def test_the_action_played_is_theirs(given):
    arrays, algorithm = given
    pretrained(arrays, algorithm)
    for number in range(10):
        update(algorithm, arrays, 1, number)
    with sampling_from(arrays["draw/candidates"][None]), choosing(7) as chosen:
        action = algorithm.act(arrays["batch/observations"][0, :1], torch.Generator())
    torch.testing.assert_close(action[0], arrays["act"])
    torch.testing.assert_close(chosen[0][0], arrays["chances"], rtol=1e-6, atol=0)


def test_the_policy_begins_orthogonal_the_rest_as_torch_s_layers_do():
    algorithm = made("algo=dtql")
    layer = algorithm.policy.network.layers[2]
    torch.testing.assert_close(layer.weight @ layer.weight.T, torch.eye(256, dtype=torch.float64), rtol=0, atol=1e-5)
    assert (layer.bias == 0).all()
    for layer in (algorithm.behaviour.network.layers[2], algorithm.critic.q_network.layers[1]):
        assert 0.98 / 16 < layer.weight.abs().max() <= 1 / 16
