"""Which scores are a benchmark's."""

import contextlib

import pytest
from command_line import genpolicy, jobs

from genpolicy.evaluation.table import print_table
from genpolicy.runs.protocol import unscaled
from genpolicy.runs.run import open_run
from genpolicy.training.final import note


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ""),
        (["env.max_episode_steps=300"], ""),  # its own
        (["env.max_episode_steps=50"], "episodes of 50 steps"),
        (["env.max_episode_steps=50", "env.reference_min=null", "env.reference_max=null"], ""),
        (["env.max_episode_steps=50", "env.reference_min=0", "env.reference_max=50"], ""),  # the user's own scale
        (["env=hopper-medium-v2", "env.simulator=Hopper-v5"], "played in Hopper-v5"),
        (["env=ogbench-cube-single-play", "env.max_episode_steps=1000"], "episodes of 1000 steps"),
    ],
)
def test_scores_of_other_episodes_than_the_reference_returns_are_of(words, said):
    ((job, _),) = jobs(*words)
    assert unscaled(job.config, job.choices) == said


def test_a_table_says_that_its_scores_are_not_the_benchmark_s(capsys):
    scored = {"return_mean": 1.0, "return_std": 0.0, "score_mean": 2.0, "score_std": 0.0}
    without = {"return_mean": 1.0, "return_std": 0.0}
    for values, reason, said in ((scored, "episodes of 50 steps", True), (scored, "", False), (without, "any", False)):
        print_table("a run", {"final": values}, unscaled=reason)
        lines = capsys.readouterr().out.splitlines()
        assert any(line.startswith("score: not the benchmark's") and line.endswith(reason) for line in lines) == said


def test_the_status_of_runs_says_it_too(tmp_path):
    for seed, words in enumerate((["env.simulator=Hopper-v5"], [])):
        [(job, _)] = jobs("env=hopper-medium-v2", f"paths.outputs={tmp_path}", f"seed={seed}", *words)
        with contextlib.closing(open_run(job.config, job.choices)) as run, run.recorded(device="cpu"):
            note(run, {"return_mean": 1.0, "score_mean": 2.0})
    shown = genpolicy("mode=status", f"paths.outputs={tmp_path}").out.splitlines()
    other, usual = [line for line in shown if "hopper-medium-v2" in line]
    assert other.rstrip().endswith("score: not the benchmark's (played in Hopper-v5)")
    assert "benchmark" not in usual
