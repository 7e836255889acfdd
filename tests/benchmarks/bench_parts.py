"""How fast the parts of training are: each beside matrix products of the same arithmetic, in the same run.

The sizes are Hopper's, the network and the solver those of the papers' setting. A part that takes many times as long as
its products spends its time outside them: in small operations, memory or Python.
"""

import pytest
import torch
from command_line import jobs
from torch.utils.flop_counter import FlopCounterMode

from genpolicy.algo.algorithm import assemble
from genpolicy.dataset.transitions import Transitions

BATCH, OBSERVATION, ACTION = 128, 11, 3
SIDE = 512  # of the comparison's products, [BATCH, SIDE] x [SIDE, SIDE]
PARTS = ("behaviour", "critic", "policy", "sample", "log_prob")


@pytest.fixture(scope="module")
def parts():
    """The parts of GMPG on random transitions: its three kinds of updates, sampling and the likelihood."""
    [(job, _)] = jobs("algo=gmpg", "model=vpsde", "env=hopper-medium-v2", "tuned=none")
    torch.manual_seed(0)
    algorithm = assemble(job.config, OBSERVATION, -torch.ones(ACTION), torch.ones(ACTION))
    generator = torch.Generator().manual_seed(0)
    batch = Transitions.of(
        {
            "observation": torch.randn(BATCH, OBSERVATION).numpy(),
            "action": torch.rand(BATCH, ACTION).mul(2).sub(1).numpy(),
            "reward": torch.randn(BATCH).numpy(),
            "next_observation": torch.randn(BATCH, OBSERVATION).numpy(),
            "terminated": torch.zeros(BATCH, dtype=torch.bool).numpy(),
        }
    )
    updates = {phase.name: phase.update for phase in algorithm.phases}
    found = {name: lambda update=update: update(batch, generator, 0.0) for name, update in updates.items()}
    found["sample"] = lambda: algorithm.act(batch.observation, generator)
    found["log_prob"] = lambda: algorithm.log_prob(batch.action, batch.observation, generator)
    assert set(found) == set(PARTS)
    return found


@pytest.mark.parametrize("name", PARTS)
def test_part(benchmark, parts, name):
    benchmark.group = name
    benchmark.pedantic(parts[name], rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("name", PARTS)
def test_products(benchmark, parts, name):
    benchmark.group = name
    with FlopCounterMode(display=False) as counter:
        parts[name]()
    flops = counter.get_total_flops()
    repetitions = max(1, round(flops / (2 * BATCH * SIDE * SIDE)))
    left, right = torch.randn(BATCH, SIDE), torch.randn(SIDE, SIDE)

    def products():
        for _ in range(repetitions):
            torch.mm(left, right)

    benchmark.extra_info["gigaflop"] = flops / 1e9
    benchmark.pedantic(products, rounds=5, warmup_rounds=1)
