"""Sweeps through the daemons of a one-machine SLURM: whatever happens to a job, its runs end as if nothing had.

`make test-slurm` starts SLURM, runs these tests and stops it.
"""

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from command_line import Result, genpolicy, last
from tiny import gaussian_words, only_run, plain_words, records, same

from genpolicy.runs import checkpoint
from genpolicy.runs.run import find_runs
from genpolicy.runs.state import read_status
from genpolicy.system.files import Lock
from genpolicy.system.squeue import alive

LAUNCH = ["-m", "hydra/launcher=slurm", "launch.gpus=0", "launch.cpus=1", "launch.memory=1"]
LONG = ["algo.policy_steps=500", "log_every=50", "checkpoint_seconds=0.5"]  # a second or two: time to be stopped
ONLINE = ["algo.critic_steps=50", "algo.policy_steps=50", "online.steps=600", "online.start=100"]
ONLINE += ["online.simulators=2", "online.offline_ratio=0.9", "online.offline_ratio_end=0.1"]
ODD = 'proj (copy), ä=$[x]\' "q" #z;\ttab !*?~'  # a folder's name
SLURM_DEV = Path(__file__).parents[2] / "launch" / "slurm-dev.sh"


def words(outputs: Path, *more: str) -> list[str]:
    return gaussian_words(outputs, *more)


def launch(outputs: Path, *more: str) -> Result:
    result = genpolicy(*LAUNCH, *words(outputs, *LONG, *more))
    assert result.code == 0, result.err
    return result


def wait_until(true: Callable[[], bool], seconds: float = 300, poll: float = 0.5) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, subprocess.run(["squeue"], capture_output=True, text=True).stdout
        time.sleep(poll)


def jobs(outputs: Path) -> list[str]:
    """The jobs that the runs of a folder were given to."""
    return [json.loads(path.read_text())["job"] for path in outputs.rglob("job.json")]


def settled(outputs: Path) -> bool:
    """Whether no job of the runs is left, and no run in anybody's hands."""
    gone = alive().keys().isdisjoint(jobs(outputs))
    return gone and all(read_status(run)["state"] != "running" for run in find_runs(outputs))


def trains(outputs: Path, phase: str) -> Callable[[], bool]:
    """Whether the one run of a folder is in a phase, which is its last one."""

    def check() -> bool:
        run = only_run(outputs)
        return (run / "journal.jsonl").exists() and f'"{phase}/' in (run / "journal.jsonl").read_text()

    return check


def job_of(run: Path) -> str:
    (job,) = jobs(run)
    return job


def scontrol(*command: str) -> str:
    return subprocess.run(["scontrol", *command], check=True, capture_output=True, text=True).stdout


def lives(run: Path) -> int:
    """How often the run was taken up."""
    return len(re.findall(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$", (run / "log.txt").read_text(), re.MULTILINE))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Path:
    """The run that all the others must equal."""
    return made_once(tmp_path_factory, "undisturbed")


def made_once(tmp_path_factory, name: str, *more: str) -> Path:
    """A run for all workers, the first of which makes it."""
    folder = common(tmp_path_factory)
    outputs = folder / name
    with Lock(folder / f"{name}.lock"):
        outputs.mkdir(exist_ok=True)
        assert genpolicy(*words(outputs, *LONG, *more)).code == 0  # the others find it finished
    return only_run(outputs)


@pytest.fixture
def gpus(tmp_path_factory):
    """The node's two GPUs, for one test at a time.

    A job that needs both preempts whatever holds one, and SLURM 22.05 counts one as held for ever if its controller is
    restarted while a requeued job waits for it: later jobs then fail at srun, or never start.
    """
    with Lock(common(tmp_path_factory) / "gpus.lock"):
        yield


def common(tmp_path_factory) -> Path:
    """The folder that all workers have in common."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture
def outputs(tmp_path):
    """A folder for runs; no job of them is left behind."""
    yield tmp_path
    if left := jobs(tmp_path):
        subprocess.run(["scancel", *left], check=False)
    wait_until(lambda: settled(tmp_path))


def assert_as_if_nothing_had_happened(run: Path, undisturbed: Path) -> None:
    assert read_status(run)["state"] == "finished"
    for name in ("last.pt", "best.pt"):
        assert same(checkpoint.load(run / name), checkpoint.load(undisturbed / name)), name
    assert records(run) == records(undisturbed)
    assert max(Counter((name, step) for name, step, _ in records(run)).values()) == 1


def disturbed_by(outputs: Path, disturb: Callable[[Path], None], *more: str, phase: str = "policy") -> Path:
    """The run of a job that something happened to in mid-run, in its last phase, when no job is left.

    It stands still until it is told, so that it cannot end before.
    """
    launch(outputs, *more)
    wait_until(trains(outputs, phase), poll=0.1)
    run = only_run(outputs)
    pid = read_status(run)["pid"]
    os.kill(pid, signal.SIGSTOP)
    assert read_status(run)["state"] == "running"
    disturb(run)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: settled(outputs))
    return run


def told(run: Path) -> bool:
    """Whether a signal waits for the run's process, which stands still, or it has moved or ended since."""
    try:
        facts = Path(f"/proc/{read_status(run)['pid']}/status").read_text()
    except FileNotFoundError:
        return True
    return not re.search(r"^State:\tT", facts, re.MULTILINE) or int(re.search(r"ShdPnd:\t(\w+)", facts)[1], 16) != 0


def signal_user(run: Path) -> None:
    subprocess.run(["scancel", "--signal=USR2", job_of(run)], check=True)
    wait_until(lambda: told(run), poll=0.1)


def test_the_users_signal_requeues_the_job(outputs, undisturbed):
    run = disturbed_by(outputs, signal_user)
    assert lives(run) == 2
    assert_as_if_nothing_had_happened(run, undisturbed)


def test_what_a_job_asks_for_is_what_slurm_was_told(gpus, outputs):
    asked = ["launch.gpus=null:1", "launch.constraint=dev", "launch.mail=root@localhost", "launch.time=0:45:00"]
    asked += ['launch.partition="low,high"', 'launch.srun=["--label"]']
    asked += ["launch.extra={nice:5,comment:two words,begin:now+1hour}"]  # in `high` it would preempt other tests' jobs
    launch(outputs, *asked)
    told = scontrol("show", "job", job_of(only_run(outputs)))
    facts = ["MailUser=root@localhost", "MailType=END,FAIL", "TimeLimit=00:45:00", "Nice=5", "Comment=two words"]
    for fact in [*facts, "Features=dev", "gres:gpu:null:1"]:
        assert fact in told, told
    refused = genpolicy(*LAUNCH, *words(outputs, "seed=1"), "launch.constraint=elsewhere")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert refused.err.startswith("genpolicy: sbatch refused the job: ")


def preempt(run: Path) -> None:
    """A job of the better partition that needs the GPUs."""
    better = ["sbatch", "--partition=high", "--gres=gpu:2", "--wrap=sleep 2", "--output=/dev/null"]
    subprocess.run(better, check=True, capture_output=True)
    wait_until(lambda: told(run), poll=0.1)


def test_preemption_requeues_the_job(gpus, outputs, undisturbed):
    run = disturbed_by(outputs, preempt, "launch.gpus=2")
    assert lives(run) == 2
    assert_as_if_nothing_had_happened(run, undisturbed)


def test_online_training_goes_on_when_the_job_is_requeued(gpus, outputs, tmp_path_factory):
    run = disturbed_by(outputs, preempt, *ONLINE, "launch.gpus=2", phase="online")
    assert lives(run) == 2
    assert_as_if_nothing_had_happened(run, made_once(tmp_path_factory, "undisturbed-online", *ONLINE))


def test_a_full_disk_loses_nothing(outputs, undisturbed):
    disk = outputs / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=True)
    try:
        run = disturbed_by(disk, lambda run: fill(disk / "filler"))
        assert read_status(run)["state"] in ("failed", "died")
        assert "JobState=FAILED" in scontrol("show", "job", job_of(run))
        checkpoint.load(run / "last.pt")
        (disk / "filler").unlink()
        launch(disk)
        wait_until(lambda: settled(disk))
        assert_as_if_nothing_had_happened(run, undisturbed)
    finally:
        subprocess.run(["umount", disk], check=True)


def fill(path: Path) -> None:
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))


def cancel(run: Path) -> None:
    subprocess.run(["scancel", job_of(run)], check=True)
    wait_until(lambda: told(run), poll=0.1)


def test_a_cancelled_job_saves_and_stays_away_and_the_same_command_goes_on(outputs, undisturbed):
    run = disturbed_by(outputs, cancel)
    assert lives(run) == 1
    assert read_status(run)["state"] == "interrupted"
    assert checkpoint.load(run / "last.pt")["state"]["updates"] > 120
    launch(outputs)
    wait_until(lambda: settled(outputs))
    assert_as_if_nothing_had_happened(run, undisturbed)


def test_a_killed_process_and_the_same_command_again(outputs, undisturbed):
    run = disturbed_by(outputs, lambda run: os.kill(read_status(run)["pid"], signal.SIGKILL))
    assert read_status(run)["state"] == "died"
    assert "JobState=FAILED" in scontrol("show", "job", job_of(run))
    result = genpolicy("mode=status", f"paths.outputs={outputs}")
    assert re.search(r" died +\d+ ", result.out)
    assert "1 of 1 to start: 1 died" in launch(outputs).out
    wait_until(lambda: settled(outputs))
    assert_as_if_nothing_had_happened(run, undisturbed)


def test_the_controller_may_be_restarted(gpus, outputs, undisturbed):
    run = disturbed_by(outputs, lambda run: subprocess.run([SLURM_DEV, "restart-controller"], check=True))
    assert lives(run) == 1
    assert_as_if_nothing_had_happened(run, undisturbed)


def test_a_run_that_fails_fails_its_job_and_is_not_requeued(outputs):
    launch(outputs, "algo.policy_lr=1e30")
    wait_until(lambda: settled(outputs))
    run = only_run(outputs)
    assert lives(run) == 1
    assert read_status(run)["reason"].startswith("policy/loss is nan")
    job = scontrol("show", "job", job_of(run))
    assert "JobState=FAILED" in job
    assert "ExitCode=1:0" in job
    assert "policy/loss is nan" in (run / "log.txt").read_text()
    result = genpolicy("mode=status", f"paths.outputs={outputs}")
    assert "policy/loss is nan at update" in result.out
    assert "1 of 1 to start: 1 failed" in launch(outputs, "algo.policy_lr=1e30").out


def test_what_runs_is_what_was_frozen(outputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "conf" / "experiment"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("# @package _global_\nalgo: {policy_steps: 60}\n")
    command = [*LAUNCH, *(word for word in words(outputs) if "policy_steps" not in word), "experiment=mine"]
    command.append("launch.parallel=1")  # so that the second job waits for the first
    assert genpolicy(*command, "seed=0,1").code == 0
    (own / "mine.yaml").write_text("broken: [")
    wait_until(lambda: settled(outputs))
    assert [read_status(run)["step"] for run in find_runs(outputs)] == [180, 180]


def test_four_runs_as_an_array_under_one_parent_and_two_commands_at_once(outputs):
    sweep = [*LAUNCH, *plain_words(outputs), "seed=0,1", "algo.behaviour_steps=100"]
    sweep[sweep.index("tracking.uri=none")] = "tracking.uri=null"
    sweep[sweep.index("algo=gmpo")] = "algo=gmpg,gmpg_matching"
    sweep[sweep.index("algo.policy_steps=250")] = "algo.policy_steps=5"
    sweep += ["algo.behaviour_batch_size=32", "phases.reuse=false"]
    assert genpolicy(*sweep, "launch.dry_run=true").out.count("job 3:") == 1
    assert list(find_runs(outputs)) == []
    command = [sys.executable, "-m", "genpolicy.app", *last(sweep)]
    twins = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = "".join(twin.communicate()[0] for twin in twins)
    assert [twin.returncode for twin in twins] == [0, 0]
    assert "4 of 4 to start" in said
    assert "0 of 4 to start" in said
    wait_until(lambda: settled(outputs))
    assert [read_status(run)["state"] for run in find_runs(outputs)] == ["finished"] * 4
    assert [lives(run) for run in find_runs(outputs)] == [1] * 4

    def shipped() -> list[tuple]:
        with contextlib.closing(sqlite3.connect(outputs / "mlflow.db")) as database:
            return database.execute(
                "SELECT runs.status, COUNT(DISTINCT tags.value), COUNT(*) FROM runs JOIN tags "
                "ON runs.run_uuid = tags.run_uuid AND tags.key = 'mlflow.parentRunId' GROUP BY runs.status"
            ).fetchall()

    wait_until(lambda: (outputs / "mlflow.db").exists() and shipped() == [("FINISHED", 1, 4)])
    with contextlib.closing(sqlite3.connect(outputs / "mlflow.db")) as database:
        told = dict(database.execute("SELECT value, run_uuid FROM tags WHERE key = 'genpolicy.job'"))
        logs = {Path(row[0]) for row in database.execute("SELECT value FROM tags WHERE key = 'genpolicy.log'")}
    assert sorted(told) == sorted(map(job_of, find_runs(outputs)))
    assert logs == {run / "log.txt" for run in find_runs(outputs)}


def test_several_runs_share_a_job(outputs):
    outputs /= ODD
    outputs.mkdir()
    command = [*LAUNCH, *words(outputs), "seed=range(3)", "launch.runs_per_gpu=2", "launch.cpus=2"]
    assert genpolicy(*command).code == 0
    assert sorted(Counter(map(job_of, find_runs(outputs))).values()) == [1, 2]
    wait_until(lambda: settled(outputs))
    assert [read_status(run)["state"] for run in find_runs(outputs)] == ["finished"] * 3


def test_a_request_that_the_cluster_cannot_meet_is_one_line(outputs):
    result = genpolicy(*LAUNCH, *words(outputs), "launch.memory=100000")
    assert result.code == 1
    assert result.err.startswith("genpolicy: sbatch refused the job: Memory specification can not be satisfied; ")
    assert result.err.count("\n") == 1
    assert "1 of 1 to start: 1 new" in launch(outputs).out
