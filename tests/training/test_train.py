"""The training loop: killed at any moment and resumed it ends in the same bits, and says nothing twice."""

import json
import os
import re
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
import torch
from command_line import genpolicy, jobs
from tiny import events, only_run, records, same, stop, undrawn, words

from genpolicy.algo import settings
from genpolicy.algo.update import Update
from genpolicy.config.arguments import options
from genpolicy.config.schema import build
from genpolicy.dataset import transitions
from genpolicy.dataset.transitions import Transitions
from genpolicy.errors import UserError
from genpolicy.evaluation import evaluator
from genpolicy.evaluation.rollout import evaluation_seed
from genpolicy.model.policy import Policy
from genpolicy.runs import checkpoint
from genpolicy.runs.run import find_runs
from genpolicy.system import progress
from genpolicy.system.signals import Interrupted
from genpolicy.training import final, lockstep, trainer
from genpolicy.training.late import spread
from genpolicy.training.setup import fresh_algorithm
from genpolicy.training.state import State
from genpolicy.training.vectorised import VectorisedPhase

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A run that nobody disturbed, and what it printed."""
    outputs = tmp_path_factory.mktemp("uninterrupted")
    with undrawn():
        result = genpolicy(*words(outputs))
    assert result.code == 0, result.err
    return only_run(outputs), result


def assert_equal_runs(left: Path, right: Path):
    """To the bit."""
    for name in ("last.pt", "best.pt"):
        assert same(checkpoint.load(left / name), checkpoint.load(right / name)), name
    assert records(left) == records(right)


@pytest.mark.slow
def test_a_run_stopped_in_every_way_ends_in_the_same_bits(uninterrupted, tmp_path):
    assert stop(tmp_path, signal.SIGKILL, 0.1) == -signal.SIGKILL
    assert stop(tmp_path, signal.SIGUSR2, 0.1) == 128 + signal.SIGUSR2
    result = genpolicy(*words(tmp_path))
    assert result.code == 0, result.err
    assert_equal_runs(uninterrupted[0], only_run(tmp_path))


def test_budget_is_the_share_of_the_updates_of_every_phase_of_every_algorithm():
    """Whatever the options of the phases are called; and it is of a run's identity."""
    found = {}
    for job, _ in jobs("-m", "algo=glob(*)", "env=multi-goal", "network=mlp", "budget=0.01"):
        for budget in (1.0, job.config.budget, 1e-9):
            job.config.budget = budget
            algorithm = fresh_algorithm(job.config, build(job.config.env), torch.device("cpu"))
            found.setdefault(job.choices["algo"], []).append([phase.steps for phase in algorithm.phases])
    assert found.keys() == options("algo").keys()
    for whole, hundredth, least in found.values():
        assert hundredth == [steps / 100 for steps in whole]
        assert least == [1] * len(whole)


def test_a_run_of_a_tenth_of_the_updates_says_so(tmp_path):
    for budget in ("1", "0.1"):
        assert genpolicy(*words(tmp_path, "algo.critic_steps=20", "algo.policy_steps=30", f"budget={budget}")).code == 0
    steps = sorted(max(step for _, step, _ in records(run)) for run in find_runs(tmp_path))
    assert steps == [5, 50]


@pytest.mark.slow
def test_long_preparations_say_how_far_they_are_and_stop_at_a_signal(tmp_path, monkeypatch):
    """Of actions at all states, say, from which a phase's batches are."""
    more = ("algo=gmpo_softmax_static", "algo.num_actions=2", "algo.critic_steps=2", "algo.policy_steps=4")
    more += ("algo.behaviour_steps=2", "eval.episodes=2", "eval.final_episodes=2", "eval.per_phase=1")
    monkeypatch.setattr(settings, "PART", 2500)  # of 10,000 transitions
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    sample, sampled = Policy.sample, []

    def disturbed(policy, observation, *given, **named):
        if len(observation) == settings.PART:
            sampled.append(1)
            if len(sampled) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
        return sample(policy, observation, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Policy, "sample", disturbed)
        stopped = genpolicy(*words(tmp_path / "stopped", *more))
    assert stopped.code == 143
    assert "SIGTERM: checkpoint saved; the same command resumes the run" in stopped.out
    assert len(sampled) == 2
    shown = re.findall(r"^actions at all states (\d/\d)  \S+/s  0:00:\d\d left$", stopped.err, re.MULTILINE)
    assert shown == ["1/4", "2/4"]
    for folder in ("stopped", "undisturbed"):
        result = genpolicy(*words(tmp_path / folder, *more))
        assert result.code == 0, result.err
    assert "actions at all states 3/4" in result.err
    assert_equal_runs(only_run(tmp_path / "stopped"), only_run(tmp_path / "undisturbed"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "count"), [("update", 1), ("update", 200), ("evaluation", 2), ("evaluation", 4), ("save", 1)]
)
def test_a_signal_at_a_given_moment(uninterrupted, tmp_path, monkeypatch, moment, count):
    place = {"update": (Update, "__call__"), "evaluation": (evaluator, "rollout"), "save": (checkpoint, "save")}
    owner, name = place[moment]
    real, calls = getattr(owner, name), []

    def disturbed(*arguments, **more):
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, disturbed)
        result = genpolicy(*words(tmp_path, "checkpoint_seconds=0.05"))
    assert result.code == 143
    assert "SIGTERM: checkpoint saved; the same command resumes the run" in result.out
    status = json.loads((only_run(tmp_path) / "status.json").read_text())
    assert (status["state"], status["reason"]) == ("interrupted", "SIGTERM")
    assert genpolicy(*words(tmp_path)).code == 0
    assert_equal_runs(uninterrupted[0], only_run(tmp_path))


def test_a_run_that_was_begun_anew_is_resumed_without_overwrite(tmp_path, monkeypatch):
    real = Update.__call__

    def stopping(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(Update, "__call__", stopping)
    assert "the same command resumes the run" in genpolicy(*words(tmp_path)).out
    again = genpolicy(*words(tmp_path, "overwrite=true"))
    assert "the same command without overwrite=true resumes the run" in again.out


def test_a_sweep_that_is_told_to_stop_stops_even_if_nothing_can_be_saved(tmp_path, monkeypatch):
    real, calls = Update.__call__, []

    def full(*arguments):
        raise UserError("the disk is full")

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 5:
            monkeypatch.setattr(checkpoint, "save", full)
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(Update, "__call__", stopping)
    result = genpolicy("-m", *words(tmp_path, "algo.beta=1,2"))
    assert result.code == 143
    assert "SIGTERM: no checkpoint saved (the disk is full); the last one is resumed" in result.out
    assert len(list(find_runs(tmp_path))) == 1


def test_a_run_stopped_after_its_final_evaluation_has_its_result(tmp_path, monkeypatch):
    """A search would take it for one without a score."""

    def stopped(*_):
        raise Interrupted(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(final, "late_mean", stopped)
        assert genpolicy(*words(tmp_path)).code == 143
    status = only_run(tmp_path) / "status.json"
    before = json.loads(status.read_text())
    assert genpolicy(*words(tmp_path)).code == 0
    after = json.loads(status.read_text())
    assert (before["state"], after["state"]) == ("interrupted", "finished")
    assert after["result"] == before["result"]


def test_a_signal_that_ends_who_reads_the_output_is_an_interruption(tmp_path, monkeypatch):
    """Ctrl-C at `genpolicy ... | tee log` ends tee, too."""

    real = Update.__call__

    def stopping(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    def unread(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr(Update, "__call__", stopping)
    monkeypatch.setattr(trainer, "print", unread, raising=False)
    assert genpolicy(*words(tmp_path)).code == 130
    assert json.loads((only_run(tmp_path) / "status.json").read_text())["state"] == "interrupted"


@pytest.mark.parametrize("seeds", ["seed=0", "seeds=0,1"])
def test_a_signal_that_ends_a_compiler_is_obeyed(tmp_path, monkeypatch, seeds):
    """Ctrl-C goes to all processes of a terminal, and what was being compiled fails."""

    def ended(*_):
        os.kill(os.getpid(), signal.SIGINT)
        raise UserError("compile=default: C++ compile error")

    with monkeypatch.context() as patch:
        for place in (Update, VectorisedPhase):
            patch.setattr(place, "__call__", ended)
        patch.setattr(lockstep, "_try_out", lambda *_: None)
        result = genpolicy(*words(tmp_path, seeds))
    assert result.code == 130
    assert "SIGINT: no checkpoint saved (compile=default: C++ compile error); the last one is resumed" in result.out
    for run in find_runs(tmp_path):
        assert json.loads((run / "status.json").read_text())["state"] == "interrupted"


def test_a_table_on_the_host_changes_no_bit(tmp_path, monkeypatch):
    """Neither when the run is stopped, nor when the table fits after that."""
    more = ("algo=gmpo_softmax_static", "algo.behaviour_steps=20", "algo.critic_steps=20", "algo.policy_steps=40")
    more += ("dataset.held_out=0.1", "eval.per_phase=1")
    assert genpolicy(*words(tmp_path / "there", *more)).code == 0
    real, drawn = Transitions._sample_from_host, []

    def stopping(*arguments):
        drawn.append(1)
        if len(drawn) in (1 + 10, 2 + 20 + 20 + 10):  # in the first and the last phase; one more is to evaluate on
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(transitions, "too_large", lambda size, device: True)
        patch.setattr(Transitions, "_sample_from_host", stopping)
        assert [genpolicy(*words(tmp_path / "here", *more)).code for _ in range(2)] == [143, 143]
    assert genpolicy(*words(tmp_path / "here", *more)).code == 0
    assert_equal_runs(only_run(tmp_path / "there"), only_run(tmp_path / "here"))


HANDLERS = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)}


def test_handlers_are_given_back(uninterrupted):
    assert {number: signal.getsignal(number) for number in HANDLERS} == HANDLERS


def test_what_a_run_logs(uninterrupted):
    directory, result = uninterrupted
    logged = records(directory)
    assert max(Counter((name, step) for name, step, _ in logged).values()) == 1
    steps = {}
    for name, step, _ in logged:
        steps.setdefault(name, []).append(step)
    assert steps["critic/loss"] == [*range(6, 121, 6)]  # log_every=7, but 20 entries a phase at the least
    assert steps["policy/loss"] == [*range(127, 370, 7), 370]
    assert steps["eval/return_mean"] == [120 + 84, 120 + 167, 120 + 250]
    assert steps["final/return_mean"] == steps["final/bits_per_dim"] == steps["best/update"] == [370]
    assert steps["data/return_mean"] == [0]
    assert steps["final/log_prob_hutchinson"] == [370]
    assert "eval/log_prob_hutchinson" not in steps
    found = {name: value for name, _, value in logged}
    estimate, stderr = (found[f"final/log_prob_hutchinson{more}"] for more in ("", "_stderr"))
    assert 0 < abs(estimate - found["final/log_prob"]) < 4 * stderr
    speeds = [v for e in events(directory) for n, v in e["metrics"].items() if "updates_per_second" in n]
    assert len(speeds) == len(steps["critic/loss"]) + len(steps["policy/loss"])
    assert min(speeds) > 0
    assert [v > 0 for e in events(directory) for n, v in e["metrics"].items() if n == "final/ms_per_action"] == [True]
    looked = [event for event in events(directory) if "system/cpu_utilization_percentage" in event["metrics"]]
    assert {120, 370} <= {event["step"] for event in looked}  # at every checkpoint, so at the end of each phase
    assert all("system/process_memory_usage_megabytes" in event["metrics"] for event in looked)
    evaluations = [event for event in events(directory) if "eval/return_mean" in event["metrics"]]
    for event in evaluations:
        assert len(event["returns"]) == 4
        assert event["metrics"]["eval/return_mean"] == pytest.approx(sum(event["returns"]) / 4)
    best = max(evaluations, key=lambda event: event["metrics"]["eval/return_mean"])
    values = {name: value for name, _, value in logged if name.startswith("best/")}
    assert values["best/update"] == best["step"]
    assert values["best/return_mean"] == best["metrics"]["eval/return_mean"]
    assert checkpoint.load(directory / "best.pt")["state"]["updates"] == best["step"]
    assert "behaviour data" in result.out
    assert "trained policy" in result.out


def test_a_finished_run_says_so_and_stops(uninterrupted):
    directory, _ = uninterrupted
    before = {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}
    result = genpolicy(*words(directory.parents[3]))
    assert result.code == 0
    assert result.out == f"{directory}: finished already; overwrite=true redoes it\n"
    after = {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}
    assert {name for name in before if before[name] != after[name]} <= {"lock"}


def test_overwriting_redoes_the_run(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted[0].parents[3], tmp_path, dirs_exist_ok=True)
    directory = only_run(tmp_path)
    first = (directory / "config.yaml").read_text()
    assert genpolicy(*words(tmp_path, "overwrite=true")).code == 0
    assert (directory / "config.yaml").read_text() != first
    assert_equal_runs(uninterrupted[0], directory)


def test_the_seed_decides_the_run(uninterrupted, tmp_path):
    assert genpolicy(*words(tmp_path, "seed=1")).code == 0
    left, right = (checkpoint.load(path / "last.pt") for path in (uninterrupted[0], only_run(tmp_path)))
    assert not same(left["algorithm"], right["algorithm"])
    assert not same(left["generators"]["run"], right["generators"]["run"])


def test_evaluating_and_logging_leave_no_trace_in_the_weights(uninterrupted, tmp_path):
    more = ("eval.episodes=2", "eval.per_phase=1", "log_every=50", "checkpoint_seconds=60")
    assert genpolicy(*words(tmp_path, *more)).code == 0
    left, right = (checkpoint.load(path / "last.pt") for path in (uninterrupted[0], only_run(tmp_path)))
    assert same(left["algorithm"], right["algorithm"])
    assert same(left["generators"], right["generators"])


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    result = genpolicy(*words(tmp_path, "algo.policy_lr=1e30"))
    assert result.code == 1
    assert "policy/loss is nan at update" in result.err
    assert result.err.splitlines()[-1].startswith("genpolicy: ")
    status = json.loads((only_run(tmp_path) / "status.json").read_text())
    assert status["state"] == "failed"
    assert status["reason"].startswith("policy/loss is nan at update")
    assert "Traceback" in status["traceback"]


def test_a_damaged_checkpoint_stops_the_run_in_one_line(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted[0].parents[3], tmp_path, dirs_exist_ok=True)
    last = only_run(tmp_path) / "last.pt"
    last.with_name("status.json").unlink()
    last.write_bytes(last.read_bytes()[:1000])
    result = genpolicy(*words(tmp_path))
    assert result.code == 1
    assert f"{last}: not a readable checkpoint" in result.err.splitlines()[-1]
    checkpoint.save(last, {"algorithm": {}, "state": {}})
    result = genpolicy(*words(tmp_path))
    assert result.code == 1
    assert f"{last}: does not fit the run's configuration" in result.err.splitlines()[-1]


def test_a_run_that_was_begun_on_another_kind_of_device_says_so(uninterrupted, tmp_path):
    """A GPU's generators have states of 16 bytes."""
    shutil.copytree(uninterrupted[0].parents[3], tmp_path, dirs_exist_ok=True)
    last = only_run(tmp_path) / "last.pt"
    last.with_name("status.json").unlink()
    saved = checkpoint.load(last)
    saved["generators"]["run"] = torch.zeros(16, dtype=torch.uint8)
    checkpoint.save(last, saved)
    result = genpolicy(*words(tmp_path))
    assert result.code == 1
    assert f"{last}: saved on another kind of device than cpu" in result.err.splitlines()[-1]
    last.with_name("status.json").write_text(json.dumps({"state": "finished"}))
    longer = genpolicy(*words(tmp_path, "algo.policy_steps=251"))
    assert longer.code == 0, longer.err
    assert "does not go on from" in longer.err
    assert "another kind of device" in longer.err


def test_evaluating_a_run_again_gives_its_final_result(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted[0].parents[3], tmp_path, dirs_exist_ok=True)
    directory = only_run(tmp_path)
    common = ["mode=eval", "tracking.uri=none", "eval.log_prob_actions=20", f"paths.data={directory}"]
    result = genpolicy(*common, f"checkpoint={directory}", "eval.final_episodes=8")
    assert result.code == 0, result.err
    [path] = directory.glob("evaluation-*.json")
    kept = json.loads(path.read_text())
    final = {name.removeprefix("final/"): value for name, _, value in records(directory) if name.startswith("final/")}
    assert kept["metrics"] == final
    assert len(kept["returns"]) == 8
    result = genpolicy(*common, f"checkpoint={directory / 'best.pt'}", "eval.final_episodes=3")
    assert result.code == 0, result.err
    assert len(list(directory.glob("evaluation-best-*-????????.json"))) == 1


@pytest.mark.parametrize("reference", ["nowhere", "0123456789abcdef0123456789abcdef", ".", "/dev/null"])
def test_evaluating_what_is_no_run_is_one_line(tmp_path, monkeypatch, reference):
    monkeypatch.chdir(tmp_path)
    result = genpolicy("mode=eval", f"checkpoint={reference}")
    assert result.code == 1
    assert result.err.count("\n") == 1
    said = ("no run directory, checkpoint or MLflow run id", "not a run directory", "no MLflow store")
    assert any(reason in result.err for reason in said)


def test_a_folder_of_runs_is_no_run_and_one_of_them_is_named(tmp_path):
    run = tmp_path / "outputs/default/task/method-1a2b3c4d/seed0"
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    for folder in list(run.parents)[:4]:
        result = genpolicy("mode=eval", f"checkpoint={folder}")
        assert result.err == f"genpolicy: checkpoint: {folder} is not a run directory; one below it is {run}\n"


@pytest.mark.parametrize(("count", "steps", "expected"), [(5, 10, [2, 4, 6, 8, 10]), (3, 10, [4, 7, 10]), (1, 9, [9])])
def test_evaluations_are_spread_evenly(count, steps, expected):
    assert spread(count, steps) == expected


def test_evaluations_never_outnumber_steps():
    for count in range(1, 12):
        for steps in range(1, 12):
            points = spread(count, steps)
            assert points == sorted(set(points))
            assert points[-1] == steps
            assert points[0] >= 1
            assert len(points) == min(count, steps)


def test_means_of_metrics_are_read_together():
    state = State()
    values = [{"loss": torch.tensor(float(i)), "q": torch.tensor(2.0 * i)} for i in range(1, 5)]
    for value in values:
        state.accumulate(value)
    assert state.read() == {"loss": 2.5, "q": 5.0}
    state.accumulate({"other": torch.tensor(3.0)})
    assert state.read() == {"other": 3.0}
    assert values[0]["loss"] == 1.0


def test_final_evaluations_share_their_start_states():
    assert evaluator.FINAL == 0
    assert evaluation_seed(3, 0) != evaluation_seed(3, 1)


SFBC = ("algo=sfbc", "tuned=none", "env=multi-goal", "dataset.episodes=10", "network=mlp", "network.hidden=[8]")
SFBC += ("critic.hidden=[8]", "algo.behaviour_steps=3", "algo.critic_steps=4", "algo.num_actions=2")
SFBC += ("select.num_candidates=2", "solver.steps=2", "likelihood.steps=2", "eval.per_phase=1", "eval.episodes=1")
SFBC += ("eval.final_episodes=1", "eval.log_prob_actions=10", "tracking.uri=none")


@pytest.mark.slow
def test_a_phase_that_was_saved_before_its_first_update_is_not_begun_again(tmp_path, monkeypatch):
    """SfBC's rounds begin with what the last one has left."""
    made = {name: [*SFBC, f"paths.outputs={tmp_path / name}"] for name in ("whole", "stopped")}
    assert genpolicy(*made["whole"]).code == 0
    calls, real = [], Update.__call__

    def lost(update, *given):
        calls.append(1)
        if len(calls) == 8:  # the first update of the second round
            raise RuntimeError("lost")
        return real(update, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Update, "__call__", lost)
        assert genpolicy(*made["stopped"], "checkpoint_seconds=0.001").code == 1
    assert genpolicy(*made["stopped"]).code == 0
    first, second = (checkpoint.load(only_run(tmp_path / name) / "last.pt")["algorithm"] for name in made)
    assert same(first, second)
