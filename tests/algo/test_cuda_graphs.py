"""Updates as CUDA graphs: to the bit those without, shown on a CPU by a recording in place of a graph."""

import copy

import pytest
import torch
from command_line import jobs
from small import ALGORITHMS, begun, random_transitions, shrink
from tiny import same
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from genpolicy.algo import compilation
from genpolicy.algo.algorithm import assemble
from genpolicy.algo.compilation import CUDA_GRAPHS, WARM_UP
from genpolicy.algo.update import Update
from genpolicy.errors import UserError
from genpolicy.training.precision import arithmetic
from genpolicy.training.vectorised import VectorisedPhase

SEEDS = (0, 1)


def tensors(tree) -> list[torch.Tensor]:
    """The tensors in a structure, without zeros of forward differentiation, which have no memory."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor) and not leaf._is_zerotensor()]


def place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class Recording(TorchDispatchMode):
    """What a CUDA graph keeps of the operations inside, on a CPU: which they are, and where their tensors lie.

    As of a graph, nothing that was there before is changed inside, and nothing that is made there has a value before
    it is replayed.
    """

    def __enter__(self):
        self.operations, self.made, self.before = [], {}, {}
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs, schema = kwargs or {}, function._schema
        for argument, value in zip(schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                memory = {place(tensor): tensor.untyped_storage() for tensor in tensors(value)}
                for where in memory.keys() - self.made.keys() - self.before.keys():
                    self.before[where] = memory[where], memory[where].clone()
        result = function(*args, **kwargs)
        outputs = []
        if not schema.is_mutable and not any(returned.alias_info for returned in schema.returns):
            outputs = tensors(result)
            self.made |= {place(tensor): tensor for tensor in outputs}
        if schema.is_mutable or outputs:
            self.operations.append((function, args, kwargs, outputs))
        return result

    def __exit__(self, *error):
        super().__exit__(*error)
        for memory, value in self.before.values():
            memory.copy_(value)
        for tensor in self.made.values():
            if tensor.is_floating_point():
                tensor.fill_(torch.nan)

    @torch.no_grad()
    def replay(self):
        for function, args, kwargs, outputs in self.operations:
            result = function(*args, **kwargs)
            for tensor, value in zip(outputs, tensors(result) if outputs else (), strict=True):
                tensor.copy_(value)


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    def recorded(function):
        with Recording() as recording:
            result = function()
        return recording.replay, result

    monkeypatch.setattr(compilation, "recorded", recorded)
    monkeypatch.setattr(compilation, "beside", lambda function: function())


def assembled(name: str, *more: str, seed: int = 0):
    [(job, _)] = jobs(f"algo={name}", "tuned=none", "network=mlp", "env=multi-goal", *more)
    shrink(job.config)
    return assemble(job.config, 2, -torch.ones(2), torch.ones(2), seed)


def updated(group: list, mode: str, together: bool) -> list:
    """Metrics of all phases of algorithms, one of them alone or several together, after replays of each graph."""
    data, found = random_transitions(), []
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(group))]
    for algorithm in group:
        for phase in algorithm.phases:
            phase.compile(mode)
    for number in range(len(group[0].phases)):
        sources = []
        for algorithm in group:
            phase = algorithm.phases[number]
            sources.append(begun(phase, data))
        every = max(update.every for update in phase.updates.values())
        common = VectorisedPhase(group, number) if together else None
        for step in range((WARM_UP + 3) * every):
            batches = [source.sample(8, own) for source, own in zip(sources, generators, strict=True)]
            if common is None:
                metrics = [phase.update(batches[0], generators[0], step)]
            else:
                metrics = common(batches, generators, step)
            found.append(copy.deepcopy(metrics))
    return found


@pytest.mark.parametrize("name", ALGORITHMS)
def test_updates_are_the_same_to_the_bit(name):
    plain, graphs = assembled(name), assembled(name)
    assert same(updated([plain], "none", False), updated([graphs], CUDA_GRAPHS, False))
    assert same(plain.state_dict(), graphs.state_dict())
    for phase in graphs.phases:
        for update in phase.updates.values():
            assert (update._change or update._differentiate).graphs
            assert update.derive is None or update._derive.graphs


def test_in_bfloat16_parameters_are_rounded_anew():
    """After each step, though the host does not see it, and where they were rounded before the graph was recorded."""
    data, found = random_transitions(), []
    for mode in ("none", CUDA_GRAPHS):
        torch.manual_seed(0)
        network = nn.Linear(2, 2)
        update = Update(
            network.parameters(),
            0.1,
            lambda batch, draws, network=network: ((network(batch.action) - draws["first"]).square().mean(-1), {}),
            lambda batch, generator, progress, network=network: {"first": network(batch.observation).detach()},
        )
        update.compile(mode)
        with arithmetic("bf16", data.device):
            found.append([update(data, torch.Generator(), 0.0)["loss"].clone() for _ in range(WARM_UP + 4)])
    assert same(*found)


def test_what_cannot_be_recorded_is_said(monkeypatch):
    def refused(function):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(compilation, "recorded", refused)
    with pytest.raises(UserError) as error:
        updated([assembled("bc")], CUDA_GRAPHS, False)
    assert str(error.value) == (
        "compile=cudagraphs: CUDA error: operation not permitted when stream is capturing; compile=none does without"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_updates_of_several_seeds_are_the_same_to_the_bit(name):
    plain, graphs = ([assembled(name, seed=seed) for seed in SEEDS] for _ in range(2))
    assert same(updated(plain, "none", True), updated(graphs, CUDA_GRAPHS, True))
    assert same([each.state_dict() for each in plain], [each.state_dict() for each in graphs])
