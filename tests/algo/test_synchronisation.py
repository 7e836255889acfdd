"""No update waits for the device: shown on a CPU, by what would make the host wait for a GPU, or copy to it."""

from collections import Counter
from unittest import mock

import pytest
import torch
from command_line import jobs
from small import ALGORITHMS, begun, random_transitions, shrink
from torch.utils._python_dispatch import TorchDispatchMode

from genpolicy.algo.algorithm import assemble
from genpolicy.training.state import State

aten = torch.ops.aten
# The host reads a value (`item`, `if`, `tolist`) or a shape that depends on values, or gives a tensor of its own.
WAITING = {aten._local_scalar_dense, aten.nonzero, aten.nonzero_static, aten.masked_select, aten.equal}
WAITING |= {aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.bincount}
WAITING |= {aten.lift_fresh, aten._assert_async}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class Unattended(TorchDispatchMode):
    """Inside, what would wait for a GPU is counted in `found`, by the operation's name."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        operation = function.overloadpacket
        masks = operation in INDEXING and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        # One draw, or without replacement: it looks at its weights before, below where a mode sees it.
        looks = operation is aten.multinomial and (args[1] == 1 or not (*args, False)[2])
        if masks or looks or operation in WAITING:
            self.found[str(function)] += 1
        return function(*args, **kwargs or {})

    def __enter__(self):
        self.patches = [
            mock.patch.object(torch.Tensor, name, self.counted(name)) for name in ("cpu", "numpy", "tolist")
        ]
        found = self.found

        class Generator(torch.Generator):
            def __new__(cls, *given):
                found["Generator"] += 1
                return super().__new__(cls, *given)

        self.patches.append(mock.patch.object(torch, "Generator", Generator))
        for patch in self.patches:
            patch.start()
        return super().__enter__()

    def __exit__(self, *error):
        for patch in self.patches:
            patch.stop()
        return super().__exit__(*error)

    def counted(self, name):
        original = getattr(torch.Tensor, name)

        def call(*given, **more):
            self.found[name] += 1
            return original(*given, **more)

        return call


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.masked_select(x > 0),
        lambda x: x.cpu(),
        lambda x: x.tolist(),
        lambda x: torch.multinomial(x, 1),
        lambda x: torch.tensor([1.0, 2.0], device=x.device),
        lambda x: x.new_tensor([1.0]),
        lambda x: x.index_put_((x > 0,), torch.zeros(())),
        lambda x: torch.equal(x, x),
        lambda x: float(x.mean()),
        lambda x: torch.Generator(x.device),
    ],
)
def test_what_waits_is_found(wait):
    x = torch.ones(3)
    with Unattended() as mode:
        wait(x)
    assert mode.found


@pytest.mark.parametrize("name", ALGORITHMS)
def test_no_update_waits(name):
    [(job, _)] = jobs(f"algo={name}", "tuned=none", "network=mlp", "env=multi-goal")
    shrink(job.config)
    torch.manual_seed(0)
    algorithm = assemble(job.config, 2, -torch.ones(2), torch.ones(2))
    data, generator, state = random_transitions(), torch.Generator().manual_seed(0), State()
    for phase in algorithm.phases:
        source = begun(phase, data)
        every = max(update.every for update in phase.updates.values())

        def step(number, phase=phase, source=source):
            state.accumulate(phase.update(source.sample(8, generator), generator, number))

        for number in range(every):  # what depends on times alone is computed once
            step(number)
        with Unattended() as mode:
            for number in range(every, 2 * every):
                step(number)
        assert not mode.found, phase.name
