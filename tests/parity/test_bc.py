"""The behaviour model beside GenerativeRL's, for ten updates: flow matching and noise prediction."""

import pytest
import torch
from parity import batches, made, put
from parity_generative_rl import SIZES, double, frequencies, network
from parity_torch import assert_moved, doubles

KINDS = {"bc": ("model=gvp",), "bc_vpsde": ("model=vpsde_epsilon",)}


@pytest.mark.parametrize("kind", KINDS)
def test_ten_updates(kind):
    _, arrays = doubles("bc")
    algorithm = made("algo=bc", *KINDS[kind], *SIZES)
    start = network(arrays, "0", "guided", "behaviour")
    put(algorithm, start)
    frequencies(algorithm.behaviour.network, arrays, "guided")
    [update] = algorithm.phases[0].updates.values()
    double(update)
    for number, batch in enumerate(batches(arrays)):
        t = (1 - 1e-5) * arrays["draw/t"][number] + 1e-5
        update.step(batch, {"t": t, "noise": arrays["draw/noise"][number]}, number / 10)
        if number == 0:
            wanted, named = network(arrays, f"{kind}/gradient", "guided", "behaviour"), algorithm.behaviour.network
            named = {f"behaviour.network.{name}": parameter for name, parameter in named.named_parameters()}
            for name, value in wanted.items():
                torch.testing.assert_close(named[name].grad, 2 * value, rtol=1e-5, atol=1e-9)
        if number in (0, 9):
            assert_moved(algorithm, start, network(arrays, f"{kind}/{number + 1}", "guided", "behaviour"))
