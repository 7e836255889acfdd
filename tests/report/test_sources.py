"""`mode=report` as a command: runs that a store has, or that only lie in their directories."""

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import study
from command_line import genpolicy
from tiny import opened

from genpolicy.report.results import Comparison
from genpolicy.report.sources import Source, of_directories, of_store
from genpolicy.runs.evaluations import own_evaluation
from genpolicy.runs.journal import Journal
from genpolicy.runs.run import Run, find_runs
from genpolicy.system.files import Lock
from genpolicy.tracking import sync, trackers


def trained(outputs: Path, *words: str, score: float, uri: str = "null", sweep: str | None = None) -> None:
    """A run that has ended with this score, without training."""
    run = opened(outputs, f"tracking.uri={uri}", *words, sweep=sweep)
    evaluations = [{"eval/score_mean": score * part, "eval/log_prob": -part} for part in (0.5, 1.0)]
    metrics = [*evaluations, {"final/score_mean": score, "best/score_mean": score + 1, "best/update": 2}]
    events = [{"time": 10**12 + i, "step": i + 1, "metrics": each} for i, each in enumerate(metrics)]
    with run.recorded(device="cpu"):
        run.path("journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    run.close()


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A store with two methods on three seeds, one of them not a number."""
    outputs = tmp_path_factory.mktemp("outputs")
    for beta, scores in (("1.0", [10.0, 20.0, 30.0]), ("4.0", [50.0, math.nan, 70.0])):
        for seed, score in enumerate(scores):
            trained(outputs, f"algo.beta={beta}", f"seed={seed}", score=score, sweep="beta=1,4 (0123abcd)")
    trained(outputs, "seed=9", "algo.beta=2.0", score=0.0)
    assert sync.sync_all(outputs, None, {}).shipped == 7
    return outputs


@pytest.fixture
def outputs(template, tmp_path) -> Path:
    return shutil.copytree(template, tmp_path / "moved here")


def last(folder: Path) -> list[list[str]]:
    return list(csv.reader((folder / "tables" / "scores_last.csv").open()))


SWEPT = [
    ["", "swiss-roll"],
    ["gmpo-gvp algo.beta=1.0", "20.0 ± 10.0"],
    ["gmpo-gvp algo.beta=4.0", "60.0 ± 14.1 (2 of 3)"],
]


@pytest.mark.slow
def test_a_study_that_was_moved(outputs):
    found = genpolicy("mode=report", f"paths.outputs={outputs}")
    assert found.code == 0, found.err
    assert "algo.beta=4.0 on swiss-roll, seed 1: final/score_mean is nan" in found.out
    assert "20.0 ± 10.0" in found.out
    assert [row[0] for row in last(outputs / "default" / "report")][1:] == [
        f"gmpo-gvp algo.beta={b}" for b in (1.0, 2.0, 4.0)
    ]


@pytest.mark.slow
def test_a_sweep_alone(outputs):
    found = genpolicy("mode=report", f"paths.outputs={outputs}", "sweep=0123abcd")
    assert found.code == 0, found.err
    assert last(outputs / "default" / "sweeps" / "0123abcd" / "report") == SWEPT


def test_the_dashboard_is_that_of_the_studys_experiment(outputs):
    found = genpolicy("mode=report", f"paths.outputs={outputs}")
    assert "/#/experiments/1/runs?" in found.out


def test_a_search_of_mlflow_chooses_the_runs(outputs):
    words = [f"paths.outputs={outputs}", "report.filter=\"params.`algo.beta` = '1.0'\""]
    found = genpolicy("mode=report", *words)
    assert found.code == 0, found.err
    assert last(outputs / "default" / "report") == [["", "gmpo-gvp"], ["swiss-roll", "20.0 ± 10.0"]]


@pytest.mark.slow
def test_what_has_ended_since_is_in_the_report(outputs):
    trained(outputs, "seed=3", "algo.beta=1.0", score=40.0)
    assert genpolicy("mode=report", f"paths.outputs={outputs}").code == 0
    assert last(outputs / "default" / "report")[1] == ["gmpo-gvp algo.beta=1.0", "25.0 ± 12.9 (4 of 5)"]


def test_a_run_that_its_own_process_still_ships_is_waited_for(outputs, monkeypatch):
    trained(outputs, "seed=3", "algo.beta=1.0", score=40.0)
    trained(outputs, "seed=4", "algo.beta=1.0", score=90.0)
    shipping = {seed: Lock(next((outputs / "default").glob(f"*/*/seed{seed}")) / "tracking.lock") for seed in (3, 4)}
    acquire = Lock.acquire
    assert all(lock.acquire() for lock in shipping.values())

    def waiting(lock, timeout=0.0):
        if lock.path == shipping[3].path and timeout > 0:
            shipping[3].release()  # its process has ended
        return acquire(lock, min(timeout, 0.1) if lock.path == shipping[4].path else timeout)

    monkeypatch.setattr(Lock, "acquire", waiting)
    found = genpolicy("mode=report", f"paths.outputs={outputs}")
    assert found.code == 0, found.err
    assert "swiss-roll s4: another process still ships it" in " ".join(found.out.split())
    rows = dict(last(outputs / "default" / "report")[1:])
    assert rows["gmpo-gvp algo.beta=1.0"] == "25.0 ± 12.9 (4 of 5)"


@pytest.mark.slow
def test_a_later_evaluation_is_a_method_of_its_own(outputs):
    run = opened(outputs, "algo.beta=1.0", "seed=0", "eval.final_episodes=77", "tracking.uri=null")
    run.asked.keep(
        run, checkpoint="last.pt", updates=3, metrics={}, returns=[], results={"final": {"score_mean": 33.0}}
    )
    journal = Journal(run.path("journal.jsonl"))
    journal.log(3, {f"evaluation-{run.asked.digits}/{kind}_mean": 33.0 for kind in ("score", "return")})
    journal.close()
    run.close()
    found = genpolicy("mode=report", f"paths.outputs={outputs}")
    assert found.code == 0, found.err
    rows = dict(last(outputs / "default" / "report")[1:])
    assert rows["gmpo-gvp algo.beta=1.0 eval.final_episodes=77"] == "33.0 (1 of 4)"
    assert rows["gmpo-gvp algo.beta=1.0 eval.final_episodes=8"] == "20.0 ± 10.0 (3 of 4)"


def test_an_evaluation_as_at_a_runs_end_is_no_other_run(outputs):
    """`mode=eval` with the run's own settings."""
    run, told = next(map(Run, find_runs(outputs))), {"checkpoint": "last.pt", "updates": 3}
    own_evaluation(run).keep(run, **told, metrics={}, returns=[], results={"final": {"score_mean": 33.0}})
    assert list(run.directory.glob("evaluation-*.json"))
    found = of_directories(outputs / "default", find_runs(outputs, "default"))
    assert [each.evaluation for each in found.results] == [""] * len(found.results)


def test_what_changes_no_metric_makes_no_other_method(tmp_path):
    """A run of another `algo.chunk`, which keeps to the same folder, and later a video, or numbers of solver steps."""
    words = ["env=swiss-roll", "algo=gmpg", "tuned=none"]
    study.fill(tmp_path, [words], [0], lambda words, seed: 40.0)
    study.fill(tmp_path, [[*words, "algo.chunk=16"]], [1], lambda words, seed: 60.0)
    runs = [Run(directory) for directory in find_runs(tmp_path)]
    assert len({run.directory.parent for run in runs}) == 1
    own = own_evaluation(runs[0])
    told = {"checkpoint": "last.pt", "updates": 3, "metrics": {}, "returns": []}
    for changed in {"video": True}, {"steps": [1, 2]}:
        later = replace(own, settings={**own.settings, "eval": {**own.settings["eval"], **changed}})
        later.keep(runs[0], **told, results={"final": {"score_mean": 33.0}})
    found = Comparison(of_directories(tmp_path / "default", find_runs(tmp_path, "default")).results)
    assert found.methods == ["gmpg-gvp"]
    assert [run.seed for _, _, run in found.listed] == [0, 1]
    assert found.duplicates == []


@pytest.mark.slow
def test_a_run_that_is_in_no_store_is_said(outputs):
    trained(outputs, "seed=3", "algo.beta=1.0", score=40.0, uri="none", sweep="beta=1,4 (0123abcd)")
    found = genpolicy("mode=report", f"paths.outputs={outputs}", "sweep=0123abcd")
    assert found.code == 0, found.err
    assert f"swiss-roll s3: not in study default of sqlite:///{outputs}/mlflow.db" in " ".join(found.out.split())


def test_what_is_deleted_or_queued_or_not_of_the_study_any_more_is_left_out(outputs):
    (outputs / "default").rename(outputs / "renamed")
    found = genpolicy("mode=report", f"paths.outputs={outputs}", "study=renamed")
    assert found.err.endswith("known: default; tracking.uri=none reports on the run directories\n")
    trained(outputs, "seed=3", score=40.0)
    trained(outputs, "seed=4", score=-math.inf)
    opened(outputs, "seed=5", "tracking.uri=null").close()
    found = genpolicy("mode=report", f"paths.outputs={outputs}")
    assert last(outputs / "default" / "report") == [["", "gmpo-gvp"], ["swiss-roll", "40.0 (1 of 2)"]]
    told = " ".join(found.out.split())
    assert f"left out: 7 runs of sqlite:///{outputs}/mlflow.db, deleted, moved or renamed since" in told
    assert "seed 4: final/score_mean is -inf" in told
    assert "not in study" not in told


def test_what_the_store_has_lost_is_sent_again(template):
    """As after it was begun anew, though the runs say that they are shipped."""
    store = trackers.open_store(None, template)
    store._database._hard_delete_run(store.runs("default", "params.`algo.beta` = '2.0'")[0].info.run_id)
    assert sync.sync_all(template, None, {store.uri: store}, thorough=False).shipped == 1
    assert len(store.runs("default", "")) == 7


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["study=other"], "study=other: not in sqlite:///{}/mlflow.db; known: default"),
        (["report.filter='colour = 3'"], "report.filter=colour = 3: Invalid"),
        (["sweep=00000000"], "study=default: sqlite:///{}/mlflow.db has no runs of sweep 00000000"),
        (["tracking.uri=none", "study=other"], "study=other: {}/other has no runs"),
        (
            ["tracking.uri=none", "report.filter='colour = 3'"],
            "report.filter=colour = 3: a search of MLflow, and no store",
        ),
        (["tracking.uri=sqlite:////nowhere/x.db"], "no MLflow store at sqlite:////nowhere/x.db; give"),
    ],
)
def test_what_cannot_be_reported_is_one_line(outputs, words, line):
    found = genpolicy("mode=report", f"paths.outputs={outputs}", *words)
    assert found.code == 1
    assert found.out == ""
    assert found.err.startswith("genpolicy: " + line.format(outputs))
    assert found.err.count("\n") == 1


# --- from run directories ---


def as_read(source: Source) -> list:
    """What a source says of each run, and all that it tells of each metric's history; not where it was read."""
    names = {name for result in source.results for name in result.metrics}
    told = [
        (replace(result, number=""), {name: source.history(result.number, name) for name in names})
        for result in source.results
    ]
    return sorted(told, key=lambda each: (each[0].directory, each[0].evaluation))


@pytest.mark.slow
def test_run_directories_tell_what_the_store_tells(tmp_path):
    """Of runs with behaviour and online phases, one that failed, some without a number, and a later evaluation."""
    words = ["env=hopper-medium-v2", "algo=gmpo"]
    configurations = [words, [*words, "algo.beta=4.0", "tracking.model=false"]]
    study.fill(tmp_path, configurations, [0, 1], lambda words, seed: 40.0 + seed, "null", online=500)
    odd = (math.nan, -math.inf)
    study.fill(tmp_path, [["env=swiss-roll", "algo=bc"]], [0, 1], lambda words, seed: odd[seed], "null", ["behaviour"])
    later, failed = map(Run, list(find_runs(tmp_path))[:2])
    with pytest.raises(ValueError, match="by hand"), failed.recorded(device="cpu"):
        raise ValueError("stopped by hand")
    answered = {"checkpoint": "last.pt", "updates": 3, "settings": {}, "choices": {"solver": "rk4"}, "without": []}
    answered |= {"changed": {"eval.final_episodes": 77}, "results": {"final": {"score_mean": 33.0}}}
    later.path("evaluation-0123abcd.json").write_text(json.dumps(answered))
    journal = Journal(later.path("journal.jsonl"))
    journal.log(300_000, {"evaluation-0123abcd/score_mean": 33.0})
    journal.log(8, {"evaluation-0123abcd/steps/score_mean": 31.0})
    journal.close()
    opened(tmp_path, "seed=5", "tracking.uri=null").close()  # has not begun
    assert sync.sync_all(tmp_path, None, {}).failures == []
    store = trackers.open_store(None, tmp_path)
    stored = as_read(of_store(store, store.runs("default", "")))
    read = as_read(of_directories(tmp_path / "default", find_runs(tmp_path, "default")))
    assert len(stored) == 7
    assert [each.state for each, _ in stored].count("failed") == 1
    kept = {name for _, histories in read for name, found in histories.items() if found}
    assert {"eval/score_mean", "behaviour/updates_per_second", "online/environment_steps"} <= kept
    for (theirs, told), (ours, histories) in zip(stored, read, strict=True):
        assert ours.settings.pop("tracking.uri", None) == theirs.settings.pop("tracking.uri", None)
        assert repr(ours) == repr(theirs)  # where two NaN are the same
        assert repr({name: told[name] for name in kept}) == repr({name: histories[name] for name in kept})


def test_a_folder_without_a_store_is_reported_on(outputs):
    (outputs / "mlflow.db").unlink()
    trained(outputs, "seed=3", "algo.beta=1.0", score=40.0, uri="none")
    found = genpolicy("mode=report", f"paths.outputs={outputs}")
    assert found.code == 0, found.err
    assert dict(last(outputs / "default" / "report")[1:])["gmpo-gvp algo.beta=1.0"] == "25.0 ± 12.9 (4 of 5)"
    assert "dashboard" not in found.out
    assert not (outputs / "mlflow.db").exists()


@pytest.mark.slow
def test_a_sweep_of_run_directories_alone_is_that_of_the_store(outputs):
    given = ["mode=report", f"paths.outputs={outputs}", "sweep=0123abcd"]
    folder = outputs / "default" / "sweeps" / "0123abcd" / "report"
    told = []
    for words in given, [*given, "tracking.uri=none"]:
        found = genpolicy(*words)
        assert found.code == 0, found.err
        told.append({path.name: path.read_text() for path in (folder / "tables").glob("*.csv")})
        told[-1].pop("runs.csv")  # which says where a run was read
    assert told[0] == told[1]
    assert last(folder) == SWEPT


def test_a_damaged_run_directory_is_said_and_takes_no_other_along(outputs):
    broken = next((outputs / "default").glob("*/*/seed9"))
    (broken / "status.json").write_text("[]")
    found = genpolicy("mode=report", f"paths.outputs={outputs}", "tracking.uri=none")
    assert found.code == 0, found.err
    assert "not what genpolicy writes there" in " ".join(found.out.split())  # which the width of the terminal breaks
    assert len(last(outputs / "default" / "report")) == 3
