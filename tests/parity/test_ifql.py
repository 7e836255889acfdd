"""IFQL is that of FQL's authors (Park et al. 2025): tests/parity/reference/ifql.py."""

import pytest
import torch
from parity import assert_equal, assert_ten_updates, assert_terms, batches, fixture, flax_ensemble, flax_mlp, made, put

OBSERVATION, ACTION = 5, 3


def weights(arrays, updates: int) -> dict:
    """Ours, of the reference's after so many updates; their inputs are observation, action and time in this order."""
    parts = flax_ensemble(arrays, f"{updates}/modules_critic/value_net", "critic.q_network")
    parts |= flax_ensemble(arrays, f"{updates}/modules_target_critic/value_net", "critic.q_target")
    parts |= flax_ensemble(arrays, f"{updates}/modules_value/value_net", "critic.v_network")
    inputs = [*range(OBSERVATION, OBSERVATION + ACTION + 1), *range(OBSERVATION)]
    # Their velocity points from noise to data, ours from data to noise.
    return parts | flax_mlp(arrays, f"{updates}/modules_actor_flow/mlp", "policy.network", inputs, sign=-1.0)


@pytest.fixture
def given():
    about, arrays = fixture("ifql")
    words = (
        "network.hidden=[16,16]",
        "critic.hidden=[16,16]",
        f"select.num_candidates={about['settings']['num_samples']}",
    )
    algorithm = made("algo=ifql", *words)
    put(algorithm, weights(arrays, 0))
    return arrays, algorithm


def update(algorithm, arrays, number: int) -> dict:
    """One step of flow and critic, with the fixture's draws; the metrics."""
    behaviour, critic = (phase.updates[""] for phase in algorithm.phases)
    batch = batches(arrays)[number]
    matching = {"t": 1 - arrays["draw/t"][number, :, 0], "noise": arrays["draw/flow_noise"][number]}
    return critic.step(batch, {}) | {"matching": behaviour.step(batch, matching)["loss"]}


def test_an_update_is_theirs(given):
    arrays, algorithm = given
    metrics = update(algorithm, arrays, 0)
    theirs = {"q_loss": arrays["info/critic/critic_loss"], "v_loss": arrays["info/value/value_loss"]}
    theirs |= {"v": arrays["info/value/v_mean"], "matching": arrays["info/actor/actor_loss"]}
    assert_terms(metrics, theirs)
    assert_equal(algorithm, weights(arrays, 1), rtol=5e-8)


def test_ten_updates_are_theirs(given):
    arrays, algorithm = given
    assert_ten_updates(algorithm, arrays, update, weights)


def test_it_plays_the_candidate_that_theirs_plays(given):
    arrays, algorithm = given
    put(algorithm, weights(arrays, 10))
    with torch.no_grad():
        acted = algorithm(batches(arrays)[0].observation, arrays["noise"][:, :, None])
    torch.testing.assert_close(acted, arrays["act"], rtol=1e-5, atol=1e-9)
