"""How fast a sweep of many short jobs is launched, run and shipped.

    PYTHONPATH=tests/acceptance python tests/acceptance/slurm_throughput.py [RUNS] [METRICS]

needs `launch/slurm-dev.sh up`. Each job is a process that logs as a run does, and does nothing else. Prints seconds,
the launching process's memory before and after, and the time of `genpolicy mode=status`; checks the store at the end.
"""

import contextlib
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from tiny import words

from genpolicy import app
from genpolicy.launch import slurm
from genpolicy.runs.journal import Journal
from genpolicy.runs.run import Run, find_runs
from genpolicy.runs.state import read_status
from genpolicy.system.files import Lock


class Fake(slurm.Work):
    """In place of training: the given number of metrics, ten an event, and a pause of some seconds in all."""

    def __call__(self, given):
        for directory in (task.run for task in given):
            run, metrics = Run(directory), int((directory.parents[3] / "metrics").read_text())
            with (
                Lock(run.path("lock")),
                run.recorded(),
                contextlib.closing(Journal(run.path("journal.jsonl"))) as journal,
            ):
                for step in range(metrics // 10):
                    journal.log(step, {f"policy/metric{number}": step / 7 + number for number in range(10)})
                    time.sleep(20 / metrics)
            run.note(step=metrics // 10, steps=metrics // 10)


def memory() -> float:
    """The largest this process has been, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(count: int, metrics: int) -> None:
    import __main__

    sys.modules["slurm_throughput"] = __main__
    Fake.__module__ = "slurm_throughput"  # jobs import this file by its name
    slurm.Work = Fake
    outputs = Path(tempfile.mkdtemp(prefix="throughput"))
    (outputs / "metrics").write_text(str(metrics))
    given = [word for word in words(outputs) if not word.startswith("tracking.uri")]
    launch = ["-m", "hydra/launcher=slurm", "launch.gpus=0", "launch.cpus=1", "launch.memory=1", "launch.wait=true"]
    sys.argv = ["genpolicy", *launch, *given, f"seed=range({count})"]
    real, marks = slurm._wait, {}

    def wait(sweep):
        marks["launched"], marks["memory"] = time.monotonic(), memory()
        status = [sys.executable, "-m", "genpolicy.app", "mode=status", f"paths.outputs={outputs}"]
        time.sleep(20)
        begin = time.monotonic()
        subprocess.run(status, check=True, capture_output=True)
        marks["status"] = time.monotonic() - begin
        real(sweep)

    slurm._wait = wait
    begin = time.monotonic()
    app.main()
    ended = time.monotonic()
    assert all(read_status(run)["state"] == "finished" for run in find_runs(outputs))
    print(f"launched {count} runs in {marks['launched'] - begin:.1f} s, all done after {ended - begin:.1f} s")
    print(f"memory of the launcher: {marks['memory']:.0f} MB when launched, {memory():.0f} MB at the end")
    print(f"mode=status in mid-sweep: {marks['status']:.2f} s")
    expected = count * (metrics // 10) * 10
    while (stored := rows(outputs / "mlflow.db")) < expected:
        assert time.monotonic() - ended < 1200, stored
        time.sleep(1)
    print(f"{stored:,} metrics shipped {time.monotonic() - ended:.1f} s after the last run had ended")


def rows(database: Path) -> int:
    try:
        with contextlib.closing(sqlite3.connect(database)) as opened:
            return opened.execute("SELECT COUNT(*) FROM metrics").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


if __name__ == "__main__":
    main(*map(int, sys.argv[1:] or (200, 1000)))
