"""QAM, QAM-F and QAM-E are those of their authors' code (Li and Levine 2026): tests/parity/reference/qam.py."""

import pytest
import torch
from parity import (
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
SMALL = ("critic.ensemble=3", "algo.adjoint_steps=4", "solver.steps=4", "algo.beta=2")
VARIANTS = {
    "qam": ("network.hidden=[16,16]", "critic.hidden=[16,16]"),
    "qam_f": ("network.hidden=[8,8]", "critic.hidden=[8,8]", "algo.policy_hidden=[8,8]", "algo.alpha=10"),
    "qam_e": ("network.hidden=[8,8]", "critic.hidden=[8,8]", "algo.policy_hidden=[8,8]", "algo.edit_scale=0.3"),
}
POLICY = {"qam": "policy", "qam_f": "teacher", "qam_e": "policy.flow"}  # where the flow that is matched is
OBSERVED, ACTED = list(range(OBSERVATION)), list(range(OBSERVATION, OBSERVATION + ACTION))


def edits(arrays, prefix: str) -> dict:
    """Their tanh-Gaussian, whose mean and standard deviation are layers of their own, as our one perceptron."""
    network = f"{prefix}/modules_edit_actor"
    parts = flax_layer(arrays, f"{network}/MLP_0/Dense_0", "policy.network.layers.0", [*ACTED, *OBSERVED])
    parts |= flax_layer(arrays, f"{network}/MLP_0/Dense_1", "policy.network.layers.2")
    heads = [
        flax_layer(arrays, f"{network}/OutputDense{name}", "policy.network.layers.4") for name in ("Mean", "LogStd")
    ]
    parts |= {name: torch.cat([head[name] for head in heads]) for name in heads[0]}
    return parts | {"log_temperature": arrays[f"{prefix}/modules_edit_alpha/log_value"][None]}


def weights(name: str):
    """Ours, of the reference's after so many updates."""

    def found(arrays, updates: int) -> dict:
        parts = flax_ensemble(arrays, f"{updates}/modules_critic/value_net", "critic.q_network")
        parts |= flax_ensemble(arrays, f"{updates}/modules_target_critic/value_net", "critic.q_target")
        flows = {"actor_fast": POLICY[name], "actor_slow": "behaviour", "target_actor_slow": "behaviour.target"}
        for theirs, ours in flows.items():  # velocities that point the other way
            prefix = f"{updates}/modules_{theirs}/mlp"
            parts |= flax_mlp(arrays, prefix, f"{ours}.network", [*ACTED, OBSERVATION + ACTION, *OBSERVED], sign=-1.0)
        if name == "qam_f":
            one_step = f"{updates}/modules_one_step_actor/mlp"
            parts |= flax_mlp(arrays, one_step, "policy.network", [*ACTED, *OBSERVED])
        return parts | (edits(arrays, str(updates)) if name == "qam_e" else {})

    return found


@pytest.fixture(params=VARIANTS)
def given(request):
    _, arrays = fixture(request.param)
    algorithm = made(f"algo={request.param}", *SMALL, *VARIANTS[request.param])
    put(algorithm, weights(request.param)(arrays, 0))
    return request.param, arrays, algorithm


def noise(arrays, number: int, *names: str) -> torch.Tensor:
    """The policy's noise [B, noises, A], of draws of these names, if there are any."""
    return torch.stack([arrays[f"draw/{name}"][number] for name in names if f"draw/{name}" in arrays], 1)


def update(algorithm, arrays, number: int) -> dict:
    """One step with the fixture's draws; its metrics."""
    [phase] = algorithm.phases
    draws = {key: arrays[f"draw/{key}"][number] for key in ("flow_noise", "t", "sde_noise")}
    batch, given = batches(arrays)[number], {"t": 1 - draws["t"][:, 0], "noise": draws["flow_noise"]}
    algorithm.policy.draw_noise = lambda *given: noise(arrays, number, "next_noise", "next_edit")
    algorithm.objective.draw = lambda *arguments: given
    drawn = phase.updates[""].drawn(batch, torch.Generator(), 0.0) | {"sde_noise": draws["sde_noise"]}
    if "draw/noise" in arrays:
        drawn["action_noise"] = noise(arrays, number, "noise", "edit")
    return phase.updates[""].step(batch, drawn)


def test_an_update_is_theirs(given):
    name, arrays, algorithm = given
    metrics = update(algorithm, arrays, 0)
    theirs = {"critic_loss": "critic/critic_loss", "critic_q": "critic/q_mean"}
    theirs |= {"matching": "actor/flow_loss", "adjoint": "actor/adj_loss"}
    theirs |= {"distance": "actor/fql_distill_loss"} if name == "qam_f" else {}
    theirs |= {"entropy": "actor/edit_entropy", "temperature": "actor/edit_alpha"} if name == "qam_e" else {}
    assert_terms(metrics, {ours: arrays[f"info/{their}"] for ours, their in theirs.items()})
    maximising = {"qam_f": "fql_q_loss", "qam_e": "edit_q_loss"}
    if name in maximising:
        assert_terms(metrics, {"q": -arrays[f"info/actor/{maximising[name]}"]})
    assert_equal(algorithm, weights(name)(arrays, 1), rtol=5e-8)


def test_ten_updates_are_theirs(given):
    name, arrays, algorithm = given
    assert_ten_updates(algorithm, arrays, update, weights(name))


def test_it_acts_as_theirs(given):
    name, arrays, algorithm = given
    put(algorithm, weights(name)(arrays, 10))
    with torch.no_grad():
        acted = algorithm(batches(arrays)[0].observation, noise(arrays, 0, "next_noise", "next_edit")[:, None])
    torch.testing.assert_close(acted, arrays["act"], rtol=1e-5, atol=1e-9)


def test_what_maximises_q_beyond_the_flow_has_no_inverse_temperature(given):
    name, _, algorithm = given
    assert algorithm.inverse_temperature == (2 if name == "qam" else None)


def test_weights_of_the_two_flows_begin_apart():
    algorithm = made("algo=qam", *SMALL, *VARIANTS["qam"])
    pairs = list(zip(algorithm.policy.parameters(), algorithm.behaviour.parameters(), strict=False))
    for own, other in pairs:
        torch.testing.assert_close(own.flatten().sort().values, other.flatten().sort().values)
    assert sum((own == other).all().item() for own, other in pairs) == sum((own == 0).all().item() for own, _ in pairs)
