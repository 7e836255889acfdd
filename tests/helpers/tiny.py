"""Real but tiny training runs, for the tests: the Swiss roll, small networks, a few hundred updates."""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from command_line import genpolicy, jobs, last
from omegaconf import DictConfig, OmegaConf

from genpolicy.algo.update import Update
from genpolicy.config.arguments import quoted
from genpolicy.runs.run import Run, find_runs, open_run

SMALL = ("env=swiss-roll", "algo=gmpo", "tuned=none", "network.hidden=[16]", "critic.hidden=[16]", "eval.episodes=4")
SMALL += ("algo.critic_steps=120", "algo.critic_batch_size=32", "algo.policy_steps=250")
SMALL += ("algo.policy_batch_size=32", "eval.final_episodes=8", "eval.per_phase=3", "eval.log_prob_actions=20")
SMALL += ("solver.steps=2", "likelihood.steps=2")  # with the usual steps, the figures alone take twice as long as all
SMALL += ("log_every=7", "checkpoint_seconds=1000", "tracking.uri=none")


def words(outputs: Path, *more: str) -> list[str]:
    """The words of a command that trains such a run."""
    return last([f"paths.outputs={quoted(str(outputs))}", f"paths.data={quoted(str(outputs))}", *SMALL, *more])


def plain_task(folder: Path) -> list[str]:
    """The words for a task that draws nothing, for runs in processes of their own; random data, made in a folder."""
    draw, rows, data = np.random.default_rng(0), 500, folder / "data.npz"
    columns = {"obs": (3,), "action": (1,), "reward": ()}
    columns = {name: draw.uniform(-1, 1, (rows, *shape)) for name, shape in columns.items()}
    np.savez(data, done=np.arange(rows) % 4 == 3, next_obs=np.roll(columns["obs"], -1, axis=0), **columns)
    words = ["env=gym", "env.id=Pendulum-v1", "env.max_episode_steps=5"]
    return [*words, "dataset=npz", f"dataset.path={quoted(str(data))}"]


def plain_words(outputs: Path, *more: str) -> list[str]:
    """The words of a command that trains such a run on that task."""
    return last([*plain_task(outputs), *(word for word in words(outputs, *more) if word != "env=swiss-roll")])


def gaussian_words(outputs: Path, *more: str) -> list[str]:
    """The same of a policy without a flow, for whose likelihood each process would import torch's compiler."""
    words = plain_words(outputs, "model=gaussian", *more)
    return [word for word in words if not word.startswith(("solver.", "likelihood."))]


@contextlib.contextmanager
def undrawn() -> Iterator[None]:
    """Toy tasks draw nothing in this process: their figures have tests of their own, and take longer than a run."""
    with mock.patch("genpolicy.evaluation.toys.draw", return_value={}):
        yield


def opened(outputs: Path, *more: str, sweep: str | None = None) -> Run:
    """The run of such a command, made or found, and owned; not trained."""
    config, choices = configured(outputs, *more)
    return open_run(config, choices, sweep=sweep)


def configured(outputs: Path, *more: str) -> tuple[DictConfig, dict[str, str]]:
    """The checked configuration of such a command and its choices; `more` sets values only."""
    job = _job()
    places = {"paths": {"outputs": str(outputs), "data": str(outputs)}}
    return OmegaConf.merge(job.config, places, OmegaConf.from_dotlist(list(more))), job.choices


@functools.cache
def _job():
    ((job, _),) = jobs(*words(Path("outputs")))
    return job


DATA = {"name": "swiss_roll swiss-roll", "digest": "0a1b2c3d", "source": "/data/roll.npz", "transitions": 10_000}
DATA |= {"episodes": 9_000, "example": [], "shapes": {"observation": [0], "action": [2], "reward": []}}


def ended(outputs: Path, *more: str, events: int = 3, sweep: str | None = None) -> Run:
    """A run that says it has finished, with a journal of `events` lines and no training."""
    run = opened(outputs, *more, sweep=sweep)
    lines = [
        {
            "time": 1_700_000_000_000 + step,
            "step": step,
            "metrics": {"policy/loss": step / 7, "policy/q": -step},
        }
        for step in range(events)
    ]
    with run.recorded(device="cpu", data=DATA):
        run.path("journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run.close()
    return run


def only_run(outputs: Path) -> Path:
    """The directory of the one run in a folder."""
    (directory,) = find_runs(outputs)
    return directory


def start(outputs: Path, *more: str) -> subprocess.Popen:
    """The command in a process of its own, which saves often."""
    command = [sys.executable, "-m", "genpolicy.app", *words(outputs, "checkpoint_seconds=0.05", *more)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stop(outputs: Path, number: signal.Signals, seconds: float, *more: str) -> int:
    """Start the command, and send it a signal so many seconds after it has begun to train; its exit code."""

    def journaled() -> int:
        return sum(path.stat().st_size for path in outputs.rglob("journal.jsonl"))

    before, process = journaled(), start(outputs, *more)
    while process.poll() is None and journaled() <= before:
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(number)
    process.communicate()
    return process.returncode


def whole_and_resumed(outputs: Path, words: list[str], calls: int) -> tuple[Path, Path]:
    """The directories of a run, and of the same where SIGTERM came at the update of this number, from 1."""
    whole, parts = ([*words, f"paths.outputs={outputs / folder}"] for folder in ("whole", "parts"))
    assert genpolicy(*whole).code == 0
    made, real = [], Update.__call__

    def disturbed(update, *arguments):
        made.append(1)
        if len(made) == calls:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(update, *arguments)

    with mock.patch.object(Update, "__call__", disturbed):
        assert genpolicy(*parts).code == 143
    assert genpolicy(*parts).code == 0
    return only_run(outputs / "whole"), only_run(outputs / "parts")


def events(directory: Path) -> list[dict]:
    """The journal, read plainly."""
    return [json.loads(line) for line in (directory / "journal.jsonl").read_text().splitlines()]


def records(directory: Path) -> list[tuple[str, int, float]]:
    """(metric, step, value) of the whole journal, without what differs from time to time: times, the machine's use."""
    return [
        (name, event["step"], value)
        for event in events(directory)
        for name, value in event["metrics"].items()
        if not name.endswith(("per_second", "ms_per_action")) and not name.startswith("system/")
    ]


def same(left, right) -> bool:
    """Whether two checkpoints are equal to the bit, whatever is nested in them."""
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right
