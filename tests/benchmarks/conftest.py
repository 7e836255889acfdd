"""Rows of the table of speeds: what is measured, beside its limit and its peers; pytest-benchmark prints the ratios."""

import gc
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from command_line import jobs
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
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
        gc.collect()  # algorithms are cycles: those of earlier rows go
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


@pytest.fixture
def passes(row):
    """Measures forward passes of a function's networks, as many as its arithmetic is that of."""

    def measure(group, function, rounds, batch):
        runs, counts = [], defaultdict(float)
        for network, given, number in network_passes(function):
            rows = len(given[0])
            part = round(number % 1 * rows)
            runs += [(network, given)] * int(number)
            runs += [(network, [each[:part] if floating(each) else each for each in given])] * (part > 0)
            counts[type(network).__name__] += number * rows / batch

        @torch.no_grad()
        def run():
            for network, given in runs:
                network(*given)

        row(group, run, rounds, passes=counts)

    return measure


class Evaluation(NamedTuple):
    """A network, what it was given, its floating-point operations, and those of them that have a gradient."""

    network: nn.Module
    given: tuple
    flops: int
    differentiated: int


def network_passes(function: Callable[[], object]) -> list[tuple[nn.Module, list, float]]:
    """The networks that a function evaluates, with random arguments [rows, ...] of each shape and the number of passes.

    A forward pass counts as one, tangents and gradients as the forward passes of as many operations; gradients are of
    all evaluations that have one alike.
    """
    entered, evaluations = [], defaultdict(list)

    def enter(network, given):
        entered.append(counter.get_total_flops())

    def leave(network, given, out):
        begun = entered.pop()
        if not entered:  # or it is a part of a network
            flops, tensors = counter.get_total_flops() - begun, [*network.parameters(), *filter(torch.is_tensor, given)]
            trained = torch.is_grad_enabled() and any(each.requires_grad for each in tensors)
            shapes = tuple(each.shape for each in tensors)
            evaluations[shapes].append(Evaluation(network, given, flops, flops * (trained or out.requires_grad)))

    hooks = register_module_forward_pre_hook(enter), register_module_forward_hook(leave)
    with FlopCounterMode(display=False) as counter:
        function()
    for hook in hooks:
        hook.remove()
    flops, differentiated = (
        {shapes: sum(getattr(each, name) for each in same) for shapes, same in evaluations.items()}
        for name in ("flops", "differentiated")
    )
    rest = (counter.get_total_flops() - sum(flops.values())) / max(1, sum(differentiated.values()))
    found = []
    for shapes, [(network, given, *_), *_] in evaluations.items():
        given = [torch.rand(each.shape, device=each.device) if floating(each) else each for each in given]
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(*given)
        number = (flops[shapes] + rest * differentiated[shapes]) / max(1, counter.get_total_flops())
        found.append((network, given, number))
    return found


def floating(value) -> bool:
    """Whether it is a tensor of numbers with fractions."""
    return torch.is_tensor(value) and value.is_floating_point()
