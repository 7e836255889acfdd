"""FAC is that of its authors' code (arXiv 2602.18015): tests/parity/reference/fac.py."""

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
    flax_mlp,
    made,
    put,
)

OBSERVATION, ACTION = 5, 3
SMALL = ("network.hidden=[16,16]", "critic.hidden=[16,16]", "algo.policy_hidden=[16,16]")
SMALL += ("solver.steps=4", "algo.density_steps=4")
MORE = {"fac": (), "fac_data": ("algo.threshold=data", "critic.aggregate=mean", "algo.alpha_q=5", "algo.alpha=0.03")}


def weights(arrays, updates: int) -> dict:
    """Ours, of the reference's after so many updates; those of its flow do not change while critic and actor learn."""
    observed, acted = list(range(OBSERVATION)), list(range(OBSERVATION, OBSERVATION + ACTION))
    parts = flax_ensemble(arrays, f"{updates}/modules_critic/value_net", "critic.q_network")
    parts |= flax_ensemble(arrays, f"{updates}/modules_target_critic/value_net", "critic.q_target")
    parts |= flax_mlp(arrays, f"{updates}/modules_actor_onestep/mlp", "policy.network", [*acted, *observed])
    return parts | flow(arrays, 10 if updates else 0)


def flow(arrays, updates: int) -> dict:
    """Their velocity points from noise to data, ours from data to noise."""
    inputs = [*range(OBSERVATION, OBSERVATION + ACTION + 1), *range(OBSERVATION)]
    return flax_mlp(arrays, f"{updates}/modules_bc_flow/mlp", "behaviour.network", inputs, sign=-1.0)


@pytest.fixture(params=MORE)
def given(request):
    _, arrays = fixture(request.param)
    algorithm = made("algo=fac", *SMALL, *MORE[request.param])
    put(algorithm, weights(arrays, 0))
    return arrays, algorithm


def update(algorithm, arrays, number: int, source) -> dict:
    """One step of critic and actor with the fixture's draws, in the order in which the phase makes it."""
    phase = algorithm.phases[1]
    noises = [arrays[f"draw/{key}"][number][:, None] for key in ("next_noise", "penalty_noise")]
    algorithm.policy.draw_noise = lambda *given: noises.pop(0)
    algorithm.behaviour.draw_noise = lambda *given: arrays["draw/noise"][number][:, None]
    rows = source.rows(slice(16 * number, 16 * (number + 1)))
    return phase.update(rows, torch.Generator(), number)


def prepared(algorithm, arrays):
    """The fixture's batches as one data set, with the flow's densities."""
    put(algorithm, flow(arrays, 10))
    parts = batches(arrays)
    whole = type(parts[0])(torch.cat([part.table for part in parts]), parts[0].shapes)
    return algorithm.phases[1].prepare(whole)


def test_the_flow_is_theirs(given):
    arrays, algorithm = given
    [flow_update] = algorithm.phases[0].updates.values()
    for number in range(10):
        draws = {"t": 1 - arrays["draw/t"][number][:, 0], "noise": arrays["draw/flow_noise"][number]}
        metrics = flow_update.step(batches(arrays)[number], draws)
        if number == 0:
            assert_terms(metrics, {"loss": arrays["info/bc/bc_flow_loss"]})
    assert_equal(algorithm, flow(arrays, 10), rtol=5e-8)


def test_log_densities_are_theirs(given):
    arrays, algorithm = given
    found = prepared(algorithm, arrays)["log_threshold"]
    expected = arrays["logp"].flatten()
    torch.testing.assert_close(found, expected if algorithm.threshold == "row" else expected.min().expand(160))


def test_an_update_is_theirs(given):
    arrays, algorithm = given
    metrics = update(algorithm, arrays, 0, prepared(algorithm, arrays))
    theirs = {"critic_loss": arrays["info/critic/critic_loss"], "critic_q": arrays["info/critic/q_mean"]}
    theirs |= {"critic_penalty": arrays["info/critic/penalty_mean"], "actor_loss": arrays["info/actor/actor_loss"]}
    theirs |= {"actor_distance": arrays["info/actor/distill_loss"], "actor_q": arrays["info/actor/q"]}
    assert_terms(metrics, theirs)
    assert_equal(algorithm, weights(arrays, 1), rtol=5e-8)


def test_ten_updates_are_theirs(given):
    arrays, algorithm = given
    source = prepared(algorithm, arrays)
    assert_ten_updates(algorithm, arrays, lambda *given: update(*given, source), weights)


def test_it_acts_as_theirs(given):
    arrays, algorithm = given
    assert_acts(algorithm, arrays, weights, arrays["draw/noise"][0][:, None, None])
