"""DAC is that of flow-rl; on OGBench, and QSM, those of QAM's authors: tests/parity/reference/dac.py, dcgql.py."""

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

OBSERVATION, ACTION, TIME = 5, 3, 8
SINES_FIRST = [*range(TIME // 2, TIME), *range(TIME // 2)]
FIRST = ("network.hidden=[8,8,8]", "network.time_size=8", "network.time_layers=[8,8]", "critic.hidden=[8,8,8]")
FIRST += ("critic.ensemble=3", "critic.candidates=2", "model.path.steps=3", "solver.steps=3", "algo.steps=20")
FIRST += ("algo.ema_start=3", "algo.ema_every=3", "select.num_candidates=2", "algo.eta_max=1.3")
OGBENCH = ("network.hidden=[8,8]", "network.time_size=8", "network.time_layers=[8,8]", "critic.hidden=[8,8]")
OGBENCH += ("critic.ensemble=3", "model.path.steps=4", "solver.steps=4")
MORE = {
    "dac": ("algo=dac", *FIRST, "algo.eta_lr=0.2", "algo.eta_threshold=0.4", "critic.pessimism=0.7"),
    "dac_max_q": ("algo=dac", *FIRST, "algo.eta=0.1", "critic.pessimism=1", "critic.over_candidates=max"),
    "qsm": ("algo=qsm", *OGBENCH, "algo.beta=3", "algo.eta=10"),
    "dac_ogbench": ("algo=dac", "tuned=dac/ogbench-antmaze-large-navigate", *OGBENCH),
}


def perceptron(arrays, layers: str, last: str, ours: str) -> dict:
    """Of hidden layers, and a last one that is a module of its own, our `EnsembleMLP`."""
    renamed = {f"all/{key.removeprefix(layers)}": value for key, value in arrays.items() if key.startswith(layers)}
    renamed |= {f"all/Dense_3/{part}": arrays[f"{last}/{part}"] for part in ("kernel", "bias")}
    return flax_ensemble(renamed, "all", ours)


def weights(arrays, updates: int) -> dict:
    """Ours, of flow-rl's after so many updates. It has cosines before sines, and the time before the observation."""
    parts = {}
    for theirs, ours in {"actor": "policy", "actor_target": "policy.target"}.items():
        prefix, every = f"{updates}/{theirs}", list(range(ACTION + TIME + OBSERVATION))
        parts |= flax_layer(arrays, f"{prefix}/MLP_0/Dense_0", f"{ours}.network.time.0", SINES_FIRST)
        parts |= flax_layer(arrays, f"{prefix}/MLP_0/Dense_1", f"{ours}.network.time.2")
        parts |= flax_mlp(arrays, f"{prefix}/noise_predictor", f"{ours}.network", every)
    for theirs, ours in {"critic": "q_network", "critic_target": "q_target"}.items():
        prefix = f"{updates}/{theirs}/base"
        parts |= perceptron(arrays, f"{prefix}/backbone/", f"{prefix}/Dense_0", f"critic.{ours}")
    return parts


def weights_of_ogbench(arrays, updates: int) -> dict:
    """Ours, of QAM's authors' after so many updates: cosines before sines, the observation before the time."""
    parts = flax_ensemble(arrays, f"{updates}/modules_critic/value_net", "critic.q_network")
    parts |= flax_ensemble(arrays, f"{updates}/modules_target_critic/value_net", "critic.q_target")
    prefix = f"{updates}/modules_actor"
    parts["policy.network.embed.weight"] = arrays[f"{prefix}/FourierFeatures_0/kernel"][:, 0]
    parts |= flax_layer(arrays, f"{prefix}/MLP_0/Dense_0", "policy.network.time.0", SINES_FIRST)
    parts |= flax_layer(arrays, f"{prefix}/MLP_0/Dense_1", "policy.network.time.2")
    acted, observed = range(ACTION), range(ACTION, ACTION + OBSERVATION)
    time = range(ACTION + OBSERVATION, ACTION + OBSERVATION + TIME)
    return parts | flax_mlp(arrays, f"{prefix}/MLP_1", "policy.network", [*acted, *time, *observed])


@pytest.fixture(params=MORE)
def given(request):
    _, arrays = fixture(request.param)
    algorithm = made(*MORE[request.param])
    found = weights_of_ogbench if algorithm.joint else weights
    put(algorithm, found(arrays, 0))
    return arrays, algorithm, found


def update(algorithm, arrays, number: int) -> dict:
    """One step of the phase with the fixture's draws; its metrics."""
    [phase] = algorithm.phases
    level = arrays["draw/level"][number].flatten()
    matching = {"t": level.double() / algorithm.policy.path.steps, "noise": arrays["draw/noise"][number]}
    algorithm.objective.draw = lambda *given: matching
    noise = candidates(arrays["draw/next_noise"][number])
    algorithm.policy.draw_noise = lambda *given: noise
    if algorithm.policy.target is not None:
        algorithm.policy.target.draw_noise = lambda *given: noise
    return phase.update(batches(arrays)[number], torch.Generator(), number)


def candidates(noise: torch.Tensor) -> torch.Tensor:
    """Noise [steps, B, ..., A] as policies take it, [B ..., steps, A]."""
    return noise.movedim(0, -2).flatten(0, -3)


def test_an_update_is_theirs(given):
    arrays, algorithm, found = given
    metrics = update(algorithm, arrays, 0)
    theirs = {"actor_matching": "loss/bc_loss", "actor_guidance": "loss/guidance_loss", "actor_eta": "misc/eta"}
    theirs |= {"critic_loss": "loss/critic_loss", "critic_q": "misc/q_mean", "actor_loss": "loss/actor_loss"}
    if algorithm.joint:
        theirs = {"guidance": "actor/actor_loss", "critic_loss": "critic/critic_loss", "critic_q": "critic/q"}
    assert_terms(metrics, {ours: arrays[f"info/{their}"] for ours, their in theirs.items()})
    assert_equal(algorithm, found(arrays, 1), rtol=5e-8)


def test_ten_updates_are_theirs(given):
    arrays, algorithm, found = given
    assert_ten_updates(algorithm, arrays, update, found)
    if "eta" in arrays:
        torch.testing.assert_close(algorithm.eta_now, arrays["eta"][-1], rtol=1e-7, atol=0)


def test_the_action_played_is_theirs(given):
    arrays, algorithm, found = given
    put(algorithm, found(arrays, 10))
    noise = arrays["draw/next_noise"][0].movedim(0, -2)
    with torch.no_grad():
        acted = algorithm(batches(arrays)[0].observation, noise if noise.dim() == 4 else noise[:, None])
    torch.testing.assert_close(acted, arrays["act"], rtol=1e-5, atol=1e-9)


def test_dac_begins_with_orthogonal_weights_and_biases_at_0():
    """As flowrl/module/initialization.py, with a gain of sqrt(2) in all layers."""
    algorithm = made("algo=dac", *FIRST)
    found = dict(algorithm.named_parameters(remove_duplicate=False))
    for name in ("policy.network.time.0", "policy.network.layers.2", "critic.q_network.layers.1"):
        weight = found[f"{name}.weight"]
        torch.testing.assert_close(weight @ weight.mT, 2 * torch.eye(8).double().expand_as(weight), rtol=0, atol=1e-6)
    assert all((value == 0).all() for name, value in found.items() if "bias" in name)


def test_qsm_begins_with_xaviers_weights_and_small_frequencies():
    """As utils/networks.py and utils/diffusion.py."""
    algorithm = made("algo=qsm", "network.hidden=[64,64]", "network.time_layers=[64,64]", "network.time_size=512")
    found = dict(algorithm.named_parameters(remove_duplicate=False))
    for name, bound in {"policy.network.time.2": (6 / 128) ** 0.5, "policy.network.layers.2": (6 / 128) ** 0.5}.items():
        assert 0.98 * bound < found[f"{name}.weight"].abs().max() <= bound
    assert found["policy.network.embed.weight"].std().item() == pytest.approx(0.2, rel=0.2)
    assert all((value == 0).all() for name, value in found.items() if "bias" in name and "norm" not in name)
