"""RLPD is that of its authors' code (Ball et al. 2023): tests/parity/reference/rlpd.py."""

import pytest
import torch
from parity import assert_acts, assert_equal, assert_terms, batches, fixture, flax_ensemble, flax_layer, made, put

UTD = 2
WORDS = {
    "rlpd": ("network.hidden=[16,16]", "critic.hidden=[16,16]"),
    "rlpd_antmaze": (
        "tuned=rlpd/antmaze-umaze-v2",
        "online.updates=2",
        "network.hidden=[8,8,8]",
        "critic.hidden=[8,8,8]",
    ),
}


def weights(arrays, updates: int) -> dict:
    """Ours, of the reference's after so many of its updates."""
    parts = {}
    for theirs, ours in {"critic": "q_network", "target_critic": "q_target"}.items():
        prefix = f"{updates}/{theirs}/VmapStateActionValue_0"
        found = {
            key.replace("/MLP_0/", "/"): value for key, value in arrays.items() if key.startswith(f"{prefix}/MLP_0/")
        }
        last = sum(key.endswith("kernel") for key in found)
        found |= {f"{prefix}/Dense_{last}/{part}": arrays[f"{prefix}/Dense_0/{part}"] for part in ("kernel", "bias")}
        parts |= flax_ensemble(found, prefix, f"critic.{ours}")
    hidden = sorted({key.split("/")[3] for key in arrays if key.startswith(f"{updates}/actor/MLP_0/")})
    for number, name in enumerate(hidden):
        parts |= flax_layer(arrays, f"{updates}/actor/MLP_0/{name}", f"policy.network.layers.{2 * number}")
    last = f"policy.network.layers.{2 * len(hidden)}"
    heads = [flax_layer(arrays, f"{updates}/actor/OutputDense{name}", last) for name in ("Mean", "LogStd")]
    parts |= {name: torch.cat([head[name] for head in heads]) for name in heads[0]}
    return parts | {"log_temperature": arrays[f"{updates}/temp/log_temp"][None]}


@pytest.fixture(params=WORDS)
def given(request):
    about, arrays = fixture(request.param)
    algorithm = made("algo=rlpd", "critic.ensemble=4", "online.updates=2", "online.steps=9000", *WORDS[request.param])
    assert about["settings"]["utd_ratio"] == algorithm.policy_delay == UTD
    assert about["settings"]["num_min_qs"] == algorithm.critic.subset
    assert about["settings"]["target_entropy"] == algorithm.entropy * 3
    put(algorithm, weights(arrays, 0))
    return arrays, algorithm


def update(algorithm, arrays, number: int) -> dict:
    """One step of the online phase with the fixture's draws; its metrics."""
    phase, batch = algorithm.online_phase(10), batches(arrays)[number]
    noises = [arrays[f"draw/{name}"][number][:, None] for name in ("next_noise", "noise")]
    algorithm.policy.draw_noise = lambda *given: noises.pop(0)
    members = arrays["draw/members"][number].expand(batch.size, -1)
    algorithm.critic.draw = lambda *given: {"members": members}
    return phase.update(batch, torch.Generator(), number)


def test_an_update_is_theirs(given):
    arrays, algorithm = given
    for number in range(UTD):
        metrics = update(algorithm, arrays, number)
    theirs = {"critic_loss": "critic_loss", "critic_q": "q", "actor_entropy": "entropy"}
    assert_terms(metrics, {ours: arrays[f"info/{their}"] for ours, their in theirs.items()})
    assert_terms(metrics, {"actor_temperature": arrays["info/temperature"]})
    loss = arrays["info/actor_loss"] + arrays["info/temperature_loss"]
    torch.testing.assert_close(metrics["actor_loss"], loss, rtol=1e-7, atol=0)
    assert_equal(algorithm, weights(arrays, 1), rtol=5e-8)


def test_ten_updates_are_theirs(given):
    arrays, algorithm = given
    for number in range(10):
        update(algorithm, arrays, number)
    assert_equal(algorithm, weights(arrays, 10), rtol=5e-8)


def test_it_acts_and_explores_as_theirs(given):
    arrays, algorithm = given
    assert_acts(algorithm, arrays, weights, arrays["draw/noise"][0][:, None, None])
    algorithm.policy.draw_noise = lambda *given: arrays["draw/noise"][0][:, None]
    explored = algorithm.explore(batches(arrays)[0].observation, torch.Generator())
    torch.testing.assert_close(explored, arrays["explore"], rtol=1e-5, atol=1e-9)


def test_the_target_takes_each_subset_of_q_functions_alike():
    algorithm = made("algo=rlpd", "network.hidden=[8]", "critic.hidden=[8]", "critic.ensemble=4")
    generator, batch = torch.Generator().manual_seed(0), batches(fixture("rlpd")[1])[0]
    drawn = [algorithm.critic.draw(batch, generator, 0.0)["members"] for _ in range(600)]
    assert all(members.shape == (batch.size, 2) and (members == members[0]).all() for members in drawn)
    pairs = [tuple(sorted(members[0].tolist())) for members in drawn]
    assert all(first != second for first, second in pairs)
    assert len(set(pairs)) == 6
    assert all(60 < pairs.count(pair) < 140 for pair in set(pairs))


def test_weights_begin_as_xaviers_of_each_head_and_biases_at_0():
    """As rlpd/networks/mlp.py and rlpd/distributions/tanh_normal.py, where mean and spread are layers of their own."""
    algorithm = made("algo=rlpd", "network.hidden=[64,64]", "critic.hidden=[64,64]", "critic.ensemble=4")
    found = dict(algorithm.named_parameters(remove_duplicate=False))
    heads = found["policy.network.layers.4.weight"].chunk(2)
    for weight, bound in ((heads[0], (6 / 67) ** 0.5), (heads[1], (6 / 67) ** 0.5)):
        assert 0.95 * bound < weight.abs().max() <= bound
    weight = found["critic.q_network.layers.1.weight"]
    assert 0.99 * (6 / 128) ** 0.5 < weight.abs().max() <= (6 / 128) ** 0.5
    assert all((value == 0).all() for name, value in found.items() if "bias" in name or "temperature" in name)
