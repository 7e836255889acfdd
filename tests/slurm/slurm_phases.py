"""A sweep whose runs share phases, as a graph of SLURM jobs: whatever happens to one of them."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from command_line import genpolicy
from slurm_sweeps import LAUNCH, outputs, settled, wait_until  # noqa: F401
from tiny import plain_words as words
from tiny import same

from genpolicy.runs import checkpoint
from genpolicy.runs.run import find_runs
from genpolicy.runs.state import read_status
from genpolicy.system.files import is_locked
from genpolicy.system.squeue import alive

SWEEP = ["algo=gmpo,gmpg,srpo", "algo.beta=1,2", "seed=0,1", "model=vpsde", "objective=noise_prediction", "network=mlp"]
SWEEP += ["algo.policy_steps=40", "algo.critic_steps=60", "launch.gpus=1", "eval.final_episodes=2"]


def running(folder: Path) -> list[str]:
    """The SLURM jobs in which runs of a folder are trained just now."""
    states = [read_status(run) for run in find_runs(folder)]
    return [status["job"] for status in states if status["state"] == "running" and status.get("job")]


def test_a_graph_of_jobs_in_which_a_phase_fails_and_a_node_is_preempted(outputs, tmp_path_factory):  # noqa: F811
    command = [*LAUNCH, *words(outputs, *SWEEP)]
    (outputs / "phases").write_text("in the way")
    assert genpolicy(*command).code == 0
    wait_until(lambda: settled(outputs) and not any(is_locked(run / "lock") for run in find_runs(outputs)))
    told = [read_status(run) for run in find_runs(outputs)]
    assert Counter(status["state"] for status in told) == {"failed": 12}
    reasons = [status["reason"] for status in told]
    assert all("phases: a file stands where a folder is needed" in reason for reason in reasons), reasons
    assert sum("phase failed in" in reason for reason in reasons) >= 8  # all but those that train a phase for others
    (outputs / "phases").unlink()

    assert genpolicy(*command).code == 0
    wait_until(lambda: bool(running(outputs)), poll=0.1)
    better = ["sbatch", "--partition=high", "--gres=gpu:2", "--wrap=sleep 2", "--output=/dev/null"]
    subprocess.run(better, check=True, capture_output=True)
    wait_until(lambda: settled(outputs) and not alive())
    told = {run: read_status(run) for run in find_runs(outputs)}
    assert Counter(status["state"] for status in told.values()) == {"finished": 12}, told
    trained = Counter(
        fact["key"] for status in told.values() for fact in status["phases"].values() if not fact["reused"]
    )
    assert (
        len(trained) == len(list(outputs.glob("phases/*/phase.json"))) == 6
    )  # two critics, twice two behaviour models
    assert set(trained.values()) == {1}

    alone = tmp_path_factory.mktemp("alone")
    one = [word for word in words(alone, *SWEEP, "algo=gmpg", "algo.beta=2", "seed=1") if not word.startswith("launch")]
    assert genpolicy(*one, "phases.reuse=false").code == 0
    (expected,) = find_runs(alone)
    ((found,),) = [[run for run in told if run.relative_to(outputs) == expected.relative_to(alone)]]
    assert same(checkpoint.load(found / "policy.pt"), checkpoint.load(expected / "policy.pt"))
    assert json.loads((found / "status.json").read_text())["phases"].keys() == {"behaviour", "critic"}
