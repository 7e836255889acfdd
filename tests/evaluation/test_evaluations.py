"""A trained run asked for other evaluations: it is evaluated, never trained, and tells each by its own name."""

import json
import os
import re
import shutil
import signal

import numpy as np
import pytest
import yaml
from command_line import genpolicy, jobs
from tiny import events, only_run, opened, plain_words, records, undrawn, words

from genpolicy import api
from genpolicy.evaluation import evaluator
from genpolicy.launch import sweep
from genpolicy.launch.search import mean_score
from genpolicy.runs import checkpoint
from genpolicy.runs.evaluations import with_chosen
from genpolicy.runs.run import find_runs, load_run, open_run
from genpolicy.system import progress
from genpolicy.system.signals import Interrupted
from genpolicy.training import evaluate, train, trainer

SHORT = ("algo.critic_steps=4", "algo.policy_steps=4", "eval.per_phase=1", "eval.final_episodes=3", "eval.episodes=2")


def command(outputs, *more):
    with undrawn():
        result = genpolicy(*words(outputs, *SHORT, *more))
    assert result.code == 0, result.err
    return result


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    outputs = tmp_path_factory.mktemp("trained")
    command(outputs)
    return outputs


@pytest.fixture
def outputs(trained, tmp_path):
    """A folder of its own with the trained run."""
    shutil.copytree(trained, tmp_path / "outputs")
    return tmp_path / "outputs"


@pytest.fixture
def untrained(monkeypatch):
    """No update may be made."""

    def trains(*_):
        raise AssertionError("this trains")

    monkeypatch.setattr(trainer.Trainer, "updates", trains)


def record(directory):
    (found,) = directory.glob("evaluation-*.json")
    return found, json.loads(found.read_text())


def test_a_finished_run_is_evaluated_anew_and_not_trained(outputs, untrained):
    run, before = only_run(outputs), records(only_run(outputs))
    status = (run / "status.json").read_bytes()
    frozen = yaml.safe_load((run / "config.yaml").read_text())
    result = command(outputs, "eval.final_episodes=5", "select=greedy", "likelihood=euler")
    kept, found = record(run)
    assert only_run(outputs) == run
    assert str(kept) in result.out
    assert "select=greedy likelihood=euler eval.final_episodes=5" in " ".join(result.out.split())
    assert len(found["returns"]) == 5
    assert found["metrics"]["return_mean"] == pytest.approx(np.mean(found["returns"]))
    # The first ones are there as they were, and the new ones beside them under their own names.
    added = records(run)[len(before) :]
    assert records(run)[: len(before)] == before
    assert {name.split("/")[0] for name, _, _ in added} == {kept.stem}
    assert (f"{kept.stem}/return_mean", 8, found["metrics"]["return_mean"]) in added
    assert events(run)[-1]["returns"] == found["returns"]
    assert (run / "status.json").read_bytes() == status
    frozen["config"]["paths"] = {"outputs": str(outputs), "data": str(outputs)}  # the copy's, for this command
    assert yaml.safe_load((run / "config.yaml").read_text()) == frozen


def test_an_evaluation_that_is_interrupted_does_not_come_back(outputs, untrained, monkeypatch):
    real = evaluator.rollout

    def stopping(*arguments, **more):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **more)

    for seeds in ("seed=0", "seeds=[0]"):
        with monkeypatch.context() as patch:
            patch.setattr(evaluator, "rollout", stopping)
            stopped = genpolicy(*words(outputs, *SHORT, seeds, "eval.final_episodes=5"))
        assert stopped.code == 143
        assert "SIGTERM: the evaluation is not kept; the same command makes it" in stopped.out
        assert not list(only_run(outputs).glob("evaluation-*"))
    assert "finished already" in command(outputs).out


def test_what_another_command_has_asked_for_is_not_taken_back(outputs):
    ((job, _),) = jobs(*words(outputs, *SHORT, "eval.final_episodes=4"))
    for new in (True, False):
        run = open_run(job.config, job.choices)
        assert run.asks == new
        run.close()
    with pytest.raises(Interrupted), train.withdrawing([run]):
        raise Interrupted(signal.SIGTERM)
    assert list(only_run(outputs).glob("evaluation-*.yaml"))


def test_what_a_command_asked_for_before_it_was_killed_is_made_by_seeds_together_too(outputs, untrained):
    ((job, _),) = jobs(*words(outputs, *SHORT, "eval.final_episodes=4"))
    open_run(job.config, job.choices).close()
    command(outputs, "seeds=[0]")
    assert record(only_run(outputs))


def test_mode_eval_takes_null_for_all_actions_of_a_chunk(tmp_path):
    chunks = "chunk.length=3", "chunk.execute=1"
    ((job, _),) = jobs("algo=qc_fql", "env=multi-goal", "tuned=none", *chunks, f"paths.outputs={tmp_path}")
    run = open_run(job.config, job.choices)
    run.close()
    for word, played in ("chunk.execute=null", None), ("chunk={execute:2}", 2), ("eval.video=false", 1):
        ((job, _),) = jobs("mode=eval", f"checkpoint={run.directory}", word)
        assert with_chosen(run, job)[0].chunk.execute == played


@pytest.mark.parametrize("word", ["eval.episodes=5", "eval={per_phase:2}"])
def test_mode_eval_refuses_what_is_of_evaluations_during_training(outputs, word):
    said = genpolicy("mode=eval", f"checkpoint={only_run(outputs)}", word).err
    name = "eval." + re.search(r"episodes|per_phase", word)[0]
    assert said == f"genpolicy: {name}: is of evaluations during training; mode=eval plays eval.final_episodes\n"


def test_a_long_evaluation_says_how_far_it_is(tmp_path, monkeypatch):
    short = [word for word in plain_words(tmp_path, *SHORT) if not word.startswith("eval.final_episodes")]
    assert genpolicy(*short, "eval.final_episodes=1").code == 0
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    run = f"checkpoint={only_run(tmp_path)}"
    result = genpolicy("mode=eval", run, f"paths.outputs={tmp_path}", "tracking.uri=none", "eval.final_episodes=3")
    assert result.code == 0, result.err
    shown = re.findall(r"^3 episodes, steps (\d)/5(?:  \S+/s  0:00:\d\d left)?$", result.err, re.MULTILINE)
    assert shown == ["1", "2", "3", "4"]


def test_what_was_asked_before_is_answered_from_the_record(outputs, untrained, monkeypatch):
    run, more = only_run(outputs), ("eval.final_episodes=5", "eval.steps=[1,2]")
    first = command(outputs, *more)
    kept, found = record(run)
    assert {"1 step", "2 steps"} < found["results"].keys()
    assert kept.with_suffix(".png").exists()
    monkeypatch.setattr(evaluate, "Evaluator", None)  # nothing is evaluated
    before = (run / "journal.jsonl").read_bytes()
    again = command(outputs, *more)
    assert first.out.split("dashboard")[0] == again.out
    assert (run / "journal.jsonl").read_bytes() == before
    assert (
        "finished already" in command(outputs, "eval.episodes=1", "eval.per_phase=9").out
    )  # of training's, which is over
    # mode=eval is the same evaluation by another way.
    told = genpolicy(
        "mode=eval", f"checkpoint={run}", "eval.final_episodes=5", "eval.steps=[1,2]", "eval.log_prob_actions=20"
    )
    assert told.code == 0, told.err
    assert told.out == again.out


def test_mode_eval_leaves_what_the_command_finds(outputs, untrained, monkeypatch):
    run = only_run(outputs)
    evaluation = ["eval.final_episodes=4", "eval.log_prob_actions=20", "select=greedy"]
    told = genpolicy("mode=eval", f"checkpoint={run}", f"paths.data={outputs}", *evaluation)
    assert told.code == 0, told.err
    monkeypatch.setattr(evaluate, "Evaluator", None)
    assert command(outputs, *evaluation).out == told.out
    assert f"{record(run)[0].stem}/return_mean" in {name for name, _, _ in records(run)}


def test_mode_eval_takes_what_the_command_takes(outputs, untrained, monkeypatch):
    """Options, and settings of the run's own ones, which here are none, rk4 and midpoint."""
    run, evaluation = only_run(outputs), ["eval.final_episodes=4", "eval.log_prob_actions=20"]
    more = ["select=greedy", "select.num_candidates=4", "likelihood=euler", "solver.steps=3"]
    told = genpolicy(
        "mode=eval", f"checkpoint={run}", f"paths.data={outputs}", *evaluation, *more, "likelihood.steps=2"
    )
    assert told.code == 0, told.err
    settings = record(run)[1]["settings"]
    assert settings["select"]["num_candidates"] == 4
    assert settings["likelihood"]["_target_"].endswith(".Euler")
    assert (settings["solver"]["steps"], settings["solver"]["_target_"].rpartition(".")[2]) == (3, "Midpoint")
    monkeypatch.setattr(evaluate, "Evaluator", None)
    assert command(outputs, *evaluation, *more).out == told.out  # its likelihood.steps are 2, too
    for word, lacks in {"select.beta=2": "select=none", "likelihood.rtol=1": "likelihood=rk4"}.items():
        refused = genpolicy("mode=eval", f"checkpoint={run}", f"paths.data={outputs}", word)
        key = word.partition("=")[0]
        assert (refused.code, refused.err.count("\n")) == (1, 1)
        assert refused.err.startswith(f"genpolicy: {key}: {lacks} has no such setting"), refused.err


def test_mode_eval_changes_the_selection_that_the_run_has(tmp_path):
    select = {"_target_": "genpolicy.select.selection.Softmax", "num_candidates": 8, "beta": 3}
    run = opened(tmp_path, *SHORT, *(f"select.{name}={value}" for name, value in select.items())).directory
    checkpoint.save(run / "last.pt", {"state": {"updates": 0}, "algorithm": {}})
    evaluate = ["mode=eval", f"checkpoint={run}", f"paths.data={tmp_path}"]
    refused = genpolicy(*evaluate, "select.num_candidates=0")
    assert refused.err.startswith("genpolicy: select.num_candidates: 0 must be >= "), refused.err
    assert "does not fit" in genpolicy(*evaluate, "select.num_candidates=4").err  # it comes to the empty checkpoint


def test_mode_eval_takes_no_solver_that_training_depends_on(tmp_path):
    ((job, _),) = jobs(*words(tmp_path, "algo=gmpg"))
    run = open_run(job.config, job.choices)
    run.close()
    checkpoint.save(run.path("last.pt"), {"state": {"updates": 0}, "algorithm": {}})
    evaluate = ["mode=eval", f"checkpoint={run.directory}", f"paths.data={tmp_path}"]
    for word in ("solver=euler", "solver.steps=9"):
        refused = genpolicy(*evaluate, word)
        assert (refused.code, refused.err.count("\n")) == (1, 1)
        assert f"solver, select, chunk.execute: the updates of {run.directory} depend on what is given" in refused.err
    assert "does not fit" in genpolicy(*evaluate, "solver.steps=2", "likelihood=euler").err


def test_other_reference_scores_are_no_other_run(tmp_path):
    scores = "env.reference_min=-10", "env.reference_max=0"
    with undrawn():
        for more in ((), scores):
            result = genpolicy(*plain_words(tmp_path, *SHORT, *more))
            assert result.code == 0, result.err
    kept, found = record(only_run(tmp_path))
    assert found["metrics"]["score_mean"] == pytest.approx(10 * (found["metrics"]["return_mean"] + 10))
    final = {name: value for name, _, value in records(kept.parent)}
    assert "final/score_mean" not in final
    assert found["metrics"]["return_mean"] == final["final/return_mean"]  # the same episodes


def test_an_unfinished_run_is_trained_as_it_was_begun_and_then_evaluated(tmp_path):
    opened(tmp_path, *SHORT).close()
    result = command(tmp_path, "eval.final_episodes=5")
    run = only_run(tmp_path)
    finals = [event["returns"] for event in events(run) if "final/return_mean" in event["metrics"]]
    assert [len(returns) for returns in finals] == [3]
    assert len(record(run)[1]["returns"]) == 5
    assert result.out.index("behaviour data") < result.out.index("eval.final_episodes=5")


def test_a_sweep_counts_what_is_to_be_evaluated_and_hands_on_directories(outputs, untrained, capsys):
    """As SLURM's jobs and local ones are: a process that is given the directory alone evaluates what was asked for."""
    from command_line import jobs

    from genpolicy.launch import worker

    def asked(*more):
        return [job for job, _ in jobs("-m", *words(outputs, *SHORT), *more)]

    run, several = only_run(outputs), asked("eval.final_episodes=3,5,6")
    assert mean_score(several[:1]) is not None
    assert mean_score(several[1:2]) is None
    with sweep.claimed(several, sweep.Sweep.of(several)) as runs:
        assert runs == [run]
    assert "1 of 1 to start: 1 to evaluate" in capsys.readouterr().out
    assert len(list(run.glob("evaluation-*.yaml"))) == 2
    with undrawn():
        worker.main(run)
    lengths = {len(json.loads(path.read_text())["returns"]) for path in run.glob("evaluation-*.json")}
    assert lengths == {5, 6}
    assert mean_score(several[1:2]) is not None
    with sweep.claimed(several, sweep.Sweep.of(several)) as runs:
        assert runs == []
    assert "0 of 1 to start\nleft alone: 1" in capsys.readouterr().out
    with sweep.claimed(asked("eval.final_episodes=3,5,6", "overwrite=true"), sweep.Sweep.of(several)) as runs:
        assert runs == [run]  # thrown away once, and asked for all
    assert len(list(run.glob("evaluation-*.yaml"))) == 2
    assert not list(run.glob("evaluation-*.json"))


def test_the_status_of_a_run_is_not_that_of_its_evaluations(outputs, untrained):
    command(outputs, "eval.final_episodes=4")
    assert genpolicy("mode=status", f"paths.outputs={outputs}").out.count("finished") == 2  # its state, and the sum


def test_one_sweep_over_evaluations_trains_once(tmp_path):
    result = command(tmp_path, "-m", "eval.final_episodes=2,3", "overwrite=true")
    assert result.out.count("behaviour data") == 2
    assert len(list(find_runs(tmp_path))) == 1
    assert len(record(only_run(tmp_path))[1]["returns"]) == 3


def test_seeds_and_python_ask_the_same_way(outputs, untrained):
    command(outputs, "seeds=[0]", "eval.final_episodes=4")
    with undrawn():
        found = api.train(*words(outputs, *SHORT, "eval.final_episodes=4"))
    assert found.results["final"]["return_mean"] == record(only_run(outputs))[1]["metrics"]["return_mean"]


@pytest.mark.parametrize(
    "content", ["", "[1]", "settings: {}\nchoices: {}", "a: [", "!!python/object/apply:os.getcwd []"]
)
def test_a_damaged_request_is_one_line(outputs, content):
    path = only_run(outputs) / "evaluation-0a1b2c3d.yaml"
    path.write_text(content)
    result = genpolicy(*words(outputs, *SHORT))
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert f"{path}: not what genpolicy has written" in result.err


def test_settings_that_do_not_go_together_are_refused_before_anything_is_asked(outputs):
    result = genpolicy(*words(outputs, *SHORT, "select=greedy", "eval.steps=[2,1]"))
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert not list(only_run(outputs).glob("evaluation-*"))


def test_a_run_of_a_class_that_is_not_here_is_kept(outputs):
    run = only_run(outputs)
    frozen = yaml.safe_load((run / "config.yaml").read_text())
    frozen["config"]["algo"]["_target_"] = "genpolicy.algo.mine.Mine"
    (run / "config.yaml").write_text(yaml.safe_dump(frozen))
    for attempt in (words(outputs, *SHORT), ["mode=eval", f"checkpoint={run}"]):
        result = genpolicy(*attempt)
        assert (result.code, result.err.count("\n")) == (1, 1)
        assert "genpolicy has no component genpolicy.algo.mine.Mine" in result.err
        assert "overwrite" not in result.err
    with pytest.raises(Exception, match="Mine"):
        load_run(run)
