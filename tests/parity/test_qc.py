"""QC, QC-FQL and FQL with n-step returns are those of their authors' code: tests/parity/reference/qc.py."""

import functools

import pytest
import torch
from parity import assert_equal, assert_ten_updates, assert_terms, fixture, flax_ensemble, flax_mlp, made, put

from genpolicy.dataset.sequences import Sequences
from genpolicy.dataset.transitions import Transitions

OBSERVATION, ACTION, LENGTH = 5, 2, 3
SMALL = ("network.hidden=[16,16]", "critic.hidden=[16,16]")
ONE_STEP = "algo.policy_hidden=[16,16]"
WORDS = {
    "qc": ("algo=qc", "chunk.length=3", "select.num_candidates=4"),
    "qc_fql": ("algo=qc_fql", "chunk.length=3", ONE_STEP),
    "fql_n": ("algo=qc_fql", "critic.steps=3", "algo.alpha=3", ONE_STEP),
}
NAMES = {"observations": "observation", "actions": "action", "rewards": "reward"}


@pytest.fixture(params=WORDS)
def given(request):
    about, arrays = fixture(request.param)
    assert about["settings"]["horizon_length"] == LENGTH
    algorithm = made(*WORDS[request.param], *SMALL, observation=OBSERVATION, action=ACTION)
    put(algorithm, weights(algorithm, arrays, 0))
    return arrays, algorithm


def weights(algorithm, arrays, updates: int) -> dict:
    """Ours, of the reference's after so many updates; their inputs are observation, action and time in this order."""
    size = algorithm.policy.action_size
    observed, acted = list(range(OBSERVATION)), list(range(OBSERVATION, OBSERVATION + size))
    parts = flax_ensemble(arrays, f"{updates}/modules_critic/value_net", "critic.q_network")
    parts |= flax_ensemble(arrays, f"{updates}/modules_target_critic/value_net", "critic.q_target")
    flow, one_step = (f"{updates}/modules_actor_{name}/mlp" for name in ("bc_flow", "onestep_flow"))
    # Their velocity points from noise to data, ours from data to noise.
    parts |= flax_mlp(arrays, flow, "behaviour.network", [*acted, OBSERVATION + size, *observed], sign=-1.0)
    if "noise" in {key.partition("/")[2] for key in arrays if key.startswith("draw/")}:
        parts |= flax_mlp(arrays, one_step, "policy.network", [*acted, *observed])
    return parts


def sequences(algorithm, arrays) -> Sequences:
    columns = {ours: arrays[f"rows/{theirs}"] for theirs, ours in NAMES.items()}
    columns |= {"next_observation": arrays["rows/next_observations"], "terminated": 1 - arrays["rows/masks"]}
    transitions = Transitions.side_by_side(columns, ends=arrays["rows/terminals"] != 0)
    chunk = algorithm.policy.action_size // ACTION
    return Sequences.of_transitions(transitions, LENGTH, chunk, algorithm.critic.discount, masked=True)


def update(algorithm, arrays, number: int) -> dict:
    """One step with the fixture's rows and draws; its metrics."""
    [phase] = algorithm.phases
    draws = {key.removeprefix("draw/"): value[number] for key, value in arrays.items() if key.startswith("draw/")}
    next_noise = draws["next_noise"].reshape(-1, 1, algorithm.policy.action_size)
    algorithm.policy.draw_noise = lambda *given: next_noise
    if "noise" in draws:
        algorithm.behaviour.draw_noise = lambda *given: draws["noise"][:, None]
    algorithm.objective.draw = lambda *given: {"t": 1 - draws["t"][:, 0], "noise": draws["flow_noise"]}
    return phase.update(sequences(algorithm, arrays).rows(arrays["starts"][number]), torch.Generator(), number)


def test_sequences_are_theirs(given):
    arrays, algorithm = given
    batch = sequences(algorithm, arrays).rows(arrays["starts"][0])
    torch.testing.assert_close(batch.reward, arrays["batch/rewards"][:, -1], rtol=1e-12, atol=1e-12)
    assert torch.equal(~batch.terminated, arrays["batch/masks"][:, -1] == 1)
    assert torch.equal(batch["valid"], arrays["batch/valid"][:, -1])
    chunk = algorithm.policy.action_size // ACTION
    assert torch.equal(batch["valid_action"], arrays["batch/valid"][:, :chunk].repeat_interleave(ACTION, 1))


def test_an_update_is_theirs(given):
    arrays, algorithm = given
    metrics = update(algorithm, arrays, 0)
    theirs = {"critic_loss": arrays["info/critic/critic_loss"], "critic_q": arrays["info/critic/q_mean"]}
    if "actor_matching" in metrics:
        theirs |= {"actor_loss": arrays["info/actor/actor_loss"], "actor_matching": arrays["info/actor/bc_flow_loss"]}
        theirs |= {"actor_distance": arrays["info/actor/distill_loss"]}
    else:
        theirs |= {"actor_loss": arrays["info/actor/bc_flow_loss"]}
    assert_terms(metrics, theirs)
    assert_equal(algorithm, weights(algorithm, arrays, 1), rtol=5e-8)


def test_ten_updates_are_theirs(given):
    arrays, algorithm = given
    assert_ten_updates(algorithm, arrays, update, functools.partial(weights, algorithm))
