"""FQL is that of its authors' code (Park et al. 2025): tests/parity/reference/fql.py."""

import pytest
import torch
from parity import assert_equal, assert_ten_updates, assert_terms, batches, fixture, flax_ensemble, flax_mlp, made, put

OBSERVATION, ACTION = 5, 3
SMALL = ("network.hidden=[16,16]", "critic.hidden=[16,16]", "algo.policy_hidden=[16,16]")
MORE = {"fql": ("algo.alpha=10",), "fql_normalized": ("algo.alpha=3", "algo.normalize=true", "critic.aggregate=min")}


def weights(arrays, updates: int, initial: bool = False) -> dict:
    """Ours, of the reference's after so many updates; their inputs are observation, action and time in this order."""
    observed, acted = list(range(OBSERVATION)), list(range(OBSERVATION, OBSERVATION + ACTION))
    time = OBSERVATION + ACTION
    parts = flax_ensemble(arrays, f"{updates}/modules_critic/value_net", "critic.q_network")
    parts |= flax_ensemble(arrays, f"{updates}/modules_target_critic/value_net", "critic.q_target")
    flow, one_step = (f"{updates}/modules_actor_{name}/mlp" for name in ("bc_flow", "onestep_flow"))
    # Their velocity points from noise to data, ours from data to noise.
    parts |= flax_mlp(arrays, flow, "behaviour.network", [*acted, time, *observed], sign=-1.0)
    return parts | flax_mlp(arrays, one_step, "policy.network", [*acted, *observed])


@pytest.fixture(params=MORE)
def given(request):
    about, arrays = fixture(request.param)
    algorithm = made("algo=fql", *SMALL, *MORE[request.param])
    put(algorithm, weights(arrays, 0))
    return about, arrays, algorithm


def update(algorithm, arrays, number: int) -> dict:
    """One step with the fixture's draws, in the order in which the phase makes it; its metrics."""
    [phase] = algorithm.phases
    batch = batches(arrays)[number]
    draws = {key: arrays[f"draw/{key}"][number] for key in ("next_noise", "flow_noise", "t", "noise")}

    algorithm.behaviour.draw_noise = lambda *given: draws["noise"][:, None]
    algorithm.policy.draw_noise = lambda *given: draws["next_noise"][:, None]
    matching = {"t": 1 - draws["t"][:, 0], "noise": draws["flow_noise"]}
    algorithm.objective.draw = lambda *given: matching
    return phase.update(batch, torch.Generator(), number)


def test_an_update_is_theirs(given):
    _, arrays, algorithm = given
    metrics = update(algorithm, arrays, 0)
    theirs = {"critic_loss": arrays["info/critic/critic_loss"], "critic_q": arrays["info/critic/q_mean"]}
    theirs |= {"actor_loss": arrays["info/actor/actor_loss"], "actor_matching": arrays["info/actor/bc_flow_loss"]}
    theirs |= {"actor_distance": arrays["info/actor/distill_loss"], "actor_q": arrays["info/actor/q"]}
    assert_terms(metrics, theirs)
    assert_equal(algorithm, weights(arrays, 1), rtol=5e-8)


def test_ten_updates_are_theirs(given):
    _, arrays, algorithm = given
    assert_ten_updates(algorithm, arrays, update, weights)


def test_weights_begin_uniform_within_those_of_xavier_and_biases_at_0():
    """As flax's variance_scaling(1, "fan_avg", "uniform") in utils/networks.py."""
    algorithm = made("algo=fql", *(word.replace("16,16", "64,64") for word in SMALL))
    found = dict(algorithm.named_parameters(remove_duplicate=False))
    for name in ("behaviour.network.layers.2", "policy.network.layers.2", "critic.q_network.layers.1"):
        weight, bound = found[f"{name}.weight"], (6 / (64 + 64)) ** 0.5
        assert 0.99 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert all((value == 0).all() for name, value in found.items() if "bias" in name)


def test_it_acts_and_its_flow_samples_as_theirs(given):
    _, arrays, algorithm = given
    put(algorithm, weights(arrays, 10))
    observation, noise = batches(arrays)[0].observation, arrays["draw/noise"][0]
    with torch.no_grad():
        acted = algorithm(observation, noise[:, None, None])
        sampled = algorithm.clip(algorithm.behaviour.sample(observation, noise=noise))
    torch.testing.assert_close(acted, arrays["act"], rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(sampled, arrays["flow"], rtol=1e-5, atol=1e-9)
