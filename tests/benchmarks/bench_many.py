"""Hundreds of jobs, thousands of runs, a million entries: processor time, as these machines are never idle.

The wall-clock time is in the JSON file (`extra_info`).
"""

import json
import random
import re
import shutil
import time
from pathlib import Path

import pytest
import tiny
from command_line import genpolicy, jobs
from mlflow.entities import Metric

from genpolicy.config.loader import Loader
from genpolicy.runs.journal import Journal
from genpolicy.runs.run import Run
from genpolicy.tracking import entities, tracked, trackers
from genpolicy.tracking.tracked import Record

pytestmark = pytest.mark.benchmark(timer=time.process_time)

RUNS, JOBS, ENTRIES = 2000, 200, 10**6
METHODS = [(f"a{number // 4}", f"m{number % 4}") for number in range(20)]
TASKS, SEEDS = [f"t{number}" for number in range(5)], range(5)
STEPS = range(1000, 11_000, 1000)  # of the evaluations in training


@pytest.fixture
def timed(row):
    """Measures a function, which gets a fresh argument each time if `fresh` makes one."""

    def measure(group, function, rounds=1):
        walls = []

        def once():
            begun = time.perf_counter()
            function()
            walls.append(time.perf_counter() - begun)

        row(group, once, rounds, wall_seconds=walls)

    return measure


def test_one_configuration(timed):
    """With options that no other has; the files of the options are known."""
    tasks = iter(
        [f"env={size}-{kind}-v2" for size in ("hopper", "walker2d") for kind in ("medium", "medium-expert")] * 9
    )
    timed("one configuration composed", lambda: Loader().job(["algo=gmpo", next(tasks), "++algo.beta=3"]), 8)


def test_one_command(timed):
    seeds = iter(range(100))
    timed("one command composed and checked", lambda: jobs("algo=gmpo", f"seed={next(seeds)}"), 8)


def test_sweep_over_seeds(timed):
    timed(f"sweep of {JOBS} jobs checked", lambda: jobs("-m", f"seed=range({JOBS})", "algo=gmpo"))


def test_sweep_over_options(timed):
    words = ["env=locomotion", "algo=gmpo,gmpg,bc,idql", "model=vpsde,gvp,icfm"]
    timed("sweep of 108 jobs checked, no two of the same options", lambda: jobs("-m", *words))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, template) -> Run:
    """A finished run in a folder with a store, to which it has been shipped."""
    outputs = tmp_path_factory.mktemp("runs")
    shutil.copy(template, outputs / "mlflow.db")
    run = tiny.ended(outputs, "tracking.uri=null", events=100)
    trackers.open_store(None, outputs).ship(run)
    return run


def duplicate(run: Run, seed: int, algo: str | None = None, model: str | None = None, task: str | None = None) -> Run:
    """A run beside another, the same but for its seed and, in name, its algorithm, model and task."""
    place = run.directory.with_name(f"seed{seed}")
    if task is not None:
        place = run.directory.parents[2] / task / f"{algo}-{model}-{run.directory.parent.name[-8:]}" / f"seed{seed}"
    shutil.copytree(run.directory, place)
    text = (place / "config.yaml").read_text()
    for name, value in {"algo": algo, "model": model, "env": task}.items():
        if value is not None:
            text = re.sub(rf"^  {name}: \w[\w-]*$", f"  {name}: {value}", text, count=1, flags=re.MULTILINE)
    text = re.sub(r"^  seed: \d+$", f"  seed: {seed}", text, flags=re.MULTILINE)
    (place / "config.yaml").write_text(text.replace(run.id, f"{random.randrange(16**32):032x}"))
    return Run(place)


def note(run: Run, uri: str, number: str, record: dict) -> None:
    """Has a run know that it has been shipped, as the store's importer notes it."""
    known = record | {"id": run.id, "run": number, "place": tracked.place(run.directory)}
    known["files"] = tracked.files(run.directory, *tracked.FILES)
    (run.directory / "tracking.json").write_text(json.dumps({uri: known}))


@pytest.fixture(scope="module")
def many(finished) -> Path:
    """A folder of finished runs that have all been shipped."""
    uri = trackers.store_uri(None, finished.outputs)
    record = dict(Record(finished.directory, uri, finished.id))
    for seed in range(1, RUNS):
        note(duplicate(finished, seed), uri, record["run"], record)
    return finished.outputs


def test_status(timed, many):
    timed(f"mode=status over {RUNS} runs", lambda: said(f"{RUNS} runs: {RUNS} finished", many, "mode=status"))


def test_sync(timed, many):
    timed(f"mode=sync of {RUNS} runs, nothing missing", lambda: said(f"{RUNS} runs of", many, "mode=sync"))


@pytest.fixture(scope="module")
def study(finished) -> Path:
    """A study of methods and tasks in the store, each run with a curve and a score."""
    outputs, draw = finished.outputs.parent / "study", random.Random(0)
    place = outputs / "many" / Path(*finished.directory.parts[-3:])
    shutil.copytree(finished.directory, place)
    shutil.copy(finished.outputs / "mlflow.db", outputs)
    config = (place / "config.yaml").read_text()
    (place / "config.yaml").write_text(re.sub(r"^  study: \w+$", "  study: many", config, flags=re.MULTILINE))
    original, store = Run(place), trackers.open_store(None, outputs)
    experiment = store.client.create_experiment(f"{entities.EXPERIMENT}many", (outputs / "mlartifacts").as_uri())
    for seed in SEEDS:
        for task in TASKS:
            for algo, model in METHODS:
                run = duplicate(original, 100 + seed, algo, model, task)
                params = [*entities.params(run.config)]
                number = store.client.create_run(experiment, 0, entities.tags(run, run.status()), run.name).info.run_id
                values = [("eval/return_mean", step, step * draw.random()) for step in STEPS]
                values += [(f"{which}/score_mean", STEPS[-1], 100 * draw.random()) for which in ("final", "best")]
                metrics = [Metric(name, value, 0, step) for name, step, value in values]
                store.client.log_batch(number, metrics=metrics, params=params[:100])
                store.client.log_batch(number, params=params[100:])
                store.client.set_terminated(number)
                note(run, store.uri, number, {"state": "finished", "offset": 10**9})
    shutil.rmtree(original.directory.parents[1])
    return outputs


def test_report(timed, study):
    count = len(METHODS) * len(TASKS) * len(SEEDS)
    timed(
        f"mode=report over {count} runs of {len(METHODS)} methods",
        lambda: said("report.html", study, "mode=report", "study=many"),
    )


@pytest.fixture(scope="module")
def journal(tmp_path_factory) -> Path:
    """A journal that was closed after its last entry."""
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    with open(path, "w") as file:
        for step in range(ENTRIES):
            file.write(f'{{"time": 1700000000000, "step": {step}, "metrics": {{"critic/loss": 0.5}}}}\n')
    Journal(path).close()
    return path


def test_journal(timed, journal):
    timed(f"journal of {ENTRIES:,} entries opened", lambda: Journal(journal).close(), 5)


def said(expected: str, outputs: Path, *words: str) -> None:
    """Runs a command on a folder, which must succeed and say so."""
    result = genpolicy(*words, f"paths.outputs={outputs}")
    assert result.code == 0, result.err
    assert expected in result.out
