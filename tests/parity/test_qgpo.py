"""QGPO beside its authors' code: behaviour model, critic and energy for ten updates, and what acts."""

import pytest
import torch
from parity import batches, made, put
from parity_thu import RESIDUAL, frequencies, q, residual
from parity_torch import assert_moved, doubles, layers

WORDS = ("algo=qgpo", "critic.hidden=[8,8,8]", "algo.energy_hidden=[8,8,8,8]", "critic.candidates=4")
WORDS += ("algo.num_actions=4", *RESIDUAL)


def critic(arrays, prefix):
    found = q(arrays, prefix, "q", "critic.q_network", [0, 2, 4, 6])
    return found | q(arrays, prefix, "q_target", "critic.q_target", [0, 2, 4, 6])


def energy(arrays, prefix):
    names = {f"qt.{number}": f"layers.{number}" for number in (0, 2, 4, 6, 8)} | {"embed.1": "embed.layer"}
    return layers(arrays, {f"{prefix}/energy/{a}": f"policy.network.energy.{b}" for a, b in names.items()})


def begun(*more):
    """The algorithm as the reference began, the values of its parameters, and the fixture's arrays."""
    about, arrays = doubles("qgpo")
    assert about["settings"] == {"alpha": 3.0, "q_alpha": 1.0, "diffusion_steps": 15, "M": 16, "method": "CEP"}
    algorithm = made(*WORDS, *more)
    start = residual(arrays, "0") | critic(arrays, "0") | energy(arrays, "0")
    put(algorithm, start)
    frequencies(algorithm.behaviour.network, arrays["0/behaviour/embed.0.W"])
    frequencies(algorithm.policy.network.energy, arrays["0/energy/embed.0.W"])
    return algorithm, start, arrays


def test_ten_updates_of_each_stage():
    algorithm, start, arrays = begun()
    behaviour, joint, alone = algorithm.phases
    names = ("behaviour_action", "next_behaviour_action")
    data = batches(arrays)
    supported = [
        batch.extended(**{name: arrays[f"batch/{name}"][number] for name in names}) for number, batch in enumerate(data)
    ]
    # Theirs: (1 - 0.001) u + 0.001.
    draws = [{"t": 0.999 * arrays["draw/t"][i] + 0.001, "noise": arrays["draw/noise"][i]} for i in range(10)]
    assert list(joint.updates) == ["critic", "energy"]
    for number, batch in enumerate(supported):
        joint.updates["critic"](batch, torch.Generator(), 0.0)  # which draws nothing at random
        joint.updates["energy"].step(batch, draws[number])
        if number == 0:
            wanted = energy(arrays, "gradient")
            named = dict(algorithm.named_parameters())
            found = {name: named[name].grad for name in wanted}
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-9)
            assert_moved(algorithm, start, critic(arrays, "1"))
            assert_moved(algorithm, start, energy(arrays, "1"))
    assert_moved(algorithm, start, critic(arrays, "10"))
    assert_moved(algorithm, start, energy(arrays, "10"))
    [update] = alone.updates.values()
    for batch, drawn in zip(supported, draws, strict=True):
        update.step(batch, drawn)
    assert_moved(algorithm, start, energy(arrays, "20"))

    [update] = behaviour.updates.values()
    for number, batch in enumerate(data):
        t = 0.999 * arrays["draw/behaviour_t"][number] + 0.001
        update.step(batch, {"t": t, "noise": arrays["draw/behaviour_noise"][number]})
        if number == 0:
            assert_moved(algorithm, start, residual(arrays, "1"))
    assert_moved(algorithm, start, residual(arrays, "10"))


@pytest.mark.parametrize("scale", ["0", "1", "3"])
def test_what_acts(scale):
    algorithm, _, arrays = begun(f"algo.guidance_scale={scale}")
    observation, noise = arrays["batch/observations"][0], arrays["draw/sample"]
    with torch.no_grad():
        predicted = algorithm.policy.noise(noise, arrays["draw/t"][0], observation)
        action = algorithm.policy.sample(observation, noise=noise)
    torch.testing.assert_close(predicted, arrays[f"noise_prediction/{scale}"], rtol=1e-5, atol=1e-9)
    # Theirs is what it is at the last time, of which the data are 1 / alpha, and it starts from 1 / sigma of our noise.
    torch.testing.assert_close(action, arrays[f"sample/{scale}"], rtol=2e-4, atol=1e-5)


def test_what_is_drawn():
    algorithm, _, arrays = begun()
    [batch] = batches(arrays, 1)
    generator = torch.Generator().manual_seed(0)
    [update] = algorithm.phases[0].updates.values()
    times = torch.cat([update.draw(batch, generator, 0.0)["t"] for _ in range(100)])
    assert 1e-3 <= times.min() < 0.01 < 0.99 < times.max() <= 1
    batch = batch.extended(behaviour_action=arrays["batch/behaviour_action"][0])
    [update] = algorithm.phases[2].updates.values()
    drawn = update.draw(batch, generator, 0.0)
    assert drawn["t"].shape == (batch.size,)
    assert drawn["noise"].shape == (batch.size, 4, 3)
