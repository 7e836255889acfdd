"""Sweeps given to launchers: what is started, what is left alone, and how they are shown."""

import io
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from command_line import genpolicy, jobs
from patience import PATIENCE
from rich.console import Console
from tiny import ended, gaussian_words, opened, records, words

from genpolicy import app
from genpolicy.config import sbatch
from genpolicy.errors import UserError
from genpolicy.launch import local, pool, slurm, sweep
from genpolicy.modes import status as status_mode
from genpolicy.runs.run import find_runs
from genpolicy.runs.state import RunState, launching, read_status, run_state
from genpolicy.system import files, forecast, squeue
from genpolicy.system.files import last_line

LOCAL = ["-m", "hydra/launcher=local", "launch.parallel=2"]


def test_two_commands_of_one_search_note_the_runs_of_both(tmp_path):
    found = [jobs("algo=bc", "env=multi-goal", f"seed={seed}", f"paths.outputs={tmp_path}")[0][0] for seed in (1, 2)]
    mine, other = (sweep.Sweep.of([job], "search (0a0a0a0a)") for job in found)
    mine.save()
    other.save()
    assert {*sweep.Sweep(tmp_path, "default", "0a0a0a0a").runs} == {job.directories[0] for job in found}
    found[0].config.seeds = [0, 1]  # as a file of options may say
    with pytest.raises(UserError, match=r"seeds=\[0, 1\]: trains in this process; with another launcher or sweeper"):
        sweep.common_launch(found)


def test_a_run_that_another_process_trains_is_not_said_to_be_finished(tmp_path, monkeypatch, capsys):
    found = [job for job, _ in jobs("-m", "hydra/launcher=local", *words(tmp_path), "seed=0,1")]
    monkeypatch.setattr(pool.process, "start", lambda *_, **__: subprocess.Popen(["true"]))
    local.launch(found)
    assert capsys.readouterr().out.count("left to another process, which trains it") == 2


def test_who_looks_whether_a_sweep_waits_does_not_keep_it_from_saying_so(tmp_path, monkeypatch):
    """`is_locked` takes the lock for a blink."""
    found, real = sweep.Sweep(tmp_path, "default", "0a0a0a0a"), files.fcntl.flock
    found.directory.mkdir(parents=True)

    def looked_at(*_):
        monkeypatch.setattr(files.fcntl, "flock", real)
        raise BlockingIOError

    monkeypatch.setattr(files.fcntl, "flock", looked_at)
    with found.in_progress():
        assert launching(tmp_path)


def test_on_a_narrow_terminal_names_of_runs_are_folded_and_nothing_is_lost(tmp_path):
    name, status = "gmpg-gvp-b7e3380c ogbench-cube-double-play s0", {"step": 1234, "steps": 12340}
    state = RunState(tmp_path, "failed", "123456_7", False, status | {"reason": "the disk is full"})
    console = Console(width=80, file=io.StringIO())
    console.print(status_mode.table([state], {tmp_path: name}))
    words = console.file.getvalue().split()
    for word in ("failed", "123456_7", "1,234", "12,340", "s0"):
        assert word in words, words


def test_a_sweep_is_named_by_what_varies():
    def named(*rows, study="default"):
        config = SimpleNamespace(study=study)
        return sweep.sweep_name([SimpleNamespace(config=config, overrides=row.split()) for row in rows])

    rows = [f"env=swiss-roll algo={algo} seed={seed}" for algo in ("bc", "gmpo") for seed in (0, 1)]
    name = named(*rows)
    assert re.fullmatch(r"algo=bc,gmpo seed=0,1 \([0-9a-f]{8}\)", name)
    assert named(*rows, study="other") != name
    assert named(*reversed(rows)) == name
    assert named(*(f"seed={seed}" for seed in range(200))).startswith("seed=0,1,2,...,199 (")
    assert named(*(f"{row} launch.gpus=0 cluster=mine tracking.uri=none overwrite=true" for row in rows)) == name
    assert named(*(f"{row} algo.beta=3" for row in rows)) != name


def test_how_runs_stand(tmp_path):
    run = opened(tmp_path)
    path = run.directory

    def state(**alive):
        found = run_state(path, lambda: {name.lstrip("j"): value for name, value in alive.items()})
        return found.state, found.busy

    run.close()
    assert run_state(path, lambda: pytest.fail("asked SLURM about a run that it never had")).state == "new"
    (path / "job.json").write_text('{"job": "7_1"}')
    assert state() == ("new", False)
    assert state(j7_2="RUNNING") == ("new", False)
    assert state(j7_1="PENDING (Priority)") == ("waiting", True)
    run._lock.acquire()
    with run.recorded(step=3):
        assert state() == state(j7_1="RUNNING") == ("running", True)
    assert state() == ("finished", False)
    run.note(state="running")
    run.close()
    assert state() == ("died", False)
    assert state(j7_1="PENDING (BeginTime)") == ("waiting", True)  # requeued after a node has failed
    assert state(j7_1="COMPLETING") == ("died", False)
    run.note(state="failed", job="7_1")
    assert state(j7_1="RUNNING") == ("failed", False)  # others in its job go on
    run.note(state="interrupted")
    assert state(j7_1="COMPLETING") == ("waiting", True)  # on its way back into the queue
    assert state() == ("interrupted", False)


def told(result):
    """The lines of a sweep, but for how far its check is, which is said on a slow machine."""
    return [line for line in result.out.splitlines() if not line.startswith("checked ")]


RATES = "algo.policy_lr=0.001,1e+30"  # the second one is far too large


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A run that works and one that fails, side by side."""
    outputs = tmp_path_factory.mktemp("two")
    return outputs, genpolicy(*LOCAL, *gaussian_words(outputs, RATES))


@pytest.mark.slow
def test_local_runs_side_by_side(two, tmp_path):
    outputs, result = two
    assert result.code == 1
    lines = told(result)
    assert lines[0].endswith("2 of 2 to start: 2 new")
    assert lines[1].startswith("at most 2 at once; watch: genpolicy mode=status")
    assert lines[2].endswith(": critic phase trained")
    assert {line[:8] for line in lines[3:]} == {"1 of 2: ", "2 of 2: "}
    good, bad = sorted(line[8:] for line in lines[3:])
    assert good.startswith("algo.policy_lr=0.001: finished")
    assert bad.startswith("algo.policy_lr=1e+30: genpolicy: policy/loss is nan at update")
    assert result.err.startswith("genpolicy: 1 of 2 runs failed: ")
    assert result.err.count("\n") == 1
    assert genpolicy(*gaussian_words(tmp_path, "algo.policy_lr=0.001")).code == 0
    (alone,) = find_runs(tmp_path)
    (beside,) = [run for run in find_runs(outputs) if read_status(run)["state"] == "finished"]
    assert records(alone) == records(beside)


@pytest.mark.slow
def test_the_same_sweep_again_starts_what_is_missing(two, tmp_path):
    outputs = tmp_path / "copy"
    shutil.copytree(two[0], outputs)
    command = [*LOCAL, *gaussian_words(two[0], RATES), f"paths.outputs={outputs}"]
    result = genpolicy(*command, "launch.dry_run=true")
    assert result.code == 0
    assert told(result)[0].endswith("1 of 2 to start: 1 failed")
    assert told(result)[1:] == [
        "left alone: 1",
        "  algo.policy_lr=0.001: finished",
        "  algo.policy_lr=1e+30",
    ]
    assert "2 of 2 to start" in genpolicy(*command, "launch.dry_run=true", "overwrite=true").out
    done = genpolicy(*LOCAL, *gaussian_words(two[0], "algo.policy_lr=0.001"), f"paths.outputs={outputs}")
    assert (done.code, done.err) == (0, "")
    assert "0 of 1 to start" in done.out


def test_a_sweep_in_this_process_says_when_it_will_have_ended(tmp_path, monkeypatch):
    now = SimpleNamespace(seconds=0.0)

    def start(job, sweep):
        if job.config.seed != 1:  # that one has finished already
            now.seconds += 60

    monkeypatch.setattr(forecast, "now", lambda: now.seconds)
    monkeypatch.setattr(app, "start", start)
    ended(tmp_path, "seed=1")
    result = genpolicy("-m", *words(tmp_path, "seed=0,1,2,3"))
    assert (result.code, result.err) == (0, "")
    first, *others = result.out.splitlines()
    assert first == "job 1 of 4: seed=0"  # nothing is known yet
    assert others == [
        "job 2 of 4: seed=1, about 0:02:00 left",
        "job 3 of 4: seed=2, about 0:02:00 left",
        "job 4 of 4: seed=3, about 0:01:00 left",
    ]


def test_local_runs_say_when_all_will_have_ended(tmp_path, monkeypatch):
    """Four runs on two slots, each of which takes a minute by the clock of the pool."""
    now = SimpleNamespace(seconds=0.0)

    def sleep(seconds):
        now.seconds += 60

    monkeypatch.setattr(pool, "time", SimpleNamespace(monotonic=lambda: now.seconds, sleep=sleep))
    process = SimpleNamespace(poll=lambda: 0, send_signal=lambda number: None)
    monkeypatch.setattr(pool.process, "start", lambda *_, **__: process)
    monkeypatch.setattr(local, "known_status", lambda run: {"state": "finished"})
    monkeypatch.setattr(local.sync, "start_follower", lambda config: None)
    result = genpolicy(*LOCAL, *words(tmp_path, "seed=0,1,2,3"))
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[-4:] == [
        "1 of 4: seed=0: finished, about 0:01:00 left",
        "2 of 4: seed=1: finished, about 0:01:00 left",
        "3 of 4: seed=2: finished",
        "4 of 4: seed=3: finished",
    ]


@pytest.mark.slow
def test_status_shows_a_study_or_a_sweep(two):
    outputs, result = two
    (digits,) = re.findall(r"sweep=([0-9a-f]{8})", result.out)
    shown = genpolicy("mode=status", f"paths.outputs={outputs}", f"sweep={digits}").out
    good, bad = [line for line in shown.splitlines() if "algo.policy_lr=" in line]
    assert re.search(r"finished +370 of 370 \(100%\) +return -?\d", good)
    assert re.search(r"failed .*policy/loss is nan at update", bad)
    assert "2 runs: 1 finished, 1 failed" in shown
    assert genpolicy("mode=status", f"paths.outputs={outputs}").out.count("gym s") == 2
    other = genpolicy("mode=status", f"paths.outputs={outputs}", "sweep=12345678")
    assert (other.code, other.err) == (1, f"genpolicy: sweep=12345678: not in study=default; known: {digits}\n")
    assert "no runs there" in genpolicy("mode=status", f"paths.outputs={outputs}", "study=other").err


@pytest.mark.slow
def test_a_signal_to_the_launcher_saves_and_stops_all_its_runs(tmp_path):
    long = ["algo.policy_steps=200000", "log_every=100", "checkpoint_seconds=1000"]
    command = [sys.executable, "-m", "genpolicy.app", *LOCAL, *gaussian_words(tmp_path, "seed=0,1,2", *long)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def training():
        logs = [path / "journal.jsonl" for path in find_runs(tmp_path)]
        return sum(log.exists() and "policy/loss" in log.read_text() for log in logs) == 2

    while not training():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGINT
    assert "the same command resumes it" in out
    states = [read_status(run) for run in find_runs(tmp_path)]
    assert sorted(state["state"] for state in states) == ["interrupted", "interrupted", "queued"]
    assert all(state["step"] > 120 for state in states if state["state"] == "interrupted")


def test_slots_are_dealt_out_over_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert pool.visible_gpus() == ["0", "3"]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in pool.slots(["0", "3"], 4)] == ["0", "3", "0", "3"]
    for hidden in ("", "-1", "-1,0"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert pool.visible_gpus() == []
    assert pool.slots([], 2) == [{}, {}]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    listed = (
        "GPU 0: NVIDIA H200 (UUID: GPU-5d)\n"
        "GPU 1: NVIDIA H200 (UUID: GPU-7c)\n"
        "  MIG 3g.71gb     Device  0: (UUID: MIG-a1)\n"
        "  MIG 3g.71gb     Device  1: (UUID: MIG-b2)\n"
    )
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=listed))
    assert pool.visible_gpus() == ["0", "MIG-a1", "MIG-b2"]


def test_as_many_runs_at_once_as_there_are_cores_to_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 6}, raising=False)
    settings = SimpleNamespace(parallel=0, runs_per_gpu=2)
    assert local._at_once(settings, []) == 3
    assert local._at_once(settings, ["0", "1"]) == 4
    assert local._at_once(SimpleNamespace(parallel=7), []) == 7


def test_slurms_signal_waits_until_the_job_listens(tmp_path):
    late = tmp_path / "late.py"
    late.write_text(
        "import signal, sys, time\n"
        "print('begun', flush=True)\n"
        "time.sleep(0.5)\n"
        "signal.signal(signal.SIGUSR2, lambda *_: print('heard', sys.argv[1]))\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])\n"
    )
    command = f"exec {slurm.PATIENT_PYTHON} -u {late} 'two words'"
    with subprocess.Popen(["bash", "-c", command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGUSR2)
        assert process.stdout.read() == "heard two words\n"
    assert process.returncode == 0


@pytest.mark.parametrize(("code", "interrupted"), [(0, False), (1, False), (-9, False), (143, True), (-12, True)])
def test_what_an_exit_code_means(code, interrupted):
    assert pool.was_interrupted(code) == interrupted


def test_a_run_in_other_hands_is_left_to_them(tmp_path, monkeypatch):
    from genpolicy.launch import worker

    run = opened(tmp_path)
    monkeypatch.setattr(worker, "PATIENCE_SECONDS", 0.1)
    before = run.path("config.yaml").read_bytes()
    worker.main(run.directory)  # neither waits for ever nor fails
    run.close()
    assert run.path("config.yaml").read_bytes() == before
    assert not run.path("status.json").exists()


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Commands that stand in for SLURM's, with arrays of three jobs at the most; what they were asked for."""
    scripts = {
        "sbatch": 'echo "$@" >> asked; cat "${@: -1}" >> scripts; echo Submitted batch job $((40 + $(wc -l < asked)))',
        "srun": "",
        "squeue": "",
        "scontrol": 'echo "MaxArraySize            = 3"',
    }
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in scripts.items():
        path = folder / name
        path.write_text(f"#!/usr/bin/env bash\ncd {tmp_path}\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    squeue.max_array.cache_clear()
    yield tmp_path
    squeue.max_array.cache_clear()


SLURM = ["-m", "hydra/launcher=slurm", "seed=range(8)"]


def test_arrays_are_no_longer_than_the_cluster_allows(cluster):
    outputs = cluster / "outputs"
    assert genpolicy(*SLURM, *words(outputs), "launch.partition=best", "launch.parallel=2").code == 0
    given = sorted(json.loads((run / "job.json").read_text())["job"] for run in find_runs(outputs))
    assert given == [*(f"4{chunk}_{task}" for chunk in (1, 2) for task in range(3)), "43_0", "43_1"]
    script = (cluster / "scripts").read_text()
    assert re.findall(r"--array=0-(\d)%(\d)", script) == [("2", "2"), ("2", "2"), ("1", "2")]
    assert script.count("--partition=best") == 3
    assert script.count("--gpus-per-node=1") == 3
    assert script.count("--cpus-per-task=4 ") == 3  # of srun, too


def test_runs_share_jobs(cluster):
    outputs = cluster / "outputs"
    shared = ["launch.runs_per_gpu=2", "launch.gpus=2"]
    shown = genpolicy(*SLURM, *words(outputs), *shared, "launch.dry_run=true")
    assert "job 0: seed=0, seed=1, seed=2, seed=3\njob 1: seed=4" in shown.out
    assert "#SBATCH --array=0-1%2" in shown.out
    assert not outputs.exists()
    assert not (cluster / "asked").exists()
    assert genpolicy(*SLURM, *words(outputs), *shared).code == 0
    given = [json.loads((run / "job.json").read_text())["job"] for run in find_runs(outputs)]
    assert given == ["41_0"] * 4 + ["41_1"] * 4


JOBS = {
    "launch.gpus=a100:1": "gpus-per-node=a100:1",
    'launch.partition="gpu,preempt"': "partition=gpu,preempt",
    'launch.constraint="a100|h100"': "constraint='a100|h100'",
    'launch.exclude="node[1-3]"': "exclude='node[1-3]'",
    "launch.mail=me@site.org": "mail-user=me@site.org",
    "launch.time=1-2:00": "time=1560",
    "launch.extra={reservation:night,nice:100,exclusive:true}": "reservation=night",
    "launch.extra.comment=two": "comment=two",
}


def test_a_dry_run_needs_no_cluster_and_shows_all_that_a_job_asks_for(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    container = 'launch.srun=["--container-image=nvcr.io#a/b"]'
    outputs = tmp_path / "outputs"
    shown = genpolicy(*SLURM[:2], *words(outputs, "seed=0,1"), *JOBS, container, "launch.dry_run=true")
    assert (shown.code, shown.err) == (0, "")
    asked = {line.removeprefix("#SBATCH --") for line in shown.out.splitlines() if line.startswith("#SBATCH")}
    assert {*JOBS.values(), "nice=100", "exclusive", "mail-type=END,FAIL"} <= asked
    assert {"qos", "account"}.isdisjoint(line.partition("=")[0] for line in asked)
    (command,) = [line for line in shown.out.splitlines() if line.startswith("srun ")]
    assert " --cpus-per-task=4 '--container-image=nvcr.io#a/b' " in command
    assert not outputs.exists()


def test_gpus_of_a_type_are_shared_like_others(cluster):
    shared = ["launch.runs_per_gpu=2", "launch.gpus=a100:2", "launch.dry_run=true"]
    shown = genpolicy(*SLURM, *words(cluster / "outputs"), *shared)
    assert "job 0: seed=0, seed=1, seed=2, seed=3\njob 1: seed=4" in shown.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("launch.gpus=a100", "launch.gpus=a100: must be a number, or a type and a number as in launch.gpus=a100:1"),
        ("launch.gpus=-1", "launch.gpus=-1: must be a number"),
        ("launch.partition=gpu,preempt", "one value with commas is written 'launch.partition=\"gpu,preempt\"'"),
        ("launch.partition=", "launch.partition='': must be a text of one line"),
        ("launch.time=soon", "launch.time=soon: not a time of SLURM's, such as 90, 12:00:00 or 1-12"),
        ("launch.extra={gpus:1}", "launch.extra.gpus: write it as launch.gpus"),
        ("launch.extra={job-name:x}", "launch.extra.job-name: genpolicy sets this itself"),
        ("launch.extra={Nice:1}", "launch.extra.Nice: the name of an option has small letters and hyphens only"),
        ("launch.extra={nice:[1]}", "launch.extra.nice: must be a text, a number, true"),
        ('launch.srun=["--cpus-per-task=3"]', "launch.srun: --cpus-per-task=3: write it as launch.cpus"),
        ("launch.srun=[container]", "launch.srun: 'container' must be an option such as --container-image=<image>"),
    ],
)
def test_what_slurm_would_not_take_is_refused_by_name(word, reason, tmp_path):
    result = genpolicy(*SLURM[:2], *words(tmp_path / "outputs", "launch.dry_run=true", word))
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert reason in result.err
    assert not list(tmp_path.iterdir())


def test_a_profile_cannot_write_lines_into_the_script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    profile = tmp_path / "conf" / "cluster" / "mine.yaml"
    profile.parent.mkdir(parents=True)
    for lines in ('account: "a\\n#SBATCH --wrap=x"', 'extra: {comment: "a\\nreboot"}', 'srun: ["--x=a\\nreboot"]'):
        profile.write_text(f"# @package launch\n# Mine\n{lines}\n")
        result = genpolicy(*SLURM[:2], *words(tmp_path / "outputs", "launch.dry_run=true", "cluster=mine"))
        assert (result.code, result.err.count("\n")) == (1, 1)
        assert "must be a text of one line" in result.err


@pytest.mark.parametrize(
    ("time", "minutes"),
    [
        ("90", 90),
        ("90:30", 91),
        ("2:00:00", 120),
        ("0:00:01", 1),
        ("1-12", 2160),
        ("1-2:03", 1563),
        ("1-2:03:04", 1564),
    ],
)
def test_times_of_slurm(time, minutes):
    assert sbatch.minutes(time) == minutes


def test_what_a_launcher_cannot_do_is_one_line(tmp_path, monkeypatch):
    tiny = words(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    for command, reason in [
        ([*LOCAL[:1], "hydra/launcher=slurm", *tiny], "there is no srun here"),
        (["hydra/launcher=slurm", *tiny], "starts the jobs of a sweep, which may be one; add -m"),
        (["launch.gpus=2", *tiny], "launch.gpus=2: goes with hydra/launcher=slurm or hydra/launcher=local"),
        (["cluster=example", *tiny], "cluster=example: goes with hydra/launcher=slurm"),
        ([*LOCAL, *tiny, "study=a,b"], "study: must be the same for all jobs of a sweep"),
        ([*LOCAL, *tiny, "launch.minutes=1"], "launch.grace_seconds=120: at most half of launch.minutes=1"),
        ([*LOCAL, "mode=sync"], "hydra/launcher: is for training runs"),
        (["sweep=12345678", *tiny], "goes with mode=status or mode=report"),
        (["sweep=../../..", "mode=status"], "must be the eight hexadecimal digits"),
    ]:
        result = genpolicy(*command)
        assert (result.code, result.err.count("\n")) == (1, 1), command
        assert reason in result.err


def test_the_last_line_of_a_log(tmp_path):
    log = tmp_path / "log.txt"
    assert last_line(log) == ""
    log.write_bytes(b"x" * 10_000 + b"\nthe reason\n\n  \n")
    assert last_line(log) == "the reason"
