"""A sweep whose runs share phases, as a graph of SLURM jobs: whatever happens to one of them."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
import pytest
from command_line import Result, genpolicy
from slurm_sweeps import LAUNCH, gpus, outputs, settled, wait_until  # noqa: F401
from tiny import plain_words as words
from tiny import same

from genpolicy.runs import checkpoint
from genpolicy.runs.run import find_runs, load_run
from genpolicy.runs.state import read_status
from genpolicy.system.files import is_locked
from genpolicy.system.squeue import alive

SWEEP = ["algo=gmpo,gmpg", "algo.beta=1,2", "model=vpsde", "objective=noise_prediction", "network=mlp"]
SWEEP += ["budget=0.01", "algo.policy_steps=4000", "algo.critic_steps=6000", "launch.gpus=1", "eval.final_episodes=2"]


def running(folder: Path) -> list[str]:
    """The SLURM jobs in which runs of a folder are trained just now."""
    states = [read_status(run) for run in find_runs(folder)]
    return [status["job"] for status in states if status["state"] == "running" and status.get("job")]


def gone(said: Result) -> bool:
    """Whether no job is left that a command has submitted: also those that only train a phase."""
    return _jobs(said).isdisjoint(job.partition("_")[0] for job in alive())


def _jobs(said: Result) -> set[str]:
    return set(re.findall(r"^submitted: (\d+)", said.out, re.MULTILINE))


@pytest.fixture
def submitted():
    """Commands whose jobs are cancelled at the end."""
    said: list[Result] = []
    yield said
    for each in said:
        subprocess.run(["scancel", *_jobs(each)], check=False)


def test_a_graph_of_jobs_in_which_a_phase_fails_and_a_node_is_preempted(gpus, outputs, submitted, tmp_path_factory):  # noqa: F811
    command = [*LAUNCH, *words(outputs, *SWEEP)]
    (outputs / "phases").write_text("in the way")
    said = genpolicy(*command)
    submitted.append(said)
    assert said.code == 0, said.err
    wait_until(lambda: gone(said) and not any(is_locked(run / "lock") for run in find_runs(outputs)))
    told = [read_status(run) for run in find_runs(outputs)]
    assert Counter(status["state"] for status in told) == {"failed": 4}
    reasons = [status["reason"] for status in told]
    assert all("phases: a file stands where a folder is needed" in reason for reason in reasons), reasons
    assert sum("phase failed in" in reason for reason in reasons) >= 2  # all but those that train a phase for others
    (outputs / "phases").unlink()

    said = genpolicy(*command)
    submitted.append(said)
    assert said.code == 0, said.err
    wait_until(lambda: bool(running(outputs)), poll=0.1)
    better = ["sbatch", "--partition=high", "--gres=gpu:2", "--wrap=sleep 2", "--output=/dev/null"]
    subprocess.run(better, check=True, capture_output=True)
    wait_until(lambda: gone(said) and settled(outputs), seconds=600)
    told = {run: read_status(run) for run in find_runs(outputs)}
    assert Counter(status["state"] for status in told.values()) == {"finished": 4}, told
    trained = Counter(
        fact["key"] for status in told.values() for fact in status["phases"].values() if not fact["reused"]
    )
    # A critic of GMPO and GMPG, and a behaviour model of GMPG.
    assert len(trained) == len(list(outputs.glob("phases/*/phase.json"))) == 2
    assert set(trained.values()) == {1}

    alone = tmp_path_factory.mktemp("alone")
    one = [word for word in words(alone, *SWEEP, "algo=gmpg", "algo.beta=2") if not word.startswith("launch")]
    assert genpolicy(*one, "phases.reuse=false").code == 0
    (expected,) = find_runs(alone)
    gmpg = [run for run in told if run.parent.name.startswith("gmpg-")]
    (found,) = [run for run in gmpg if load_run(run).config.algo.beta == 2]
    assert same(checkpoint.load(found / "policy.pt"), checkpoint.load(expected / "policy.pt"))
    assert json.loads((found / "status.json").read_text())["phases"].keys() == {"behaviour", "critic"}
