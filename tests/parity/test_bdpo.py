"""BDPO is that of flow-rl: tests/parity/reference/bdpo.py."""

import pytest
import torch
from parity import assert_equal, assert_terms, batches, fixture, flax_ensemble, flax_layer, flax_mlp, made, put

OBSERVATION, ACTION, TIME, STEPS, WARM_UP = 5, 3, 8, 3, 4
SINES_FIRST = [*range(TIME // 2, TIME), *range(TIME // 2)]
WORDS = ("algo=bdpo", "network.hidden=[8,8]", "network.time_size=8", "network.time_layers=[8,8]", "critic.hidden=[8,8]")
WORDS += ("critic.ensemble=2", "critic.candidates=2", "critic.time_size=8", "model.path.steps=3", "solver.steps=3")
WORDS += ("algo.warm_up_steps=4", "algo.steps=16", "algo.policy_delay=2", "algo.lr=1e-3", "select.num_candidates=2")
MORE = {
    "bdpo": ("critic.pessimism=0.7", "algo.eta=0.3"),
    "bdpo_max_q": (
        *("critic.pessimism=0.8", "algo.eta=1", "critic.over_candidates=max", "critic.layer_norm=true"),
        "critic.discount=0.995",
    ),
}
MODELS = {"behavior": "behaviour", "behavior_target": "behaviour.target", "actor": "learner", "actor_target": "policy"}
CRITICS = {"q0": "q_network", "q0_target": "q_target", "vt": "chain_network", "vt_target": "chain_target"}


def perceptron(arrays, prefix: str, ours: str) -> dict:
    """Of an MLP and a last layer that is a module of its own, our `EnsembleMLP`."""
    layers = f"{prefix}/backbone/"
    renamed = {f"all/{key.removeprefix(layers)}": value for key, value in arrays.items() if key.startswith(layers)}
    renamed |= {f"all/Dense_2/{part}": arrays[f"{prefix}/Dense_0/{part}"] for part in ("kernel", "bias")}
    return flax_ensemble(renamed, "all", ours)


def weights(arrays, updates: int) -> dict:
    """Ours, of what the fixture has of theirs after so many updates; cosines are before sines."""
    parts, cosines = {}, torch.arange(TIME)[SINES_FIRST]
    for theirs, ours in MODELS.items():
        prefix, every = f"{updates}/{theirs}", list(range(ACTION + TIME + OBSERVATION))
        if f"{prefix}/MLP_0/Dense_0/bias" in arrays:
            parts |= flax_layer(arrays, f"{prefix}/MLP_0/Dense_0", f"{ours}.network.time.0", SINES_FIRST)
            parts |= flax_layer(arrays, f"{prefix}/MLP_0/Dense_1", f"{ours}.network.time.2")
            parts |= flax_mlp(arrays, f"{prefix}/noise_predictor", f"{ours}.network", every)
    for theirs, ours in CRITICS.items():
        prefix, name = f"{updates}/{theirs}/base", f"critic.{ours}"
        if f"{prefix}/Dense_0/bias" not in arrays:
            continue
        if theirs.startswith("vt"):
            for layer in (0, 1):
                kernel, bias = (arrays[f"{prefix}/MLP_0/Dense_{layer}/{part}"] for part in ("kernel", "bias"))
                parts[f"{name}.time.{layer}.weight"] = kernel if layer else kernel[:, cosines]
                parts[f"{name}.time.{layer}.bias"] = bias[:, None]
            name += ".layers"
        parts |= perceptron(arrays, prefix, name)
    return parts


@pytest.fixture(params=MORE)
def given(request):
    _, arrays = fixture(request.param)
    algorithm = made(*WORDS, *MORE[request.param])
    put(algorithm, weights(arrays, 0))
    pretrain(algorithm, arrays)
    return arrays, algorithm


def pretrain(algorithm, arrays) -> None:
    """Their two updates of the behaviour model, and what the actor begins with."""
    behaviour, warm_up, _ = algorithm.phases
    for number in range(2):
        algorithm.objective.draw = lambda *given, number=number: matching(arrays, "pretraining", number)
        metrics = behaviour.update(batches(arrays)[number], torch.Generator(), number)
        if number == 0:
            assert_terms(metrics, {"loss": arrays["info/pretraining"]})
    warm_up.start()


def matching(arrays, use: str, number: int) -> dict:
    level, noise = (arrays[f"draw/{use}_{what}"][number] for what in ("level", "noise"))
    return {"t": level.flatten().double() / STEPS, "noise": noise}


def update(algorithm, arrays, number: int) -> dict:
    """One step with the fixture's draws; its metrics."""
    _, warm_up, training = algorithm.phases
    batch, chains = batches(arrays)[number], arrays["draw/chain"][number].movedim(0, -2)
    uses = iter(["v", "actor"])

    def drawn(batch, generator, progress):
        use = next(uses)
        return matching(arrays, use, number) | {"step_noise": arrays[f"draw/{use}_step"][number]}

    for phase in (warm_up, training):
        phase.updates["critic_q"].draw = lambda *given: {"chain_noise": chains}
        phase.updates["critic_v"].draw = drawn
    training.updates["actor"].draw = drawn
    algorithm.objective.draw = lambda *given: matching(arrays, "behaviour", number)
    phase, step = (warm_up, number) if number < WARM_UP else (training, number - WARM_UP)
    return phase.update(batch, torch.Generator(), step)


def test_updates_are_theirs(given):
    arrays, algorithm = given
    for number in range(10):
        metrics = update(algorithm, arrays, number)
        if number in (0, WARM_UP):
            theirs = {"critic_q_loss": "loss/q0_loss", "critic_q_q": "misc/q0_mean", "critic_v_loss": "loss/vt_loss"}
            theirs |= {"critic_v_value": "misc/vt_mean"}
            if number:
                theirs |= {"actor_loss": "loss/actor_loss", "behaviour_loss": "ddpm_loss"}
            assert_terms(metrics, {ours: arrays[f"info/{number}/{their}"] for ours, their in theirs.items()})
            torch.testing.assert_close(
                metrics["critic_v_cost"],
                algorithm.eta * ACTION * arrays[f"info/{number}/misc/vt_penalty"],
                rtol=1e-5,
                atol=1e-12,
            )
        if number == 0:
            assert_equal(algorithm, weights(arrays, 1), rtol=5e-8)
    assert_equal(algorithm, weights(arrays, 10), rtol=5e-8)


def test_the_action_played_is_theirs(given):
    arrays, algorithm = given
    put(algorithm, weights(arrays, 10))
    noise = arrays["draw/chain"][0].movedim(0, -2)
    with torch.no_grad():
        acted = algorithm(batches(arrays)[0].observation, noise)
    torch.testing.assert_close(acted, arrays["act"], rtol=1e-5, atol=1e-9)


def test_weights_begin_orthogonal_and_biases_at_0():
    """As flowrl/module/initialization.py, with a gain of sqrt(2) in all layers."""
    torch.manual_seed(0)
    found = dict(made(*WORDS).named_parameters(remove_duplicate=False))
    names = ("behaviour.network.time.0", "behaviour.network.layers.2", "critic.q_network.layers.1")
    for name in (*names, "critic.chain_network.layers.layers.1"):
        weight = found[f"{name}.weight"]
        torch.testing.assert_close(weight @ weight.mT, 2 * torch.eye(8).double().expand_as(weight), rtol=0, atol=1e-5)
    weight = found["critic.chain_network.time.0.weight"]  # [E, 8, 16]
    torch.testing.assert_close(weight @ weight.mT, 2 * torch.eye(8).double().expand(2, 8, 8), rtol=0, atol=1e-5)
    assert all((value == 0).all() for name, value in found.items() if "bias" in name)
