"""Diffusion-QL is that of its authors' code (Wang et al. 2023): tests/parity/reference/diffusion_ql.py."""

import pytest
import torch
from parity import batches, made, put
from parity_torch import assert_logged, assert_moved, choosing, doubles, ensemble, layers, sampling_from, tossing

SMALL = ("algo=diffusion_ql", "network.hidden=[16,16,16]", "critic.hidden=[16,16,16]", "algo.gradient_norm=0.2")
MORE = {"diffusion_ql": ("algo.eta=1",), "diffusion_ql_max_q": ("algo.eta=2", "critic.candidates=10")}


def weights(arrays, updates: int) -> dict:
    """Ours, of the reference's."""
    found = {}
    for theirs, ours in {"actor": "policy", "ema": "policy.target"}.items():
        names = {f"time_mlp.{number}": f"embed.layers.{number - 1}" for number in (1, 3)}
        names |= {f"mid_layer.{number}": f"layers.{number}" for number in (0, 2, 4)} | {"final_layer": "layers.6"}
        prefixed = {f"{updates}/{theirs}/{name}": f"{ours}.network.{our}" for name, our in names.items()}
        found |= layers(arrays, prefixed)
    for theirs, ours in {"critic": "q_network", "critic_target": "q_target"}.items():
        members = [f"{updates}/{theirs}/q{j}_model" for j in (1, 2)]
        found |= ensemble(arrays, members, [0, 2, 4, 6], f"critic.{ours}")
    return found


def begun(name: str, *words: str):
    """The arrays of a fixture, and the algorithm of a command line with its weights, as old as the reference's was."""
    about, arrays = doubles(name)
    algorithm = made(*words)
    put(algorithm, weights(arrays, 0))
    [phase] = algorithm.phases
    phase.updates["actor"].optimizer.count = about["settings"]["start"]
    return arrays, algorithm


def assert_updates(arrays, algorithm, update) -> None:
    """Ten updates are the reference's, by what it logs and by the parameters after the first and the last."""
    initial = weights(arrays, 0)
    for number in range(10):
        metrics = update(algorithm, arrays, number)
        theirs = {"actor_loss": "actor_loss", "actor_matching": "bc_loss", "critic_loss": "critic_loss"}
        if number == 0:
            theirs |= {"critic_target": "Target_Q Mean", "critic_gradient": "Critic Grad Norm"}
            theirs |= {"actor_gradient": "Actor Grad Norm"}
        assert_logged(metrics, arrays, theirs, number)
        if number in (0, 9):
            assert_moved(algorithm, initial, weights(arrays, number + 1))


def stepped(algorithm, arrays, number: int, matching: dict) -> dict:
    """One step of the phase with the fixture's draws, `matching` those of the actor's loss; its metrics."""
    [phase] = algorithm.phases
    algorithm.objective.draw = lambda *given: matching
    noises = arrays["draw/next_noise"][number], arrays["draw/action_noise"][number]
    with sampling_from(*noises), tossing(arrays["draw/coin"][number]):
        return phase.update(batches(arrays)[number], torch.Generator(), number)


def assert_played(arrays, algorithm, update) -> None:
    """The action played after ten updates, and the chances of the candidates, are the reference's."""
    for number in range(10):
        update(algorithm, arrays, number)
    with sampling_from(arrays["draw/candidates"]), choosing(7) as chosen:
        action = algorithm.act(arrays["batch/observations"][0, :1], torch.Generator())
    torch.testing.assert_close(action[0], arrays["act"])
    torch.testing.assert_close(chosen[0][0], arrays["chances"], rtol=1e-6, atol=0)


@pytest.fixture(params=MORE)
def given(request):
    return begun(request.param, *SMALL, *MORE[request.param])


def update(algorithm, arrays, number: int) -> dict:
    """One step of the phase with the fixture's draws; its metrics."""
    matching = {"t": (arrays["draw/t"][number] + 1) / 5, "noise": arrays["draw/noise"][number]}
    return stepped(algorithm, arrays, number, matching)


def test_updates_are_theirs(given):
    assert_updates(*given, update)


def test_the_action_played_is_theirs(given):
    assert_played(*given, update)


def test_networks_begin_as_torch_s_layers_do():
    torch.manual_seed(0)
    algorithm = made("algo=diffusion_ql")
    for linear in [algorithm.policy.network.layers[2], algorithm.policy.network.embed.layers[2]]:
        bound = linear.in_features**-0.5
        for parameter in linear.parameters():
            assert 0.8 * bound < parameter.abs().max() <= bound
    layer = algorithm.critic.q_network.layers[1]
    assert 0.98 / 16 < layer.weight.abs().max() <= 1 / 16
