"""ReBRAC is that of its authors' code (Tarasov et al. 2023): tests/parity/reference/rebrac.py."""

import pytest
import torch
from parity import assert_equal, assert_ten_updates, batches, fixture, flax_ensemble, flax_mlp, made, put

OBSERVATION, ACTION = 5, 3
SMALL = ("network.hidden=[16,16]", "critic.hidden=[16,16]", "algo.alpha=0.1", "critic.penalty=0.01")


def weights(arrays, updates: int) -> dict:
    """Ours, of the reference's after so many updates."""
    parts = {}
    for theirs, ours in (("critic", "critic.q_network"), ("target_critic", "critic.q_target")):
        parts |= flax_ensemble(arrays, f"{updates}/{theirs}/params/VmapCritic_0", ours)
    for theirs, ours in (("actor", "policy.network"), ("target_actor", "policy.target.network")):
        parts |= flax_mlp(arrays, f"{updates}/{theirs}/params", ours, list(range(OBSERVATION)))
    return parts


@pytest.fixture
def given():
    _, arrays = fixture("rebrac")
    algorithm = made("algo=rebrac", *SMALL)
    put(algorithm, weights(arrays, 0))
    return arrays, algorithm


def update(algorithm, arrays, number: int) -> dict:
    """One step of the phase with the fixture's noise; theirs moves the actor at the first step, ours at the second."""
    [phase] = algorithm.phases
    batch = batches(arrays)[number].extended(followed=torch.ones(16, dtype=torch.float64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn", lambda *given, **more: arrays["draw/smoothing"][number][:, None])
        return phase.update(batch, torch.Generator(), number + 1)


def test_an_update_is_theirs(given):
    arrays, algorithm = given
    metrics = update(algorithm, arrays, 0)
    torch.testing.assert_close(metrics["critic_loss"], arrays["info/critic_loss"], rtol=1e-5, atol=0.0)
    torch.testing.assert_close(metrics["actor_matching"], arrays["info/bc_mse_policy"], rtol=1e-5, atol=0.0)
    assert_equal(algorithm, weights(arrays, 1), rtol=5e-8)


def test_the_second_moves_the_critic_alone(given):
    arrays, algorithm = given
    for number in range(2):
        metrics = update(algorithm, arrays, number)
    assert not any(name.startswith("actor") for name in metrics)
    assert_equal(algorithm, weights(arrays, 2), rtol=5e-8)


def test_ten_updates_are_theirs(given):
    arrays, algorithm = given
    assert_ten_updates(algorithm, arrays, update, weights)


def test_weights_begin_as_theirs():
    """Uniform in +-1 / sqrt(inputs), the last layer in +-0.003 or, of the actor, 0.001; biases 0.1 but for the last."""
    algorithm = made("algo=rebrac", "network.hidden=[64,64]", "critic.hidden=[64,64]")
    found = dict(algorithm.named_parameters(remove_duplicate=False))
    critic, actor = "critic.q_network", "policy.network"
    bounds = {
        f"{critic}.layers.1": 1 / 8,
        f"{critic}.head": 3e-3,
        f"{actor}.layers.2": 1 / 8,
        f"{actor}.layers.4": 1e-3,
    }
    for name, bound in bounds.items():
        weight = found[f"{name}.weight"]
        assert 0.9 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.15)
    for name in (f"{critic}.layers.0", f"{critic}.layers.1", f"{actor}.layers.0", f"{actor}.layers.2"):
        torch.testing.assert_close(found[f"{name}.bias"], torch.full_like(found[f"{name}.bias"], 0.1))
    assert 0 < found[f"{critic}.head.bias"].abs().max() <= 3e-3
    assert 0 < found[f"{actor}.layers.4.bias"].abs().max() <= 1e-3
