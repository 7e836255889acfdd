"""QAM is that of its authors' code (Li and Levine 2026): tests/parity/reference/qam.py."""

import pytest
import torch
from parity import assert_equal, assert_terms, batches, fixture, flax_ensemble, flax_mlp, made, put

OBSERVATION, ACTION = 5, 3
SMALL = ("network.hidden=[16,16]", "critic.hidden=[16,16]", "critic.ensemble=3", "algo.adjoint_steps=4")
SMALL += ("solver.steps=4", "algo.beta=2")


def weights(arrays, updates: int) -> dict:
    """Ours, of the reference's after so many updates."""
    observed, acted = list(range(OBSERVATION)), list(range(OBSERVATION, OBSERVATION + ACTION))
    parts = flax_ensemble(arrays, f"{updates}/modules_critic/value_net", "critic.q_network")
    parts |= flax_ensemble(arrays, f"{updates}/modules_target_critic/value_net", "critic.q_target")
    flows = {"actor_fast": "policy", "actor_slow": "behaviour", "target_actor_slow": "behaviour.target"}
    for theirs, ours in flows.items():  # velocities that point the other way
        prefix = f"{updates}/modules_{theirs}/mlp"
        parts |= flax_mlp(arrays, prefix, f"{ours}.network", [*acted, OBSERVATION + ACTION, *observed], sign=-1.0)
    return parts


@pytest.fixture
def given():
    _, arrays = fixture("qam")
    algorithm = made("algo=qam", *SMALL)
    put(algorithm, weights(arrays, 0))
    return arrays, algorithm


def update(algorithm, arrays, number: int) -> dict:
    """One step with the fixture's draws; its metrics."""
    [phase] = algorithm.phases
    draws = {key: arrays[f"draw/{key}"][number] for key in ("next_noise", "flow_noise", "t", "sde_noise")}
    batch, given = batches(arrays)[number], {"t": 1 - draws["t"][:, 0], "noise": draws["flow_noise"]}
    algorithm.policy.draw_noise = lambda *given: draws["next_noise"][:, None]
    algorithm.objective.draw = lambda *arguments: given
    drawn = algorithm.draw(batch, torch.Generator(), 0.0) | {"sde_noise": draws["sde_noise"]}
    return phase.updates[""].step(batch, drawn)


def test_an_update_is_theirs(given):
    arrays, algorithm = given
    metrics = update(algorithm, arrays, 0)
    theirs = {"critic_loss": arrays["info/critic/critic_loss"], "critic_q": arrays["info/critic/q_mean"]}
    theirs |= {"matching": arrays["info/actor/flow_loss"], "adjoint": arrays["info/actor/adj_loss"]}
    assert_terms(metrics, theirs)
    assert_equal(algorithm, weights(arrays, 1), rtol=5e-8)


def test_ten_updates_are_theirs(given):
    arrays, algorithm = given
    for number in range(10):
        update(algorithm, arrays, number)
    assert_equal(algorithm, weights(arrays, 10), rtol=5e-8)


def test_it_acts_as_theirs(given):
    arrays, algorithm = given
    put(algorithm, weights(arrays, 10))
    with torch.no_grad():
        acted = algorithm(batches(arrays)[0].observation, arrays["draw/next_noise"][0][:, None, None])
    torch.testing.assert_close(acted, arrays["act"], rtol=1e-5, atol=1e-9)


def test_weights_of_the_two_flows_begin_apart():
    algorithm = made("algo=qam", *SMALL)
    pairs = list(zip(algorithm.policy.parameters(), algorithm.behaviour.parameters(), strict=False))
    for own, other in pairs:
        torch.testing.assert_close(own.flatten().sort().values, other.flatten().sort().values)
    assert sum((own == other).all().item() for own, other in pairs) == sum((own == 0).all().item() for own, _ in pairs)
