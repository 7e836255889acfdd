"""Kill a run at random moments and resume it, over and over; it must end as if nobody had touched it.

    python tests/acceptance/kill_resume.py FOLDER [--kills 20] [setting=value ...]

Trains once undisturbed in FOLDER/whole, then again in FOLDER/killed under `kill -9`, at moments drawn from the first
seconds of each attempt. Then compares the checkpoints bit by bit, the journals, and what MLflow has (kept in
FOLDER/killed/mlflow.db) with the journal. Prints what it did; exit code 1 if anything differs.
"""

import argparse
import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "helpers"))

from tiny import events, only_run, records, same

from genpolicy.runs import checkpoint
from genpolicy.runs.run import Run, find_runs


def command(outputs: Path, settings: list[str]) -> list[str]:
    places = [f"paths.outputs={outputs}", "checkpoint_seconds=1"]
    return [sys.executable, "-m", "genpolicy.app", *places, *settings]


def train(outputs: Path, settings: list[str]) -> None:
    subprocess.run(command(outputs, settings), check=True)


def state(outputs: Path) -> tuple[str, int]:
    """Where the run stands: its state and the update of its last checkpoint."""
    for directory in find_runs(outputs):
        status = Run(directory).status()
        return status["state"], status.get("step", 0)
    return "nothing", 0


def kill_once(outputs: Path, settings: list[str], chance: random.Random) -> bool:
    """Start, wait for training to begin, kill a random while later; false if the run ended before."""
    process = subprocess.Popen(command(outputs, settings), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and state(outputs)[0] != "running":
        time.sleep(0.05)
    time.sleep(chance.uniform(0.0, 12.0))
    process.send_signal(signal.SIGKILL)
    process.wait()
    return process.returncode == -signal.SIGKILL


def shipped(outputs: Path) -> tuple[Counter, list[tuple]]:
    """How often MLflow has each (metric, step, value), and its runs."""
    database = sqlite3.connect(outputs / "mlflow.db")
    rows = database.execute("SELECT key, step, value FROM metrics").fetchall()
    return Counter(rows), database.execute("SELECT name, status FROM runs").fetchall()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given, settings = parser.parse_known_args()
    whole, killed = given.folder.absolute() / "whole", given.folder.absolute() / "killed"
    train(whole, [*settings, "tracking.uri=none"])
    chance, kills = random.Random(given.seed), 0
    while kills < given.kills and kill_once(killed, settings, chance):
        kills += 1
        print(f"kill {kills}: {state(killed)[0]}, last checkpoint at update {state(killed)[1]}", flush=True)
    train(killed, settings)
    sync = [sys.executable, "-m", "genpolicy.app", "mode=sync", f"paths.outputs={killed}"]
    while "being shipped" in subprocess.run(sync, check=True, capture_output=True, text=True).stdout:
        time.sleep(1)
    left, right = only_run(whole), only_run(killed)
    journal = [(n, e["step"], v) for e in events(right) for n, v in e["metrics"].items()]
    counts, runs = shipped(killed)
    differences = {
        "weights": not same(checkpoint.load(left / "last.pt"), checkpoint.load(right / "last.pt")),
        "best weights": not same(checkpoint.load(left / "best.pt"), checkpoint.load(right / "best.pt")),
        "journal": records(left) != records(right),
        "doubles in the journal": max(Counter((n, s) for n, s, _ in journal).values()) > 1,
        "MLflow": counts != Counter(journal),
        "MLflow run": [status for _, status in runs] != ["FINISHED"],
    }
    print(json.dumps({"kills": kills, "records": len(journal), "different": [k for k, v in differences.items() if v]}))
    return int(any(differences.values()))


if __name__ == "__main__":
    sys.exit(main())
