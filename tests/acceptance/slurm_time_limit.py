"""A chain of short jobs equals one long one: the time limit of a minute, reached three times or more.

    python -m pytest tests/acceptance/slurm_time_limit.py

needs `launch/slurm-dev.sh up` and some four minutes. SLURM may send its signal up to a minute too early: before the
job has begun.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "slurm"))
from command_line import genpolicy
from slurm_sweeps import (  # noqa: F401, a fixture among them
    LONG,
    assert_as_if_nothing_had_happened,
    job_of,
    launch,
    lives,
    outputs,
    scontrol,
    settled,
    wait_until,
    words,
)
from tiny import only_run

from genpolicy.runs.state import read_status


def test_the_end_of_its_time_requeues_the_job(outputs):  # noqa: F811
    steps = "algo.policy_steps=90000"
    for folder in ("whole", "parts"):
        (outputs / folder).mkdir()
    assert genpolicy(*words(outputs / "whole", *LONG, steps)).code == 0
    launch(outputs / "parts", steps, "launch.minutes=1", "launch.grace_seconds=30")
    wait_until(lambda: settled(outputs / "parts"), 600)
    run = only_run(outputs / "parts")
    assert lives(run) >= 4
    assert_as_if_nothing_had_happened(run, only_run(outputs / "whole"))


def test_a_job_is_not_requeued_for_ever(outputs):  # noqa: F811
    launch(outputs, "algo.policy_steps=2000000", "launch.minutes=1", "launch.grace_seconds=30", "launch.requeues=0")
    wait_until(lambda: settled(outputs))
    run = only_run(outputs)
    assert lives(run) == 1
    assert read_status(run)["state"] in ("interrupted", "queued")  # a busy machine may take half a minute to begin it
    assert "JobState=FAILED" in scontrol("show", "job", job_of(run))
