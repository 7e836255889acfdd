"""What the README, docs/ and the help promise is so."""

import ast
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from command_line import genpolicy, jobs
from tiny import words

from genpolicy import api
from genpolicy.config import help
from genpolicy.config.arguments import groups, options
from genpolicy.report.published import published
from genpolicy.runs.run import find_runs

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
RUNNING = (ROOT / "docs/running.md").read_text()
PAGES = {path.name: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
PAGES["extending.md"] = PAGES["extending.md"].partition("\n## Plugins\n")[0]  # which tests/config/test_plugins.py tries
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
OPEN = ("...", "<", "[-m]")  # in what is no command yet: something is to be filled in


def commands(text: str, program: str) -> list[str]:
    """The indented lines, and the quoted ones, that run a program, without their comments."""
    lines = re.findall(rf"^    ({program}\b.*)$", text, re.MULTILINE) + re.findall(rf"`({program} [^`]*)`", text)
    found = [re.split(r"\s{2,}|\s+#", line)[0] for line in lines]
    return [command for command in found if not any(part in command for part in OPEN)]


SHOWN = "\n".join([*PAGES.values(), help._INTRODUCTION, help._MORE])
EXAMPLES = sorted({*commands(SHOWN, "genpolicy")})


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every test runs in a folder with nothing but the files that the commands name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.hdf5").touch()
    (tmp_path / "mine.npz").touch()
    (tmp_path / "my.npy").touch()


@pytest.mark.slow
@pytest.mark.parametrize("command", EXAMPLES)
def test_every_command_shown_is_legal(command):
    given = shlex.split(command)[1:]
    if given[:1] in (["--help"], ["--cfg"]):
        assert genpolicy(*given).code == 0
        return
    if "hydra/sweeper=optuna" in given:
        given = [word for word in given if not word.startswith("search.trials=")] + ["search.trials=2"]
    elif "-m" in given:  # seeds are all alike
        given = ["seed=0" if word.startswith("seed=") else word for word in given]
    started = jobs(*given)
    assert (len(started) > 1) == ("-m" in given)


# Tasks of a set are alike, too; the README's commands try one in full.
FEWER = {"env=locomotion": "env=hopper-medium-v2", "env=antmaze": "env=antmaze-umaze-v0,antmaze-large-play-v0"}


@pytest.mark.slow
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
    assert len(EXAMPLES) > 40
    assert commands(README, "make")[:2] == ["make run", "make test"]


@pytest.mark.parametrize("page", PAGES)
def test_every_line_that_looks_like_a_command_is_one(page):
    """Of genpolicy or make, which are tried here, or of what test_served tries."""
    for block in re.findall(r"(?:\n\n)((?:    \S.*(?:\n|\Z))+)", PAGES[page]):
        for line in block.splitlines():
            assert line.split()[0] in ("genpolicy", "make", "export", "mlflow", "curl", "pip"), line


def test_every_make_target_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {command.split()[1] for text in (*PAGES.values(), CONTRIBUTING) for command in commands(text, "make")}
    assert {"run", "test", "test-all", "lint", "bench", "help", "mlflow", "test-slurm"} <= named <= targets


def test_the_readme_is_read_in_two_minutes_and_its_pictures_are_small():
    assert len(README.split()) <= 1000
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", README)
    assert len(pictures) == 2
    for picture in pictures:
        assert (ROOT / picture).read_bytes().startswith(b"\x89PNG")
        assert (ROOT / picture).stat().st_size < 200_000


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "CHANGELOG.md", *PAGES])
def test_every_link_leads_somewhere(page):
    path = ROOT / page if (ROOT / page).exists() else ROOT / "docs" / page
    for link in re.findall(r"\]\(([^)]*)\)", path.read_text()):
        assert link.startswith("https://") or (path.parent / link).exists(), link


def test_every_page_is_linked_from_the_readme():
    assert {f"docs/{name}" for name in PAGES if name != "README.md"} <= set(re.findall(r"\]\(([^)]*)\)", README))


def test_what_is_called_from_python_exists():
    pages = "".join(
        text for name, text in PAGES.items() if name != "export.md"
    )  # which tests/modes/test_export.py runs
    blocks = re.findall(r"```python\n(.*?)```", pages, re.DOTALL)
    calls = [node for block in blocks for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Attribute)]
    names = {ast.unparse(node) for node in calls} | {*re.findall(r"`(policy\.\w+)", PAGES["policies-from-python.md"])}
    assert {"genpolicy.load_policy", "genpolicy.api.train", "policy.act", "policy.log_prob", "policy.module"} <= names
    known = {"policy": {*dir(api.TrainedPolicy), *api.TrainedPolicy.__init__.__code__.co_names}, "genpolicy": dir(api)}
    for name in names - {"genpolicy.api"}:
        assert name.rpartition(".")[2] in known[name.partition(".")[0]], name


def test_the_published_numbers_are_as_many_as_the_readme_says():
    assert f"{len(published()):,} published numbers" in README


def test_citation_has_both_papers():
    text = (ROOT / "CITATION.cff").read_text()
    assert {"arXiv:2412.01245", "arXiv:2510.11499"} <= set(re.findall(r"arXiv:[\d.]+", text))


def test_every_group_and_option_named_exists():
    table = RUNNING[RUNNING.index("| group |") : RUNNING.index("Values come")]
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
    algorithms = README[README.index("| `algo=` |") : README.index("Each goes with")].splitlines()[2:]
    assert {name for row in algorithms for name in re.findall(r"`(\w+)`", row)} == set(options("algo"))
    assert len([name for name in options("env") if name.startswith(("hopper", "half", "walker"))]) == 15
    assert len([name for name in options("env") if name.startswith("maze2d")]) == 3


@pytest.mark.slow
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
