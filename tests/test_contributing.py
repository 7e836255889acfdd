"""The examples of CONTRIBUTING.md, each in a copy of the project: its files are added, its commands do what it says."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HELPERS = ROOT / "tests/helpers"
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
SMALL = ["tuned=none", "network.hidden=[16]", "solver.steps=2", "likelihood.steps=2", "budget=0.002", "log_every=1"]
SMALL += ["eval.episodes=2", "eval.final_episodes=2", "eval.per_phase=1", "eval.log_prob_actions=10"]
UPDATES = 20  # of a phase of 10,000; twice as many of one of 20,000

# Runs commands, a list of words each, in one process, and prints how each ended. "stop after N" in front of a command's
# words sends the process a SIGTERM in its N-th update, if there are so many. Only the report sends runs to MLflow.
PROGRAM = """
import json, os, signal, sys
import genpolicy
from command_line import genpolicy as command
from genpolicy.algo.update import Update
from genpolicy.tracking import follower
from tiny import undrawn

follower.Tracker.start = lambda tracker: None
assert genpolicy.__file__.startswith(sys.argv[1]), genpolicy.__file__
call, ended = Update.__call__, []
for words in json.loads(sys.argv[2]):
    stop, calls = int(words.pop(0).split()[-1]) if words[0].startswith("stop after") else 0, []
    def counted(update, *given):
        calls.append(1)
        if len(calls) == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return call(update, *given)
    Update.__call__ = counted
    with undrawn():
        result = command(*words)
    ended.append([result.code, result.out, result.err, len(calls)])
print(json.dumps(ended))
"""


def section(title: str) -> str:
    """What the page says below a heading."""
    return PAGE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def files(text: str) -> dict[str, str]:
    """The files of an example: fenced blocks below a line with the path."""
    return dict(re.findall(r"^`([\w./-]+)`\n\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


def commands(text: str) -> list[list[str]]:
    """The words of an example's commands, the indented lines."""
    return [shlex.split(line)[1:] for line in re.findall(r"^    (genpolicy .*)$", text, re.MULTILINE)]


def ended(tmp_path: Path, given: dict[str, str], *asked: list[str]) -> list[list]:
    """Code, output, errors and number of updates of each command, in a copy of the project with more files."""
    project, folder = tmp_path / "project", tmp_path / "folder"
    for name in ("genpolicy", "conf", "launch"):
        shutil.copytree(ROOT / name, project / name)
    for name, content in given.items():
        path = project / name
        assert not path.exists(), f"{name} is there already"
        path.write_text(content)
    folder.mkdir(exist_ok=True)
    path = os.pathsep.join(map(str, (project, project / "launch", HELPERS)))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(project), json.dumps(asked)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "D4RL_DATASET_DIR": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def journal(folder: Path) -> list[dict]:
    """The entries of the journal of the one run in a folder."""
    [path] = folder.glob("outputs/*/*/*/seed*/journal.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_an_algorithm_trains_resumes_is_explained_and_is_in_the_report(tmp_path, template):
    text = section("An algorithm")
    given, [explained, train, report] = files(text), commands(text)
    [python, yaml] = given.values()
    assert python.count("\n") <= 40
    assert yaml.count("\n") <= 5
    outputs = tmp_path / "folder/outputs"
    outputs.mkdir(parents=True)
    shutil.copy(template, outputs / "mlflow.db")
    small = [*train, *SMALL]
    results = ended(tmp_path, given, explained, ["stop after 5", *small], small, small, report)
    codes, outs, errs, updates = zip(*results, strict=True)
    assert codes == (0, 143, 0, 0, 0), errs
    assert "entropy_bc           Behaviour cloning with an entropy bonus" in re.sub(" {2,}", " " * 11, outs[0])
    assert updates[1:] == (5, UPDATES - 5, 0, 0)
    entropies = [
        entry["metrics"]["policy/entropy"]
        for entry in journal(tmp_path / "folder")
        if "policy/entropy" in entry["metrics"]
    ]
    assert len(entropies) == UPDATES
    assert "entropy_bc-gvp" in outs[4]
    assert "entropy_bc-gvp" in (outputs / "default/report/report.md").read_text()


@pytest.mark.slow
def test_a_critic_is_explained_and_trains(tmp_path):
    text = section("A critic")
    [explained, train] = commands(text)
    [help, run] = ended(tmp_path, files(text), explained, [*train, "critic.hidden=[16]", *SMALL])
    assert (help[0], run[0]) == (0, 0), help[2] + run[2]
    assert "critic.kappa=1.0" in help[1]
    assert "critic.ensemble=4" in help[1]
    assert run[3] == 2 * 2 * UPDATES
    assert any("training/critic_q" in entry["metrics"] for entry in journal(tmp_path / "folder"))


@pytest.mark.slow
def test_a_task_gives_data_and_trains_on_them(tmp_path):
    text = section("A task")
    [collect, train] = commands(text)
    [collected, run] = ended(tmp_path, files(text), collect, [*train, "critic.hidden=[16]", *SMALL])
    assert (collected[0], run[0]) == (0, 0), collected[2] + run[2]
    assert run[3] == 2 * UPDATES
    final = {name: value for entry in journal(tmp_path / "folder") for name, value in entry["metrics"].items()}
    assert -20 * 10 <= final["final/return_mean"] <= 0


@pytest.mark.parametrize("title", ["An algorithm", "A critic", "A task", "A data set"])
def test_every_path_named_is_there_or_is_a_new_one(title):
    text = section(title)
    for name in re.findall(r"`((?:genpolicy|conf|docs|tests)/[\w./-]+)`", text):
        assert (ROOT / name).exists() or name in files(text), name
