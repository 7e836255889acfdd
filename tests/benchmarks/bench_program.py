"""Evaluation beside the simulator alone, and how long the program takes to begin."""

import itertools
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command_line import jobs
from composed import task

from genpolicy.algo.algorithm import assemble
from genpolicy.evaluation.rollout import rollout
from genpolicy.solver.fixed import AB2, Midpoint

EPISODES, STEPS = 10, 1000
GENPOLICY = str(Path(sys.executable).with_name("genpolicy"))
SOLVERS = {"midpoint_8": Midpoint(steps=8), "ab2_4": AB2(steps=4)}


@pytest.mark.parametrize("what", [*SOLVERS, "simulator"])
def test_episodes(row, device, what):
    """HalfCheetah's, which do not end early."""
    cheetah, generator = task("halfcheetah-medium-v2"), torch.Generator(device).manual_seed(0)
    bounds = torch.from_numpy(cheetah.action_low), torch.from_numpy(cheetah.action_high)
    [(job, _)] = jobs("algo=gmpo", "model=gvp", f"env={cheetah.name}", "tuned=none")
    algorithm = assemble(job.config, cheetah.observation_size, *bounds).to(device)
    algorithm.policy.solver = SOLVERS.get(what)
    env = cheetah.simulate()
    env.reset(seed=0)

    def simulator():
        for _ in range(EPISODES * STEPS):
            env.step(bounds[0].numpy() / 2)

    def evaluation():
        rollout(cheetah, lambda seen: algorithm.act(seen.to(device), generator), EPISODES, 0)

    row(f"{EPISODES} episodes of {STEPS} steps", simulator if what == "simulator" else evaluation, 1)


def test_help(row):
    row(
        "genpolicy --help",
        lambda: subprocess.run([GENPOLICY, "--help"], capture_output=True),
        5,
    )


def test_first_update(row, tmp_path):
    numbers = itertools.count()

    def start():
        """A run of the default until the journal has its first update; the first one makes the data set, too."""
        outputs = tmp_path / str(next(numbers))
        words = [f"paths.outputs={outputs}", f"paths.data={tmp_path}", "algo=bc", "log_every=1", "eval.per_phase=1"]
        command = [GENPOLICY, *words, "tracking.uri=none", "algo.behaviour_steps=100000"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
            while not any("behaviour/loss" in path.read_text() for path in outputs.rglob("journal.jsonl")):
                assert run.poll() is None
                time.sleep(0.02)
            run.kill()

    row("start of a run to its first update", start, 3)
