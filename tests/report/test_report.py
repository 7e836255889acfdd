"""What a report says about runs that are there, missing, failed, doubled or not a number."""

import math
from dataclasses import replace

import pytest
from reported import cell, document, lines, result, said, table

from genpolicy.report.results import Comparison


def test_means_and_deviations_over_seeds_of_the_last_and_of_the_best_checkpoint():
    made = document(*(result(seed=seed, score=score) for seed, score in enumerate([40.0, 50.0, 66.0])))
    assert table(made, "scores_last") == {("hopper-medium-v2", "gmpo-gvp"): "52.0 ± 13.1"}  # sqrt((144 + 4 + 196) / 2)
    assert table(made, "scores_best") == {("hopper-medium-v2", "gmpo-gvp"): "57.0 ± 13.1"}
    assert said(made) == ""


def test_a_seed_that_is_missing_failed_or_not_a_number_is_said_and_never_averaged():
    good = [result("bc", seed=seed) for seed in range(4)]
    made = document(
        *good,
        result(seed=0, score=10.0),
        result(seed=1, score=math.nan),
        result(seed=2, score=99.0, state="failed", reason="training has diverged"),
    )
    assert cell(made, "hopper-medium-v2", "gmpo-gvp") == "10.0 (1 of 4)"
    assert said(made).splitlines() == [
        "gmpo-gvp on hopper-medium-v2, seed 1: final/score_mean is nan",
        "gmpo-gvp on hopper-medium-v2, seed 2: failed: training has diverged",
        "gmpo-gvp on hopper-medium-v2, seed 3: no run",
        "no intervals: a method has 1 seed on a task, and they need 3",
    ]


def test_a_task_that_a_method_lacks_is_missing_and_left_out_of_every_mean():
    both = [result(algo, "hopper-medium-v2", seed) for algo in ("bc", "gmpo") for seed in range(3)]
    one = [result("bc", "walker2d-medium-v2", seed, 100.0) for seed in range(3)]
    made = document(*both, *one)
    assert cell(made, "walker2d-medium-v2", "gmpo-gvp") == "missing"
    assert "walker2d-medium-v2" in said(made)
    assert table(made, "aggregates")["bc-gvp", "mean"] == "50.0 [50.0, 50.0]"


def test_of_two_runs_of_one_kind_the_newer_finished_one_counts():
    made = document(
        result(score=10.0, created=1),
        result(score=20.0, created=2),
        result(score=30.0, created=3, state="failed"),
    )
    assert cell(made, "hopper-medium-v2", "gmpo-gvp") == "20.0"
    assert "3 runs" in said(made)


def test_seeds_that_versions_with_other_settings_have_run_are_of_one_method():
    """As the folder says, whose name is a digest of what weights depend on; not so runs of two folders."""
    new = {"chunk.length": "1", "solver.order": "2"}
    seeds = [result(seed=seed, directory=f"/gmpo-gvp-0a/seed{seed}", settings=new if seed else {}) for seed in range(3)]
    assert set(table(document(*seeds), "scores_last")) == {("hopper-medium-v2", "gmpo-gvp")}
    other = result(seed=0, directory="/gmpo-gvp-0b/seed0", settings={})
    assert len(table(document(*seeds[1:], other), "scores_last")) == 2
    evaluated = [replace(each, evaluation="evaluation-0/") for each in seeds]
    evaluated = [replace(each, settings=each.settings | {"solver.steps": "4"}) for each in evaluated]
    labels = {row for row, _ in table(document(*seeds, *evaluated), "scores_last")}
    assert labels == {"gmpo-gvp solver.steps=4", "gmpo-gvp solver.steps=8"}


def test_runs_of_different_data_are_not_beside_the_data_of_one_of_them():
    runs = [result(seed=seed, settings={"dataset.episodes": n}) for seed, n in ((0, "10"), (1, "20"), (2, "20"))]
    for run, mean in zip(runs, (7.0, 8.0, 8.0), strict=True):
        run.metrics["data/score_mean"] = mean
    made = document(*runs)
    assert {row or column for row, column in table(made, "scores_last")} & {"behaviour data"} == set()
    assert [row[3] for part in made.parts if part.name == "cost" for row in part.rows] == ["7.0", "8.0"]
    assert "different data" not in said(made)
    runs[2].metrics["data/score_mean"] = 9.0
    assert "gmpo-gvp dataset.episodes=20 on hopper-medium-v2: runs of different data" in said(document(*runs))
    runs[2].metrics["data/score_mean"] = 8.0
    one = document(*runs[1:])
    assert table(one, "scores_last")["hopper-medium-v2", "behaviour data"] == "8.0"


def test_of_several_configurations_of_behaviour_cloning_the_highest_is_the_reference():
    clones = [result("bc", score=score, settings={"algo.beta": str(score)}) for score in (40.0, 60.0, 50.0)]
    made = document(result(score=70.0), *clones)
    assert {row[4] for part in made.parts if part.name == "cost" for row in part.rows} == {"60.0"}


def test_runs_of_a_part_of_the_updates_are_said_to_be_so_beside_published_numbers():
    runs = [result(), result("gmpg", settings={"budget": "0.1"}), result("bc", settings={"budget": "1.0"})]
    told = lines(document(*runs), "about_published")
    assert "gmpg-gvp on hopper-medium-v2: trained for 0.1 of its updates (budget)." in told
    assert told.count("of its updates") == 1


def test_runs_of_different_revisions_are_said():
    assert "aaaaaaaa, unknown" in said(document(result(commit="a" * 40), result(seed=1, commit=None)))


def test_scores_have_a_mean_over_tasks_and_log_likelihoods_have_not():
    made = document(
        *(result(task=f"{robot}-medium-v2", score=score) for robot, score in (("hopper", 40), ("walker2d", 60)))
    )
    assert table(made, "scores_last")["mean", "gmpo-gvp"] == "50.0"
    assert {row for row, _ in table(made, "log_likelihood")} == {"hopper-medium-v2", "walker2d-medium-v2"}


def test_returns_are_never_mixed_with_scores():
    toy = result(task="multi-goal", score=None)
    toy.metrics.update({"final/return_mean": -700.0, "best/return_mean": -600.0})
    made = document(result(), toy)
    assert cell(made, "multi-goal (return)", "gmpo-gvp") == "-700.0"
    assert table(made, "aggregates")["gmpo-gvp", "mean"] == "50.0"


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ([{}, {"settings": {"algo.beta": "4.0"}}], ["gmpo-gvp algo.beta=1.0", "gmpo-gvp algo.beta=4.0"]),
        (
            [{}, {"choices": {"solver": "rk4"}, "settings": {"solver.steps": "6"}}],
            ["gmpo-gvp solver=midpoint", "gmpo-gvp solver=rk4"],  # the option says enough
        ),
        ([{}, {"settings": {"device": "cuda"}, "seed": 1}], ["gmpo-gvp"]),
        ([{}, {"task": "walker2d-medium-v2", "settings": {"algo.beta": "4.0"}}], ["gmpo-gvp"]),  # tuned by task
        ([{}, {"choices": {"model": "vpsde"}}], ["gmpo-gvp", "gmpo-vpsde"]),
    ],
)
def test_methods_are_told_apart_by_what_differs_on_the_same_task(changes, labels):
    assert Comparison(result(**change) for change in changes).methods == labels


def test_differences_are_those_of_the_compared_methods():
    made = document(result("bc"), result("gmpo", settings={"algo.beta": "4.0"}))
    found = table(made, "differences")
    assert found["algo.beta", "gmpo-gvp"] == "4.0"
    assert found["algo", "bc-gvp"] == "bc"
    assert not any(name == "solver.steps" for name, _ in found)


def test_beside_published_numbers():
    choices = {"model": "vpsde"}
    runs = [result("gmpg", seed=seed, score=90.0 + seed, choices=choices) for seed in range(3)]
    made = document(*runs, result("diffusion_ql", score=95.0, choices={"model": "ddpm"}))
    (part,) = (part for part in made.parts if part.name == "published")
    found = {(row[4], row[7].partition(",")[0]): row for row in part.rows}
    row = found["GMPG-VPSDE", "gmpo-locomotion"]  # whether of the last checkpoint is not said: held against the last
    assert row[:4] == ["hopper-medium-v2", "gmpg-vpsde", "91.0 ± 1.0", "96.0 ± 1.0"]
    assert row[5:7] == ["101.1 ± 2.6", "-10.1"]
    # Diffusion-QL's table holds best checkpoints, so ours is the best, too: 95 + 5 - 90.5.
    assert found["Diffusion-QL", "gtp-table-2"][5:7] == ["90.5", "+9.5"]
    about = "\n".join(line for part in made.parts if part.name == "about_published" for line in part.lines)
    assert "Hopper-v4 stands in for it" in about
    assert "arXiv 2412.01245" in about


def test_data_that_may_not_be_the_papers_are_named_beside_published_numbers():
    made = document(result("gmpo", choices={"dataset": "hdf5"}), result("gmpg"))
    (part,) = (part for part in made.parts if part.name == "published")
    tasks = {row[1]: row[0] for row in part.rows}
    assert tasks == {"gmpo-gvp": "hopper-medium-v2, dataset=hdf5", "gmpg-gvp": "hopper-medium-v2"}


def ogbench(algo="fql", task="ogbench-scene-play", data="ogbench", score=70.0, **more):
    settings = {"dataset.sparse": "false", "critic.ensemble": "2", "env.task": "null"} | more.pop("settings", {})
    made = result(algo, task, choices={"model": "icfm", "dataset": data}, settings=settings, score=score, **more)
    return replace(made, metrics=dict(made.metrics) | {"late/score_mean": score - 2})


def test_the_late_mean_is_held_against_late_means():
    made = document(ogbench(score=80.0))
    assert table(made, "scores_late")["ogbench-scene-play", "fql-icfm"] == "78.0"
    (part,) = (part for part in made.parts if part.name == "published")
    (row,) = part.rows
    assert row == [
        "ogbench-scene-play",
        "fql-icfm",
        "80.0",
        "78.0",
        "85.0",
        "FQL",
        "76 ± 9",
        "+2.0",
        "fql-ogbench, late",
    ]
    told = "\n".join(line for part in made.parts if part.name == "about_published" for line in part.lines)
    assert (
        "not beside those of other protocols: fql-ogbench-means (mean of 5 tasks), qam (sparse, chunks of 5, " in told
    )
    assert not any(part.name == "scores_late" for part in document(result()).parts)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"data": "ogbench_made"}, "made"),
        ({"settings": {"dataset.sparse": "true"}}, "sparse"),
        ({"settings": {"critic.ensemble": "10"}}, "10 critics"),
        ({"data": "hdf5", "settings": {"dataset.sparse": "true", "env.task": "3"}}, "task 3, hdf5, sparse"),
    ],
)
def test_numbers_of_different_protocols_are_never_in_a_cell_a_mean_or_beside_published_ones(change, name):
    other, cube = "ogbench-scene-play" + f" ({name})", "ogbench-cube-single-play"
    made = document(*(ogbench(algo, **more) for algo in ("fql", "gmpg") for more in ({}, change, {"task": cube})))
    assert cell(made, other, "fql-icfm") == cell(made, "ogbench-scene-play", "fql-icfm") == "70.0"
    assert not any(row[0] == "mean" for part in made.parts if part.name == "scores_last" for row in part.rows)
    assert not any(part.name == "aggregates" for part in made.parts)
    assert "ogbench-scene-play: runs of different protocols are in rows of their own" in said(made)
    protocol = name.removeprefix("task 3, ")
    assert f"no mean or statistic over tasks of different protocols ({protocol}, as published)" in said(made).replace(
        f"(as published, {protocol})", f"({protocol}, as published)"
    )
    assert {row[0] for part in made.parts if part.name == "published" for row in part.rows} == {
        "ogbench-scene-play",
        cube,
    }


@pytest.mark.parametrize(
    ("task", "low", "setup"),
    [
        ("hopper-medium-v2", "-20.272305", " (scores from -20.272305 to 1000.0)"),
        ("hopper-medium-v2", "null", " (without scores)"),
        ("dmc-cheetah-run", "0.0", ""),  # whose published numbers are returns
    ],
)
def test_numbers_of_another_scale_are_not_beside_published_ones(task, low, setup):
    settings = {"env.reference_min": low, "env.reference_max": "null" if low == "null" else "1000.0"}
    run = result("gmpo", task, settings=settings, score=None if low == "null" else 50.0)
    run.metrics["final/return_mean"] = 2800.0
    made = document(run)
    assert not any(part.name == "published" for part in made.parts)
    assert f"{task}{setup}: not beside those of other protocols: " in lines(made, "about_published")


def test_the_tasks_of_a_data_set_are_rows_with_a_mean():
    made = document(*(ogbench(score=10.0 * n, settings={"env.task": str(n)}) for n in (1, 2, 3)))
    assert cell(made, "ogbench-scene-play (task 3)", "fql-icfm") == "30.0"
    assert cell(made, "mean", "fql-icfm") == "20.0"
    assert said(made) == "no intervals: a method has 1 seed on a task, and they need 3"


def test_what_no_paper_has_is_beside_nothing():
    assert not any(part.name == "published" for part in document(result("gmpo_softmax_fresh")).parts)


def test_many_methods_go_down_the_page():
    made = document(*(result(algo) for algo in ("bc", "gmpo", "gmpg")))
    assert set(table(made, "scores_last")) == {(f"{algo}-gvp", "hopper-medium-v2") for algo in ("bc", "gmpo", "gmpg")}
