"""MeanFlowQL is that of its authors' code (arXiv 2511.13035): tests/parity/reference/meanflow_ql.py."""

import pytest
import torch
from parity import assert_acts, assert_equal, assert_terms, batches, fixture, flax_ensemble, flax_mlp, made, put

OBSERVATION, ACTION = 5, 3
SMALL = ("network.hidden=[16,16]", "critic.hidden=[16,16]", "algo.alpha=3", "algo.steps=40")
SMALL += ("algo.adapt_every=2", "algo.window=2", "algo.factor=1")


def weights(arrays, updates: int) -> dict:
    """Ours, of the reference's after so many updates."""
    parts = flax_ensemble(arrays, f"{updates}/modules_critic/value_net", "critic.q_network")
    parts |= flax_ensemble(arrays, f"{updates}/modules_target_critic/value_net", "critic.q_target")
    inputs = [*range(OBSERVATION, OBSERVATION + ACTION + 1), *range(OBSERVATION)]
    return parts | flax_mlp(arrays, f"{updates}/modules_actor_bc_flow/field/mlp", "policy.network", inputs)


@pytest.fixture
def given():
    _, arrays = fixture("meanflow_ql")
    algorithm = made("algo=meanflow_ql", *SMALL)
    put(algorithm, weights(arrays, 0))
    return arrays, algorithm


def update(algorithm, arrays, number: int) -> dict:
    """One step with the fixture's draws, in the order in which the phase makes it; its metrics."""
    [phase] = algorithm.phases
    noises = [arrays["draw/noise"][number][:, None], candidates(arrays, number)]
    algorithm.policy.draw_noise = lambda *given: noises.pop(0)
    t, noise = arrays["draw/t"][number][:, 0], arrays["draw/flow_noise"][number]
    algorithm.objective.draw = lambda *given: {"t": t, "s": torch.zeros_like(t), "noise": noise}
    return phase.update(batches(arrays)[number], torch.Generator(), number)


def candidates(arrays, number: int) -> torch.Tensor:
    """The noise of the next actions, state by state."""
    return arrays["draw/next_noise"][number].transpose(0, 1).flatten(0, 1)[:, None]


def test_an_update_is_theirs(given):
    arrays, algorithm = given
    metrics = update(algorithm, arrays, 0)
    theirs = {"critic_loss": arrays["info/critic/critic_loss"], "critic_q": arrays["info/critic/q_mean"]}
    theirs |= {"actor_matching": arrays["info/meanflow/mean_flow_loss"], "actor_q": arrays["info/actor/q"]}
    theirs |= {"actor_outside": arrays["info/actor/bound_loss"], "actor_alpha": arrays["info/alpha_weight"]}
    assert_terms(metrics, theirs)
    assert_equal(algorithm, weights(arrays, 1), rtol=5e-8)


def test_ten_updates_and_alpha_are_theirs(given):
    arrays, algorithm = given
    alphas = [update(algorithm, arrays, number)["actor_alpha"] for number in range(10)]
    assert_equal(algorithm, weights(arrays, 10), rtol=5e-8)
    torch.testing.assert_close(torch.stack(alphas), arrays["alphas"])
    assert len(arrays["alphas"].unique()) > 2


def test_it_acts_as_theirs(given):
    arrays, algorithm = given
    assert_acts(algorithm, arrays, weights, candidates(arrays, 0).unflatten(0, (16, 5)))


@pytest.mark.parametrize("budget", [1.0, 0.3, 0.0123])
def test_alpha_may_change_as_often_for_any_budget(budget):
    algorithm = made("algo=meanflow_ql", *SMALL, "algo.steps=10000", "algo.adapt_every=70")
    [phase] = algorithm.phases
    phase.steps = round(budget * phase.steps)

    def adapts(number: int) -> bool:
        phase.updates["actor"].optimizer.count = number  # made before
        return algorithm.adapts()

    due = [number for number in range(phase.steps) if adapts(number)]
    expected = [-(-each * phase.steps // algorithm.steps) for each in range(70, 10000, 70)]
    assert due == sorted(set(expected) - {phase.steps})
    algorithm.phases.append(algorithm.online_phase(50))  # with as many updates between two changes
    between = phase.steps * 70 / algorithm.steps
    online = sum(adapts(phase.steps + number) for number in range(1, 1000))
    assert online == pytest.approx(999 / between if between > 1 else 999, abs=1)
