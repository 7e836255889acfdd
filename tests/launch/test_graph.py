"""Sweeps as graphs: each phase that runs share is trained once, before what needs it."""

import contextlib
import json
import subprocess
from collections import Counter

import pytest
from command_line import genpolicy, jobs
from tiny import ended, gaussian_words, opened
from tiny import plain_words as words

from genpolicy.errors import UserError
from genpolicy.launch import local, pool, slurm
from genpolicy.launch.graph import Task, dependents, drawing, tasks, tell
from genpolicy.runs.run import claim_run, find_runs
from genpolicy.runs.state import known_status

SWEEP = ("-m", "algo=gmpo,gmpg,srpo", "algo.beta=1,2", "seed=0,1", "env=multi-goal", "model=vpsde", "tuned=none")
SWEEP += ("objective=noise_prediction", "network=mlp")
ODD = ("-m", "algo=idql,bc,sfbc,dtql", "seed=0,1", "budget=0.1", "tuned=none", "env=multi-goal", "network=mlp")


OWN = (*SWEEP[:1], "algo=gmpg,bc", *SWEEP[3:], "algo.behaviour_lr=1e-4")
PARTS = (*ODD, "observation_parts=[],[2]")


@pytest.mark.parametrize(
    "sweep", [SWEEP, ODD, OWN, PARTS, (*SWEEP, "phases.reuse=false")], ids=["beta", "odd", "own", "parts", "alone"]
)
def test_each_shared_phase_is_one_task_before_all_that_need_it(sweep):
    found = [job for job, _ in jobs(*sweep)]
    runs = {job.directories[0]: job.config for job in found}
    todo = tasks(runs)
    assert [task.run for task in todo if task.until is None] == list(runs)
    for number, task in enumerate(todo):
        assert all(before in todo[:number] for before in task.after)
    leading = [task for task in todo if task.until]
    for task in leading:
        behind = {other.run for other in todo if other.until is None and _after(other, task)}
        assert task.run in behind
        assert {*dependents(task, todo)} == behind - {task.run}
    lines = drawing(todo, {run: run.name for run in runs})
    assert len(lines) == (1 + len(todo) if leading else 0)
    if sweep == SWEEP:  # of each seed: GMPG's behaviour model and the critic of all; SRPO's behaviour model
        assert Counter((task.until, task.run.parent.name.partition("-")[0]) for task in leading) == {
            ("critic", "gmpg"): 2,
            ("behaviour", "srpo"): 2,
        }
        assert all(not task.after for task in leading)
        assert Counter(len(task.after) for task in todo if task.until is None) == {1: 8, 2: 4}
    if sweep == OWN:  # whose policy is evaluated meanwhile
        assert {(task.until, task.run.parent.name.partition("-")[0]) for task in leading} == {("behaviour", "bc")}
    if "phases.reuse=false" in sweep:
        assert not leading


def test_a_run_that_waited_in_vain_keeps_its_phases_and_a_finished_one_its_results(tmp_path):
    phase = {"critic": {"key": "0a", "run": "gmpo-gvp-0a swiss-roll s0", "reused": True, "seconds": 1.0}}
    waiting, finished = opened(tmp_path, "seed=1"), ended(tmp_path, "seed=2")
    with pytest.raises(KeyboardInterrupt), waiting.recorded(phases=phase):
        raise KeyboardInterrupt
    waiting.close()
    before = finished.status()
    tell(Task(tmp_path / "swiss-roll/gmpo-gvp-0a/seed0", "policy"), [waiting.directory, finished.directory])
    assert waiting.status()["state"] == "failed"
    assert waiting.status()["phases"] == phase
    assert finished.status() == before
    assert not [task for task in tasks({run.directory: run.config for run in (waiting, finished)}) if task.until]


@pytest.mark.parametrize(
    ("code", "told"),
    [(1, "the behaviour phase failed in"), (143, "not started, as a phase that it waits for was stopped")],
)
def test_of_two_phases_that_a_run_waits_for_one_fails_while_the_other_is_trained(
    tmp_path, monkeypatch, capsys, code, told
):
    """What the launcher says of it does not take the others along."""
    seeds = [job for job, _ in jobs("-m", "hydra/launcher=local", *words(tmp_path), "seed=0,1,2")]
    first, second, third = (job.directories[0] for job in seeds)
    good, bad = Task(first, "critic"), Task(second, "behaviour")
    todo = [good, bad, Task(third, None, (good, bad))]
    codes = {good: "sleep 0.6", bad: f"exit {code}"}

    def start(_module, *words, **_):
        return subprocess.Popen(["sh", "-c", next(how for task, how in codes.items() if task.words == [*words])])

    monkeypatch.setattr(local, "tasks", lambda _: todo)
    monkeypatch.setattr(pool.process, "start", start)
    with pytest.raises(UserError, match="1 of 3 runs failed"):
        local.launch(seeds)
    said = capsys.readouterr().out
    assert "seed=0: critic phase trained" in said
    assert f"seed=2: {told}" in said


class SharedJob:
    """A job that trains the critics of seeds 0 and 1, of which the second fails; and what SLURM would tell of it."""

    def __init__(self, folder, monkeypatch):
        opened_runs = [opened(folder, f"seed={seed}") for seed in range(4)]
        for run in opened_runs:
            run.close()
        self.runs = [run.directory for run in opened_runs]
        phases = [Task(run, "critic") for run in self.runs[:2]]
        ends = [Task(run, None, tuple(phases)[number % 2 :][:1]) for number, run in enumerate(self.runs)]
        self.given, self.ends = ({task: dependents(task, [*phases, *ends]) for task in part} for part in (phases, ends))
        self.started, self.codes = [], {tuple(phases[1].words): "exit 1"}
        monkeypatch.setattr(slurm, "ask", lambda *command: "")
        monkeypatch.setattr(slurm, "state", lambda job: "RUNNING")
        monkeypatch.setattr(slurm, "slurm_job", lambda: "7")
        monkeypatch.setattr(pool.process, "start", self.start)

    def start(self, _module, *words, **_):
        self.started.append(words)
        return subprocess.Popen(["sh", "-c", self.codes.get(words, "exit 0")])

    def states(self):
        return [known_status(run)["state"] for run in self.runs]


def test_of_phases_in_one_job_one_fails_and_takes_only_those_along_that_need_it(tmp_path, monkeypatch):
    job = SharedJob(tmp_path, monkeypatch)
    with contextlib.closing(claim_run(job.runs[1], timeout=1.0)) as run:
        run.fail("critic/loss is nan")
    slurm.Work()(job.given)  # ends well, as other jobs wait for its success
    assert job.states() == ["queued", "failed", "queued", "failed"]
    assert known_status(job.runs[3])["reason"].endswith(": critic/loss is nan")
    job.started.clear()
    with pytest.raises(UserError, match="2 of 4 runs did not finish"):
        slurm.Work()(job.ends)
    assert job.started == [(str(job.runs[0]),), (str(job.runs[2]),)]
    assert known_status(job.runs[3])["reason"].endswith(": critic/loss is nan")
    job.codes = dict.fromkeys((tuple(task.words) for task in job.given), "exit 1")
    with pytest.raises(UserError, match="2 of 2 runs did not finish"):
        slurm.Work()(job.given)


def test_what_has_failed_is_not_tried_again_by_the_requeued_job(tmp_path, monkeypatch):
    job = SharedJob(tmp_path, monkeypatch)
    job.given = {Task(run): [] for run in job.runs[:2]}
    job.codes = {(str(job.runs[0]),): "kill -TERM $$", (str(job.runs[1]),): "exit 1"}
    requeued = []
    monkeypatch.setattr(slurm.signal, "raise_signal", lambda _: requeued.append(work.checkpoint(job.given)))
    work = slurm.Work()
    with pytest.raises(UserError, match="2 of 2"):  # where SLURM would have ended the process before
        work(job.given)
    job.started.clear()
    job.codes = {}
    (again,) = requeued
    with pytest.raises(UserError, match="1 of 2 runs did not finish"):
        again.function(*again.args)
    assert job.started == [(str(job.runs[0]),)]


def _after(task, other) -> bool:
    return any(before == other or _after(before, other) for before in task.after)


@pytest.mark.slow
def test_a_sweep_on_this_machine_trains_each_phase_once_and_tells_why_none_can(tmp_path):
    steps = ["algo.critic_steps=20", "algo.policy_steps=10", "launch.parallel=2"]
    command = ["-m", "hydra/launcher=local", *gaussian_words(tmp_path, *steps), "algo.beta=1,2,3"]
    (tmp_path / "phases").write_text("in the way")
    failed = genpolicy(*command)
    assert failed.code == 1
    reasons = [json.loads((run / "status.json").read_text())["reason"] for run in find_runs(tmp_path)]
    assert sum("the critic phase failed in gmpo-gaussian-" in reason for reason in reasons) == 2
    assert all("phases: a file stands where a folder is needed" in reason for reason in reasons)
    assert failed.out.count("the critic phase failed in") == 2
    (tmp_path / "phases").unlink()
    drawn = genpolicy(*command, "launch.dry_run=true")
    assert "algo.beta=1 until the end of its critic phase" in drawn.out
    assert "algo.beta=3, after 0" in drawn.out
    done = genpolicy(*command[:-1], "algo.beta=1,2")
    assert done.code == 0, done.err
    assert "algo.beta=1: critic phase trained" in done.out
    known = [json.loads((run / "status.json").read_text()) for run in find_runs(tmp_path)]
    assert Counter(status["state"] for status in known) == {"finished": 2, "failed": 1}
    told = [status["phases"]["critic"] for status in known if status["state"] == "finished"]
    assert Counter(fact["reused"] for fact in told) == {False: 1, True: 1}
    assert len({fact["key"] for fact in told}) == 1
    shown = genpolicy("mode=clean", f"paths.outputs={tmp_path}")
    assert "1 phase; 0 bytes freed" in shown.out, shown
    for run in find_runs(tmp_path):
        status = json.loads((run / "status.json").read_text())
        (run / "status.json").write_text(json.dumps(status | {"phases": {}}))
    shown = genpolicy("mode=clean", f"paths.outputs={tmp_path}")
    assert "deleted" in shown.out
    assert not list((tmp_path / "phases").iterdir())
    assert genpolicy("mode=clean", f"paths.outputs={tmp_path}").code == 1
