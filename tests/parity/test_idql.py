"""IDQL is that of its authors' code (Hansen-Estruch et al. 2023): tests/parity/reference/idql.py."""

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
    made,
    put,
)

WIDTH, STEPS, DECAY = 8, 5, 20
SMALL = (f"network.width={WIDTH}", "network.blocks=2", "network.time_size=4", "network.time_hidden=[8,8]")
SMALL += ("critic.hidden=[8,8]", "critic.expectile=0.9", "select.num_candidates=8", f"algo.behaviour_steps={DECAY}")


def score_model(arrays, theirs: str, ours: str) -> dict:
    """Their noise prediction as our LNResNet; they have cosines before sines."""
    parts = {f"{ours}.embed.weight": arrays[f"{theirs}/FourierFeatures_0/kernel"][:, 0]}
    parts |= flax_layer(arrays, f"{theirs}/MLP_0/Dense_0", f"{ours}.time.0", [2, 3, 0, 1])
    parts |= flax_layer(arrays, f"{theirs}/MLP_0/Dense_1", f"{ours}.time.2")
    net = f"{theirs}/MLPResNet_0"
    parts |= flax_layer(arrays, f"{net}/Dense_0", f"{ours}.first") | flax_layer(
        arrays, f"{net}/Dense_1", f"{ours}.last"
    )
    for number in range(2):
        block, here = f"{net}/MLPResNetBlock_{number}", f"{ours}.residual.{number}"
        parts |= flax_layer(arrays, f"{block}/Dense_0", f"{here}.first")
        parts |= flax_layer(arrays, f"{block}/Dense_1", f"{here}.second")
        norm = f"{block}/LayerNorm_0"
        parts |= {f"{here}.norm.weight": arrays[f"{norm}/scale"], f"{here}.norm.bias": arrays[f"{norm}/bias"]}
    return parts


def values(arrays, theirs: str, last: str, ours: str) -> dict:
    """Their Q or V, hidden layers and a last one that are modules of their own, as our `EnsembleMLP`."""
    renamed = {key.replace(f"{theirs}/MLP_0/", "all/"): value for key, value in arrays.items()}
    renamed |= {f"all/Dense_2/{part}": arrays[f"{theirs}/{last}/{part}"] for part in ("kernel", "bias")}
    renamed = {key: value for key, value in renamed.items() if "LayerNorm" not in key}
    return flax_ensemble(renamed, "all", ours)


def weights(arrays, updates: int) -> dict:
    """Ours, of the reference's after so many updates."""
    parts = score_model(arrays, f"{updates}/score_model", "behaviour.network")
    parts |= score_model(arrays, f"{updates}/target_score_model", "policy.network")
    for theirs, ours in (("critic", "q_network"), ("target_critic", "q_target")):
        parts |= values(arrays, f"{updates}/{theirs}/VmapStateActionValue_0", "Dense_0", f"critic.{ours}")
    parts |= values(arrays, f"{updates}/value", "OutputVDense", "critic.v_network")
    norm = f"{updates}/value/MLP_0/LayerNorm_0"
    names = {"scale": "weight", "bias": "bias"}
    return parts | {
        f"critic.v_network.input_norm.{our}": arrays[f"{norm}/{their}"][None, None] for their, our in names.items()
    }


@pytest.fixture
def given():
    _, arrays = fixture("idql")
    algorithm = made("algo=idql", *SMALL)
    put(algorithm, weights(arrays, 0))
    return arrays, algorithm


def update(algorithm, arrays, number: int) -> dict:
    """One step of behaviour model and critic, with the fixture's draws; the metrics."""
    behaviour, critic = algorithm.phases
    batch = batches(arrays)[number]
    draws = {"t": (arrays["draw/step"][number] + 1) / STEPS, "noise": arrays["draw/noise"][number]}
    draws["kept"] = arrays["draw/kept"][number].transpose(0, 1) / 0.9
    metrics = behaviour.updates[""].step(batch, draws, number / DECAY)
    return metrics | critic.update(batch, torch.Generator(), number)


def test_an_update_is_theirs(given):
    arrays, algorithm = given
    metrics = update(algorithm, arrays, 0)
    theirs = {"loss": arrays["info/actor_loss"], "v_loss": arrays["info/value_loss"]}
    theirs |= {"q_loss": arrays["info/critic_loss"], "v_mean": arrays["info/v"], "q_mean": arrays["info/q"]}
    assert_terms(metrics, theirs)
    assert_equal(algorithm, weights(arrays, 1), rtol=5e-8)


def test_ten_updates_are_theirs(given):
    arrays, algorithm = given
    assert_ten_updates(algorithm, arrays, update, weights)


def test_it_plays_the_candidate_that_theirs_plays(given):
    arrays, algorithm = given
    put(algorithm, weights(arrays, 10))
    noise = arrays["sampling/noise"][:, :STEPS].transpose(1, 2)  # the last is of a step that adds none
    with torch.no_grad():
        acted = algorithm(batches(arrays)[0].observation[: len(noise)], noise)
    torch.testing.assert_close(acted, arrays["act"], rtol=1e-5, atol=1e-9)


def test_weights_begin_as_theirs():
    """Xavier's, in the blocks flax's default, normal of variance 1 / inputs and cut; frequencies N(0, 0.2^2)."""
    algorithm = made("algo=idql", "network.width=64", "network.time_size=512", "critic.hidden=[64,64]")
    found = dict(algorithm.named_parameters(remove_duplicate=False))
    for name, size in {"behaviour.network.time.2": 512, "critic.q_network.layers.1": 128}.items():
        bound = (6 / size) ** 0.5
        weight = found[f"{name}.weight"]
        assert 0.98 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    inner = found["behaviour.network.residual.0.second.weight"]
    assert inner.std().item() == pytest.approx((1 / 256) ** 0.5, rel=0.05)
    assert inner.abs().max() < 2.3 * (1 / 256) ** 0.5
    assert found["behaviour.network.embed.weight"].std().item() == pytest.approx(0.2, rel=0.2)
    assert all((value == 0).all() for name, value in found.items() if "bias" in name)
