"""DSRL and EXPO are those of QAM's authors' code (Li and Levine 2026): tests/parity/reference/dsrl.py."""

import pytest
import torch
from parity import (
    assert_acts,
    assert_equal,
    assert_ten_updates,
    assert_terms,
    batches,
    fixture,
    flax_ensemble,
    flax_layer,
    flax_mlp,
    made,
    put,
)

OBSERVATION, ACTION = 5, 3
SMALL = (
    "critic.ensemble=3",
    "solver.steps=4",
    "network.hidden=[8,8]",
    "critic.hidden=[8,8]",
    "algo.policy_hidden=[8,8]",
)
BEST = ("select=greedy_aggregate", "select.num_candidates=3")
WORDS = {
    "dsrl": ("algo=dsrl", "algo.noise_scale=0.6"),
    "dsrl_best": ("algo=dsrl", "algo.noise_scale=1.4", *BEST),
    "expo": ("algo=expo", "algo.edit_scale=0.3"),
    "expo_best": ("algo=expo", "algo.edit_scale=0.5", *BEST),
}
OBSERVED, ACTED = list(range(OBSERVATION)), list(range(OBSERVATION, OBSERVATION + ACTION))


def gaussian(arrays, prefix: str, inputs) -> dict:
    """Their tanh-Gaussian, whose mean and standard deviation are layers of their own, as our policy's perceptron."""
    parts = flax_layer(arrays, f"{prefix}/MLP_0/Dense_0", "policy.network.layers.0", inputs)
    parts |= flax_layer(arrays, f"{prefix}/MLP_0/Dense_1", "policy.network.layers.2")
    heads = [
        flax_layer(arrays, f"{prefix}/OutputDense{name}", "policy.network.layers.4") for name in ("Mean", "LogStd")
    ]
    return parts | {name: torch.cat([head[name] for head in heads]) for name in heads[0]}


def weights(arrays, updates: int) -> dict:
    """Ours, of the reference's after so many updates."""
    prefix = f"{updates}/modules"
    parts = flax_ensemble(arrays, f"{prefix}_critic/value_net", "critic.q_network")
    parts |= flax_ensemble(arrays, f"{prefix}_target_critic/value_net", "critic.q_target")
    steered = f"{prefix}_z_critic/value_net/Dense_0/kernel" in arrays
    flows = {"actor_bc_flow": "behaviour"} | ({"target_actor_bc_flow": "behaviour.target"} if steered else {})
    for theirs, ours in flows.items():  # velocities that point the other way
        inputs = [*ACTED, OBSERVATION + ACTION, *OBSERVED]
        parts |= flax_mlp(arrays, f"{prefix}_{theirs}/mlp", f"{ours}.network", inputs, sign=-1.0)
    if steered:
        parts |= flax_ensemble(arrays, f"{prefix}_z_critic/value_net", "latent_critic")
        parts |= gaussian(arrays, f"{prefix}_actor", slice(None))
    else:
        parts |= gaussian(arrays, f"{prefix}_edit_actor", [*ACTED, *OBSERVED])
    return parts | {"log_temperature": arrays[f"{prefix}_alpha/log_value"][None]}


def noise(arrays, number: int, *names: str) -> torch.Tensor:
    """The policy's noise [B, candidates, noises, A], of draws of these names, if there are any."""
    found = [arrays[f"draw/{name}"][number] for name in names if f"draw/{name}" in arrays]
    return torch.stack([each if each.dim() == 3 else each[:, None] for each in found], 2)


@pytest.fixture(params=WORDS)
def given(request):
    _, arrays = fixture(request.param)
    algorithm = made(*WORDS[request.param], *SMALL)
    put(algorithm, weights(arrays, 0))
    return arrays, algorithm


def update(algorithm, arrays, number: int) -> dict:
    """One step with the fixture's draws; its metrics."""
    [phase] = algorithm.phases
    noises = [noise(arrays, number, *names).flatten(0, 1) for names in (("next", "next_edit"), ("noise", "edit"))]
    algorithm.policy.draw_noise = lambda *given: noises.pop(0)
    given = {"t": 1 - arrays["draw/t"][number][:, 0], "noise": arrays["draw/flow_noise"][number]}
    algorithm.objective.draw = lambda *arguments: given
    batch = batches(arrays)[number]
    drawn = phase.updates[""].drawn(batch, torch.Generator(), 0.0)
    if "draw/latent" in arrays:
        drawn["latent_noise"] = arrays["draw/latent"][number]
    return phase.updates[""].step(batch, drawn)


def test_an_update_is_theirs(given):
    arrays, algorithm = given
    metrics = update(algorithm, arrays, 0)
    theirs = {"critic_loss": "critic/critic_loss", "critic_q": "critic/q_mean"}
    if "info/critic/distill_loss" in arrays:
        theirs |= {"distilled": "critic/distill_loss", "matching": "actor/flow_loss", "entropy": "actor/entropy"}
        theirs |= {"temperature": "actor/alpha", "q": "actor/q"}
    else:
        theirs |= {"matching": "actor/bc_flow_loss", "entropy": "actor/edit_entropy"}
        assert_terms(metrics, {"q": -arrays["info/actor/edit_q_loss"]})
    assert_terms(metrics, {ours: arrays[f"info/{their}"] for ours, their in theirs.items()})
    assert_equal(algorithm, weights(arrays, 1), rtol=5e-8)


def test_ten_updates_are_theirs(given):
    arrays, algorithm = given
    assert_ten_updates(algorithm, arrays, update, weights)


def test_it_acts_as_theirs(given):
    arrays, algorithm = given
    assert_acts(algorithm, arrays, weights, noise(arrays, 0, "next", "next_edit"))


@pytest.mark.parametrize("name", ["dsrl", "expo"])
def test_weights_begin_as_xaviers_of_each_head_and_biases_at_0(name):
    """As utils/networks.py, where mean and spread are layers of their own."""
    algorithm = made(f"algo={name}", *SMALL[:-1], "algo.policy_hidden=[64,64]")
    found = dict(algorithm.named_parameters(remove_duplicate=False))
    for weight in found["policy.network.layers.4.weight"].chunk(2):
        assert 0.95 * (6 / 67) ** 0.5 < weight.abs().max() <= (6 / 67) ** 0.5
    assert all((value == 0).all() for key, value in found.items() if "bias" in key and "norm" not in key)
    assert found["log_temperature"] == 0
