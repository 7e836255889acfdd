"""Compiled updates: the same numbers as without, one graph for each, and nothing compiled after the first update."""

import shutil

import pytest
import torch
from command_line import genpolicy, jobs
from invented import ACTION, OBSERVATION, transitions
from tiny import only_run, records, same, words
from torch._dynamo.utils import counters

from genpolicy.algo.algorithm import assemble
from genpolicy.algo.compilation import compiled
from genpolicy.errors import UserError
from genpolicy.training.vectorised import VectorisedPhase

# Of an activation that is the same kernel with and without compiling.
NETWORKS = ("tuned=none", "network=mlp", "network.hidden=[16]", "critic.hidden=[16]", "critic.activation=silu")
SIZE = 24


@pytest.fixture
def traced(monkeypatch):
    """Compiling without generating code: what was traced is computed as written, so that each bit is the same."""
    original = torch.compile

    def trace(function, mode, dynamic):
        return original(function, backend="aot_eager", dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", trace)
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def algorithm(chosen: str, mode: str, seed: int = 0):
    """An algorithm, its last phase begun and its updates compiled in a mode."""
    ((job, _),) = jobs(*chosen.split(), "env=hopper-medium-v2", *NETWORKS)
    torch.manual_seed(seed)
    made = assemble(job.config, OBSERVATION, -torch.ones(ACTION), torch.ones(ACTION))
    phase = made.phases[-1]
    if phase.start is not None:
        phase.start()
    phase.compile(mode)
    return made


def assert_one_graph_each(phase) -> None:
    derived = [update for update in phase.updates.values() if update.derive is not None]
    assert counters["stats"]["unique_graphs"] == len(phase.updates) + len(derived)
    assert not counters["graph_break"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen",
    [
        "algo=gmpo",
        "algo=gmpo observation_parts=[3,2]",
        "algo=gmpg solver.steps=1",
        "algo=qipo solver.steps=1",
        "algo=gtp",
        "algo=diffusion_ql solver.steps=1",
        "algo=ofql solver.steps=1",
        "algo=consistency_ac",
        "algo=bdpo model.path.steps=2 solver.steps=2 algo.policy_delay=1 critic.ensemble=2 critic.candidates=2",
        "algo=dac solver.steps=1 algo.eta_lr=0.1 critic.ensemble=2",
        "algo=rlpd critic.ensemble=3",
    ],
)
def test_an_update_is_one_graph_that_is_traced_once(chosen, traced):
    assert same(*updated(chosen))


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen",
    [
        "algo=fac solver.steps=1 algo.density_steps=2",
        "algo=dsrl solver.steps=1 critic.ensemble=2",
        "algo=expo solver.steps=1 critic.ensemble=2",
    ],
)
def test_an_update_with_means_over_q_is_one_graph_and_the_same_but_for_rounding(chosen, traced):
    plain, compiled = updated(chosen)
    torch.testing.assert_close(plain, compiled, rtol=1e-4, atol=1e-4)


def updated(chosen: str) -> list[tuple[dict, list]]:
    """The parameters after three updates, and their metrics, plain and compiled to one graph each."""
    data, found = transitions(SIZE), []
    for mode in ("none", "default"):
        made, generator = algorithm(chosen, mode), torch.Generator().manual_seed(0)
        phase = made.phases[-1]
        source = data if phase.prepare is None else phase.prepare(data)
        metrics = [phase.update(source, generator, step) for step in range(3)]
        found.append(({name: value.detach() for name, value in made.named_parameters()}, metrics))
    assert_one_graph_each(phase)
    return found


@pytest.mark.slow
def test_the_common_updates_of_several_seeds_are_one_graph(traced):
    data, found = transitions(SIZE), []
    for mode in ("none", "default"):
        group = [algorithm("algo=gmpo", mode, seed) for seed in (0, 1)]
        generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
        common = VectorisedPhase(group, -1)
        metrics = [common([data, data], generators, step) for step in range(3)]
        found.append(([dict(made.named_parameters()) for made in group], metrics))
    assert same(*found)
    assert_one_graph_each(group[0].phases[-1])


def test_what_an_interrupted_compilation_left_is_said(monkeypatch):
    class BackendError(RuntimeError):
        inner_exception = ImportError("/cache/x.so: file too short")

    def broken(function, mode, dynamic):
        def call(*_):
            raise BackendError("ImportError: /cache/x.so: file too short\nmore")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(UserError) as error:
        compiled(torch.sin, "default")(torch.zeros(1))
    assert str(error.value) == (
        "compile=default: ImportError: /cache/x.so: file too short; "
        "delete what a compilation that was broken off has left there; compile=none does without"
    )


@pytest.mark.slow
def test_a_run(tmp_path, no_figures):
    """Where there is a C++ compiler, it is the run without; where there is none, that is said."""
    plain, fast = tmp_path / "plain", tmp_path / "fast"
    steps = ["algo=bc", "algo.behaviour_steps=60", "algo.behaviour_batch_size=32"]
    given = [[word for word in words(folder) if "algo" not in word] + steps for folder in (plain, fast)]
    assert genpolicy(*given[0]).code == 0
    result = genpolicy(*given[1], "compile=default")
    if shutil.which("g++") is None:
        assert result.code == 1
        assert result.err.splitlines()[-1].startswith("genpolicy: compile=default: InvalidCxxCompiler: ")
        return
    assert result.code == 0, result.err
    assert "compiling the updates of the behaviour phase" in result.err
    assert only_run(fast).name == only_run(plain).name
    for (name, step, value), (*expected, other) in zip(records(only_run(fast)), records(only_run(plain)), strict=True):
        assert [name, step] == expected
        assert value == pytest.approx(other, rel=1e-2, abs=1e-3, nan_ok=True), name
