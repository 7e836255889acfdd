"""FAN is that of its authors' code (arXiv 2605.01663): tests/parity/reference/fan.py."""

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
MORE = {
    "fan": (),
    "fan_min": (
        *("algo.alpha=3", "algo.normalize=true"),
        *("critic.penalty=0.03", "critic.aggregate=min", "critic.discount=0.99"),
    ),
}


def weights(arrays, updates: int) -> dict:
    """Ours, of the reference's after so many updates."""
    observed, acted = list(range(OBSERVATION)), list(range(OBSERVATION, OBSERVATION + ACTION))
    parts = {}
    for theirs, ours in {"critic": "q_network", "target_critic": "q_target", "critic_z": "z_network"}.items():
        parts |= flax_ensemble(arrays, f"{updates}/modules_{theirs}/value_net", f"critic.{ours}")
    flow, one_step = (f"{updates}/modules_actor_{name}/mlp" for name in ("bc_flow", "onestep_flow"))
    # Their velocity points from noise to data, ours from data to noise.
    parts |= flax_mlp(arrays, flow, "behaviour.network", [*acted, OBSERVATION + ACTION, *observed], sign=-1.0)
    return parts | flax_mlp(arrays, one_step, "policy.network", [*acted, *observed])


@pytest.fixture(params=MORE)
def given(request):
    _, arrays = fixture(request.param)
    algorithm = made("algo=fan", *SMALL, *MORE[request.param])
    put(algorithm, weights(arrays, 0))
    return arrays, algorithm


def update(algorithm, arrays, number: int) -> dict:
    """One step with the fixture's draws, in the order in which the phase makes it; its metrics."""
    [phase] = algorithm.phases
    draws = {key.removeprefix("draw/"): value[number] for key, value in arrays.items() if key.startswith("draw/")}
    noises = [draws[key] for key in ("noise", "actor_value_noise", "next_noise", "value_noise")]
    times = [1 - draws[key][:, 0] for key in ("anchor_t", "next_t")]
    algorithm.standard_noise = lambda *given: noises.pop(0)
    algorithm.objective.draw_time = lambda *given: times.pop(0)
    matching = {"t": 1 - draws["t"][:, 0], "noise": draws["flow_noise"]}
    algorithm.objective.draw = lambda *given: matching
    return phase.update(batches(arrays)[number], torch.Generator(), number)


def test_an_update_is_theirs(given):
    arrays, algorithm = given
    metrics = update(algorithm, arrays, 0)
    theirs = {"critic_loss": arrays["info/critic/critic_loss"], "critic_q": arrays["info/critic/q_mean"]}
    theirs |= {"critic_z": arrays["info/critic/z_mean"], "flow_loss": arrays["info/actor/bc_flow_loss"]}
    theirs |= {"actor_distance": arrays["info/actor/br_loss"], "actor_q": arrays["info/actor/q"]}
    theirs |= {"actor_z": arrays["info/actor/z"]}
    theirs |= {"actor_loss": arrays["info/actor/actor_loss"] - arrays["info/actor/bc_flow_loss"]}
    assert_terms(metrics, theirs)
    assert_equal(algorithm, weights(arrays, 1), rtol=5e-8)


def test_ten_updates_are_theirs(given):
    arrays, algorithm = given
    assert_ten_updates(algorithm, arrays, update, weights)


def test_it_acts_as_theirs(given):
    arrays, algorithm = given
    assert_acts(algorithm, arrays, weights, arrays["draw/noise"][0][:, None, None])
