"""Rows of the table of speeds: what is measured, beside its limit and its peers; pytest-benchmark prints the ratios."""

import pytest
import torch
from command_line import jobs
from torch.utils.flop_counter import FlopCounterMode

from genpolicy.algo.algorithm import assemble
from genpolicy.dataset.transitions import Transitions

OBSERVATION, ACTION = 11, 3  # Hopper's


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="where to compute: cpu or cuda")


@pytest.fixture(scope="session")
def device(request):
    return torch.device(request.config.getoption("device"))


@pytest.fixture(scope="session")
def made(device):
    """Makes the algorithm of a command line, for random data of Hopper's sizes."""

    def make(*words):
        [(job, _)] = jobs("env=hopper-medium-v2", "tuned=none", *words)
        torch.manual_seed(0)
        return assemble(job.config, OBSERVATION, -torch.ones(ACTION), torch.ones(ACTION)).to(device)

    return make


@pytest.fixture(scope="session")
def transitions(device):
    """Makes any number of random transitions, with chunks of so many actions."""

    def make(size, chunk=1):
        generator = torch.Generator().manual_seed(0)
        columns = {
            "observation": torch.randn(size, OBSERVATION, generator=generator),
            "action": torch.rand(size, chunk * ACTION, generator=generator) * 2 - 1,
            "reward": torch.randn(size, generator=generator),
            "next_observation": torch.randn(size, OBSERVATION, generator=generator),
            "terminated": torch.zeros(size),
        }
        return Transitions.of({name: column.numpy() for name, column in columns.items()}).to(device)

    return make


@pytest.fixture
def row(benchmark, device):
    """Measures a function in a group of the table."""

    def measure(group, function, rounds, **more):
        benchmark.group = group
        benchmark.extra_info |= more
        wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None

        def timed():
            function()
            wait()

        benchmark.pedantic(timed, rounds=rounds, warmup_rounds=max(1, rounds // 10))

    return measure


@pytest.fixture
def products(row, device):
    """Measures matrix products of the arithmetic of a function: what it would cost if all else were free."""

    def measure(group, function, rounds, batch, side=512):
        with FlopCounterMode(display=False) as counter:
            function()
        flops = counter.get_total_flops()
        left, right = torch.randn(batch, side, device=device), torch.randn(side, side, device=device)
        repetitions = max(1, round(flops / (2 * batch * side * side)))
        row(group, lambda: [left @ right for _ in range(repetitions)], rounds, gigaflop=flops / 1e9)

    return measure
