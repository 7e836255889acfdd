"""What the README and the help promise is so."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from command_line import genpolicy, jobs
from tiny import words

from genpolicy.config import help
from genpolicy.config.arguments import groups, options
from genpolicy.runs.run import find_runs

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def commands(text: str, program: str) -> list[str]:
    """The indented lines that run a program, without their comments."""
    lines = re.findall(rf"^    ({program}\b.*)$", text, re.MULTILINE)
    return [re.split(r"\s{2,}|\s+#", line)[0] for line in lines if "[" not in line]


EXAMPLES = sorted({*commands(README, "genpolicy"), *commands(help._INTRODUCTION + help._MORE, "genpolicy")})


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every test runs in a folder with nothing but the files that the commands name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.hdf5").touch()
    (tmp_path / "mine.npz").touch()


@pytest.mark.parametrize("command", EXAMPLES)
def test_every_command_shown_is_legal(command):
    given = shlex.split(command)[1:]
    if given[:1] in (["--help"], ["--cfg"]):
        assert genpolicy(*given).code == 0
        return
    if "hydra/sweeper=optuna" in given:
        given.append("search.trials=2")
    elif "-m" in given:  # seeds are all alike
        given = ["seed=0" if word.startswith("seed=") else word for word in given]
    started = jobs(*given)
    assert (len(started) > 1) == ("-m" in given)


# Tasks of a set are alike, too; the README's commands try one in full.
FEWER = {"env=locomotion": "env=hopper-medium-v2", "env=antmaze": "env=antmaze-umaze-v0,antmaze-large-play-v0"}


@pytest.mark.parametrize("script", sorted((ROOT / "launch").glob("*.sh")), ids=lambda path: path.name)
def test_every_sweep_of_a_script_is_legal(script, tmp_path, monkeypatch):
    told = tmp_path / "genpolicy"
    told.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$*"\n')
    told.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    if script.name != "slurm-dev.sh":
        given = [script, "launch.minutes=60", "launch.runs_per_gpu=2"]
        said = subprocess.run(given, capture_output=True, text=True, check=True).stdout
        for line in said.splitlines():
            words = ["seed=0" if word.startswith("seed=") else word for word in line.split()]
            started = jobs(*(FEWER.get(word, word) for word in words))
            assert len(started) > 1
            assert {(job.config.launch.minutes, job.config.launch.runs_per_gpu) for job, _ in started} == {(60, 2)}
            assert line.count("runs_per_gpu") == 1  # the script's own is left out


def test_there_are_commands_to_test():
    assert len(EXAMPLES) > 12
    assert commands(README, "make") == ["make run", "make test"]


def test_every_make_target_named_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)`", README)) | {"run", "test"} <= targets


def test_every_group_and_option_named_exists():
    table = README[README.index("| group |") : README.index("| algorithm |")]
    named = {
        row.split("|")[1].strip(): re.findall(r"`([a-z0-9_-]+)`", row.split("|")[3])
        for row in table.splitlines()[2:]
        if row
    }
    assert {name.strip("` ") for cell in named for name in cell.split(",")} == {*groups(), "likelihood"}
    for cell, mentioned in named.items():
        group = cell.split(",")[0].strip("` ")
        if group not in ("tuned", "algo", "env"):
            assert set(mentioned) == set(options(group)), group
    algorithms = README[README.index("| algorithm |") : README.index("Files in `./conf")].splitlines()[2:]
    assert {name for row in algorithms for name in re.findall(r"`(\w+)`", row)} == set(options("algo"))
    assert len([name for name in options("env") if name.startswith(("hopper", "half", "walker"))]) == 15
    assert len([name for name in options("env") if name.startswith("maze2d")]) == 3


@pytest.mark.usefixtures("no_figures")
def test_the_same_sweep_again_finds_its_finished_runs(tmp_path):
    sweep = ["-m", *words(tmp_path / "runs"), "seed=0,1"]
    first, again = genpolicy(*sweep), genpolicy(*sweep)
    assert first.code == 0, first.err
    directories = list(find_runs(tmp_path / "runs"))
    assert len(directories) == 2
    assert again.code == 0, again.err
    for directory in directories:
        assert f"{directory}: finished already; overwrite=true redoes it" in again.out
        told = genpolicy(
            "mode=eval", f"checkpoint={directory}", "eval.final_episodes=3", f"paths.data={tmp_path / 'runs'}"
        )
        assert told.code == 0, told.err
        assert "behaviour data" in told.out
