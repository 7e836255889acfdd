"""Several seeds at once: each run is what it would be by itself, to within the rounding of sums in another order."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from command_line import genpolicy, jobs
from invented import ACTION, OBSERVATION, transitions
from tiny import events, opened, records, same, undrawn
from tiny import words as tiny_words

from genpolicy.algo.algorithm import assemble
from genpolicy.algo.update import Update
from genpolicy.env.task import Task
from genpolicy.errors import UserError
from genpolicy.evaluation.evaluator import Evaluator
from genpolicy.runs import checkpoint
from genpolicy.runs.run import find_runs
from genpolicy.training import lockstep
from genpolicy.training.trainer import Trainer
from genpolicy.training.vectorised import VectorisedPhase

NETWORKS = ("tuned=none", "network=mlp", "network.hidden=[16,16]", "critic.hidden=[16,16]")
SIZE, SEEDS, UPDATES = 200, 3, 8


def algorithms(config):
    made = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        made.append(assemble(config, OBSERVATION, -torch.ones(ACTION), torch.ones(ACTION)))
    return made


def weights(algorithm):
    return torch.cat([parameter.detach().flatten() for parameter in algorithm.parameters()])


def moments(state: dict) -> int:
    """How many tensors of means of gradients there are in the state of a phase, whatever it is nested in."""
    return sum(
        moments(value) if isinstance(value, dict) else name in ("exp_avg", "momentum_buffer")
        for name, value in state.items()
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen",
    [
        "algo=gmpo",
        "algo=gmpo model=otcfm",
        "algo=gmpo observation_parts=[3,2]",
        "algo=bc",
        "algo=iql network.dropout=0.1",
        "algo=diffusion_ql algo.gradient_norm=0.5",
        "algo=gtp algo.gradient_norm=0.5",
        "algo=gmpg algo.chunk=20 solver.steps=3",
        "algo=gmpg algo.chunk=20 solver.steps=3 observation_parts=[3,2]",
        "algo=gmpg_reinforce algo.hutchinson=true solver.steps=3",
        "algo=srpo algo.normalize=true",
        "algo=qgpo",
        "algo=qipo solver.steps=3 critic.candidates=2",
        "algo=fql",
        "algo=fac solver.steps=3 algo.density_steps=2",
        "algo=fac solver.steps=3 algo.density_steps=2 algo.threshold=batch algo.probes=2",
        "algo=fan",
        "algo=meanflow_ql algo.adapt_every=2 algo.factor=1",
        "algo=consistency_ac algo.ema_start=2 critic.normalize=true critic.candidates=2",
        "algo=rebrac network.dropout=0.1",
        "algo=rlpd critic.ensemble=4 algo.policy_delay=2",
        "algo=qam",
        "algo=qam_e algo.adjoint_steps=3 solver.steps=3 critic.ensemble=2",
        "algo=expo solver.steps=3 critic.ensemble=2 select=greedy_aggregate select.num_candidates=2",
        "algo=dsrl solver.steps=3 critic.ensemble=2",
        "algo=dac algo.eta_lr=0.1 algo.ema_start=2 critic.ensemble=2 critic.candidates=2",
        "algo=bdpo model.path.steps=2 solver.steps=2 critic.ensemble=2 critic.candidates=2",
        "algo=qsm solver.steps=3 critic.ensemble=2",
        "algo=awr algo.value_every=2",
        "algo=idql",
    ],
)
def test_common_updates_are_those_of_each_alone(chosen):
    """The distance from the single run is a small part of the way that training went.

    Sums in another order differ by 1e-7 of their size. Adam makes up to a full step of it where a gradient is next to
    nothing, which few are. Another seed's updates end as far away as the way itself is long.
    """
    ((job, _),) = jobs(*chosen.split(), "env=hopper-medium-v2", *NETWORKS)
    data, alone, together = transitions(SIZE), algorithms(job.config), algorithms(job.config)
    begin = [weights(algorithm) for algorithm in alone]
    draws, others = ([torch.Generator().manual_seed(seed) for seed in range(SEEDS)] for _ in range(2))
    for number, phases in enumerate(zip(*(algorithm.phases for algorithm in alone), strict=True)):
        for phase in (*phases, *(algorithm.phases[number] for algorithm in together)):
            if phase.start is not None:
                phase.start()
        sources, theirs = (
            [phase.prepare(data) if phase.prepare else data for phase in (each.phases[number] for each in group)]
            for group in (alone, together)
        )
        common = VectorisedPhase(together, number)
        for step in range(UPDATES):
            expected = [
                phase.update(source.sample(32, draw), draw, step)
                for phase, source, draw in zip(phases, sources, draws, strict=True)
            ]
            batches = [source.sample(32, draw) for source, draw in zip(theirs, others, strict=True)]
            for own, metrics in zip(expected, common(batches, others, step), strict=True):
                assert own.keys() == metrics.keys()
                for name, value in own.items():
                    assert metrics[name].item() == pytest.approx(value.item(), rel=1e-3, abs=1e-4), name
    for first, single, joint in zip(begin, alone, together, strict=True):
        assert (weights(joint) - weights(single)).norm() < 1e-2 * (weights(single) - first).norm()
        assert moments(single.phases[0].state_dict()) == moments(joint.phases[0].state_dict()) > 0


def test_the_first_update_of_several_has_its_moving_average_too():
    """ReBRAC's follows before the actor's step; here from weights that are far from the actor's."""
    ((job, _),) = jobs("algo=rebrac", "env=hopper-medium-v2", *NETWORKS)
    alone, together = algorithms(job.config), algorithms(job.config)
    with torch.no_grad():
        for parameter in (each for algorithm in alone + together for each in algorithm.policy.target.parameters()):
            parameter.add_(1.0)
    data = alone[0].phases[0].prepare(transitions(SIZE))
    draws, others = ([torch.Generator().manual_seed(seed) for seed in range(SEEDS)] for _ in range(2))
    common = VectorisedPhase(together, 0)
    for step in range(2):
        for algorithm, draw in zip(alone, draws, strict=True):
            algorithm.phases[0].update(data.sample(32, draw), draw, step)
        common([data.sample(32, draw) for draw in others], others, step)
    for single, joint in zip(alone, together, strict=True):
        torch.testing.assert_close(joint.policy.target.state_dict(), single.policy.target.state_dict())


def test_gradients_are_limited_of_each_by_itself():
    """One parameter has no dimensions, as V where there are no observations."""
    shapes, limit = [(), (3, 4)], 0.5
    gradients = [torch.randn(SEEDS, *shape, generator=torch.Generator().manual_seed(0)) for shape in shapes]
    alone = [[torch.zeros(shape, requires_grad=True) for shape in shapes] for _ in range(SEEDS)]
    together = [torch.zeros(SEEDS, *shape, requires_grad=True) for shape in shapes]
    for seed, parameters in enumerate(alone):
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient[seed].clone()
    for parameter, gradient in zip(together, gradients, strict=True):
        parameter.grad = gradient.clone()
    update = Update([], 1.0, lambda batch, draws: (batch.reward, {}), clip=limit)
    norms = update.variant(parameters=together, leading=1).clip_gradients()
    expected = [update.variant(parameters=parameters).clip_gradients() for parameters in alone]
    torch.testing.assert_close(norms, torch.stack(expected))
    for number, parameter in enumerate(together):
        torch.testing.assert_close(parameter.grad, torch.stack([parameters[number].grad for parameters in alone]))


# Whole runs.

SHORT = ("algo.critic_steps=60", "algo.policy_steps=90", "eval.per_phase=2", "eval.log_prob_actions=5")
SHORT += ("eval.episodes=2", "eval.final_episodes=2")


def words(outputs: Path, *more: str) -> list[str]:
    return tiny_words(outputs, *SHORT, *more)


@pytest.fixture(scope="module", autouse=True)
def no_figures():
    with undrawn():
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Three runs by themselves."""
    outputs = tmp_path_factory.mktemp("alone")
    for seed in range(SEEDS):
        assert genpolicy(*words(outputs, f"seed={seed}")).code == 0
    return outputs


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The same at once."""
    outputs = tmp_path_factory.mktemp("together")
    result = genpolicy(*words(outputs, "seeds=0,1,2"))
    assert result.code == 0, result.err
    assert result.out.count("\n  trained policy ") == SEEDS  # rows of tables
    return outputs


def runs(outputs: Path) -> list[Path]:
    found = list(find_runs(outputs))
    assert [path.name for path in found] == [f"seed{seed}" for seed in range(SEEDS)]
    return found


def assert_close(left: Path, right: Path):
    """The same metrics at the same steps; training's as equal as rounding allows, while scores may jump with it."""
    first, second = ({(name, step): value for name, step, value in records(run)} for run in (left, right))
    assert first.keys() == second.keys()
    compared = 0
    for (name, step), value in first.items():
        if name.startswith(("critic/", "policy/", "data/")) or "log_prob" in name:
            assert second[name, step] == pytest.approx(value, rel=2e-3, abs=2e-3), (name, step)
            compared += 1
    assert compared > 200
    assert all(json.loads((run / "status.json").read_text())["state"] == "finished" for run in (left, right))


def test_runs_together_are_the_runs_alone(alone, together):
    for single, joint in zip(runs(alone), runs(together), strict=True):
        assert joint.relative_to(together) == single.relative_to(alone)  # the same hash
        assert_close(single, joint)
        frozen = [(run / "config.yaml").read_text().split("\n") for run in (single, joint)]
        assert len(frozen[0]) == len(frozen[1])
        assert {line.split(":")[0].strip() for a, b in zip(*frozen, strict=True) if a != b for line in (a, b)} == {
            "id",
            "outputs",
            "data",
        }
        sizes = [(run / "last.pt").stat().st_size for run in (single, joint)]
        assert sizes[0] == pytest.approx(sizes[1], rel=0.05)  # not the weights of all runs


def stopped(monkeypatch, updates: int, *command: str):
    """Carries out a command that gets SIGTERM when so many updates have been made."""
    real = Trainer._read

    def disturbed(self, phase):
        if self.state.updates >= updates:
            os.kill(os.getpid(), signal.SIGTERM)
        real(self, phase)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_read", disturbed)
        assert genpolicy(*command).code == 143


@pytest.mark.slow
def test_stopped_together_they_go_on_to_the_same_bits(together, tmp_path, monkeypatch):
    stopped(monkeypatch, 100, *words(tmp_path, "seeds=0,1,2"))
    for run in runs(tmp_path):
        assert json.loads((run / "status.json").read_text())["state"] == "interrupted"
    assert len({checkpoint.load(run / "last.pt")["state"]["updates"] for run in runs(tmp_path)}) == 1
    assert genpolicy(*words(tmp_path, "seeds=0,1,2")).code == 0
    for whole, resumed in zip(runs(together), runs(tmp_path), strict=True):
        assert same(*(checkpoint.load(run / "last.pt")["algorithm"] for run in (whole, resumed)))
        assert records(whole) == records(resumed)


@pytest.mark.slow
def test_a_run_may_go_on_alone_and_come_back(alone, tmp_path, monkeypatch):
    stopped(monkeypatch, 40, *words(tmp_path, "seeds=0,1,2"))
    stopped(monkeypatch, 100, *words(tmp_path, "seed=1"))
    assert genpolicy(*words(tmp_path, "seed=2")).code == 0
    steps = [checkpoint.load(run / "last.pt")["state"]["updates"] for run in runs(tmp_path)]
    assert steps[0] < steps[1] < steps[2]
    result = genpolicy(*words(tmp_path, "seeds=0,1,2"))
    assert result.code == 0, result.err
    assert "seed2: finished already" in result.out
    for single, joint in zip(runs(alone), runs(tmp_path), strict=True):
        assert_close(single, joint)


def test_rates_are_without_the_evaluations_of_any_run(tmp_path, monkeypatch):
    real, evaluate, passed = time.monotonic, Evaluator.__call__, []

    def slow(*arguments):
        passed.append(1000)  # seconds
        return evaluate(*arguments)

    monkeypatch.setattr(time, "monotonic", lambda: real() + sum(passed))
    monkeypatch.setattr(Evaluator, "__call__", slow)
    more = ["algo.critic_steps=2", "algo.policy_steps=2", "checkpoint_seconds=1e9"]
    assert genpolicy(*words(tmp_path, "seeds=0,1", *more)).code == 0
    found = [each["metrics"] for run in find_runs(tmp_path) for each in events(run)]
    rates = [value for each in found for name, value in each.items() if name.endswith("/updates_per_second")]
    assert len(rates) == 8
    assert min(rates) > 0.01


def test_the_runs_share_their_simulators(tmp_path, monkeypatch):
    """Of which one of an arm takes 110 MB."""
    asked, make = [], Task.make
    monkeypatch.setattr(Task, "make", lambda task, count: asked.append(task) or make(task, count))
    result = genpolicy(*words(tmp_path, "seeds=0,1", "algo.critic_steps=2", "algo.policy_steps=2"))
    assert result.code == 0, result.err
    assert len(asked) > 2
    assert len({id(task) for task in asked}) == 1


@pytest.mark.slow
def test_a_run_that_fails_leaves_the_others_to_go_on(alone, tmp_path, monkeypatch):
    real = Trainer._evaluate

    def failing(self, phase):
        if self.config.seed == 1:
            raise UserError("the simulator is gone")
        real(self, phase)

    monkeypatch.setattr(Trainer, "_evaluate", failing)
    result = genpolicy(*words(tmp_path, "seeds=0,1,2"))
    assert result.code == 1
    assert result.err.splitlines()[-1] == "genpolicy: 1 of 3 runs failed: seed1: the simulator is gone"
    states = [json.loads((run / "status.json").read_text())["state"] for run in runs(tmp_path)]
    assert states == ["finished", "failed", "finished"]
    for number in (0, 2):
        assert_close(runs(alone)[number], runs(tmp_path)[number])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("seeds=0,0", "seeds=[0, 0]: each of them once"),
        ("seeds=range(3)", "seeds=range(3): not a list of seeds; write it as in seeds=0,1,2"),
        ("seeds=3", "seeds=3: not a list of seeds"),
        ("seeds=0,5000000000", "seeds: 5000000000 must be <= 4294967295"),
        ("seeds=0,1 seed=3", "seed and seeds do not go together"),
        ("-m hydra/launcher=local seeds=0,1", "seeds=[0,1]: trains in this process"),
        ("seeds=0,1 algo=gmpg solver=dopri5", "seeds: these settings cannot be computed for several seeds at once"),
    ],
)
def test_what_is_refused(more, message, tmp_path):
    settings = [word for word in words(tmp_path / "outputs") if not word.startswith(("algo", "solver"))]
    result = genpolicy(*settings, *more.split())
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"genpolicy: {message}"), result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "outputs").exists()


def test_a_sweep_may_have_jobs_of_several_seeds(tmp_path):
    short = ("algo.critic_steps=2", "algo.policy_steps=2", "eval.per_phase=1")
    result = genpolicy("-m", *words(tmp_path, "algo.beta=1,2", "seeds=3,4", *short))
    assert result.code == 0, result.err
    assert sorted(path.name for path in find_runs(tmp_path)) == ["seed3", "seed3", "seed4", "seed4"]
    (known,) = tmp_path.glob("default/sweeps/*/sweep.json")
    assert len(json.loads(known.read_text())["runs"]) == 4


def test_no_run_is_overwritten_where_one_of_them_is_in_use(tmp_path):
    first, second = (opened(tmp_path, f"seed={seed}") for seed in (0, 1))
    first.close()
    first.path("last.pt").write_text("content")
    config = first.config.copy()
    config.seeds, config.overwrite = [0, 1], True
    with contextlib.closing(second), pytest.raises(UserError, match=r"seed1: in use by process \d+ on .*; wait for it"):
        lockstep.train(config, first.choices)
    assert first.path("last.pt").exists()
