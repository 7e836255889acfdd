"""What GTP costs beside what it is made of: pytest-benchmark prints the ratios in brackets.

update: one update of GTP (critic and actor) against one of diffusion BC plus the same critic's. sample: an action by
two jumps against one evaluation of the network.
"""

import pytest
import torch
from command_line import jobs

from genpolicy.algo.algorithm import assemble
from genpolicy.dataset.transitions import Transitions

BATCH, OBSERVATION, ACTION = 256, 11, 3


def made(*words):
    [(job, _)] = jobs("env=hopper-medium-v2", "tuned=none", "network=mlp", *words)
    torch.manual_seed(0)
    return assemble(job.config, OBSERVATION, -torch.ones(ACTION), torch.ones(ACTION))


@pytest.fixture(scope="module")
def parts():
    """The parts by group and name."""
    gtp, two, bc = made("algo=gtp"), made("algo=gtp", "solver.steps=2"), made("algo=bc", "model=edm")
    generator = torch.Generator().manual_seed(0)
    columns = {"observation": torch.randn(BATCH, OBSERVATION), "action": torch.rand(BATCH, ACTION).mul(2).sub(1)}
    columns |= {"reward": torch.randn(BATCH), "next_observation": torch.randn(BATCH, OBSERVATION)}
    columns["terminated"] = torch.zeros(BATCH, dtype=torch.bool)
    batch = Transitions.of({name: column.numpy() for name, column in columns.items()})
    joint, imitate = gtp.phases[0].update, bc.phases[0].update
    critic = joint.updates["critic"]
    one = batch.observation[:1]
    x, t = torch.randn(1, ACTION), torch.rand(1)

    @torch.no_grad()
    def evaluation():
        two.policy.raw(x, t, one)

    return {
        "update": {
            "gtp": lambda: joint(batch, generator, 0.5),
            "bc_and_critic": lambda: (imitate(batch, generator, 0.5), critic(batch, generator, 0.5)),
        },
        "sample": {"two_jumps": lambda: two.act(one, generator), "network": evaluation},
    }


@pytest.mark.parametrize(
    ("group", "name"),
    [("update", "gtp"), ("update", "bc_and_critic"), ("sample", "two_jumps"), ("sample", "network")],
)
def test_part(benchmark, parts, group, name):
    benchmark.group = f"gtp {group}"
    rounds = {"update": 30, "sample": 300}[group]
    benchmark.pedantic(parts[group][name], rounds=rounds, warmup_rounds=5)
