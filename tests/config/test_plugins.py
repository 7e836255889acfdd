"""Packages of the user's own: the example of docs/extending.md."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import genpolicy, tried
from tiny import only_run, plain_task, undrawn

from genpolicy.config import plugins

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/extending.md").read_text()
FILES = dict(re.findall(r"^`([\w./-]+)`\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
RUN = ["algo=greedy_bc", "env=swiss-roll", "tuned=none", "network=mlp", "network.hidden=[16]", "critic.hidden=[16]"]
RUN += ["budget=0.002", "eval.episodes=4", "eval.final_episodes=4", "eval.per_phase=1", "eval.log_prob_actions=10"]
RUN += ["solver.steps=2", "likelihood.steps=2", "tracking.uri=none"]

LINEAR = """
from dataclasses import InitVar

import torch
from torch import nn

from genpolicy.config.schema import component


@component
class Linear(nn.Module):
    \"\"\"One layer.\"\"\"

    action_size: InitVar[int]
    observation_size: InitVar[int]
    num_times: InitVar[int] = 1
    input_size: InitVar[int | None] = None

    def __post_init__(self, action_size, observation_size, num_times, input_size):
        super().__init__()
        self.action_size, self.input_size = action_size, input_size or action_size
        self.layer = nn.Linear(self.input_size + observation_size + num_times, action_size)

    def forward(self, x, t, observation):
        return self.layer(torch.cat([x, t.reshape(len(x), -1), observation], 1))
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The example, where Python finds it but nobody has allowed it."""
    for name, content in FILES.items():
        path = tmp_path / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.syspath_prepend(tmp_path / "src")
    monkeypatch.setenv(plugins.VARIABLE, "")
    plugins._declared.cache_clear()
    yield tmp_path / "src"
    plugins._declared.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_ideas"]:
        del sys.modules[name]


def test_a_package_that_the_command_names_is_trained_and_recorded(package, tmp_path, monkeypatch):
    words = [*RUN, f"paths.outputs={tmp_path / 'outputs'}"]
    with undrawn():
        result = genpolicy(*words, "plugins=my_ideas")
    assert result.code == 0, result.err
    run = only_run(tmp_path / "outputs")
    assert json.loads((run / "status.json").read_text())["plugins"] == {"my_ideas": "of no version"}
    monkeypatch.setenv(plugins.VARIABLE, "")  # as for another command
    result = genpolicy("mode=eval", f"checkpoint={run}")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "my_ideas.greedy_bc.GreedyBC is not a class of genpolicy, nor of a plugin; if you trust the" in result.err
    assert genpolicy("mode=eval", f"checkpoint={run}", "plugins=[my_ideas]").code == 0


def test_a_network_of_a_package_is_any_module(package, tmp_path):
    (package / "my_ideas/conf/network").mkdir()
    (package / "my_ideas/conf/network/linear.yaml").write_text("# One layer\n_target_: my_ideas.linear.Linear\n")
    (package / "my_ideas/linear.py").write_text(LINEAR)
    words = [word for word in RUN if not word.startswith("network")] + ["network=linear", "plugins=my_ideas"]
    with undrawn():
        result = genpolicy(*words, f"paths.outputs={tmp_path / 'outputs'}")
    assert result.code == 0, result.err


def test_without_permission_its_options_are_not_there_and_its_code_does_not_run(package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "algo=greedy_bc: no such option" in genpolicy(*RUN).err
    (tmp_path / "conf/algo").mkdir(parents=True)
    (tmp_path / "conf/algo/theirs.yaml").write_text(FILES["my_ideas/conf/algo/greedy_bc.yaml"])
    result = genpolicy("algo=theirs", *RUN[1:])
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "if you trust the package my_ideas, whose code runs" in result.err
    assert not any(name.startswith("my_ideas") for name in sys.modules)


def test_one_that_was_installed_as_a_plugin_needs_no_word(package):
    folder = package / "my_ideas-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: my-ideas\nVersion: 0.1.0\n")
    (folder / "entry_points.txt").write_text("[genpolicy.components]\nmy_ideas = my_ideas\n")
    (folder / "top_level.txt").write_text("my_ideas\n")
    plugins._declared.cache_clear()
    result, [(job, _)] = tried(*RUN)
    assert (result.code, job.config.algo.margin) == (0, 0.0)
    shown = genpolicy("--help", "algo=greedy_bc").out
    assert "Behaviour cloning of the actions that the critic prefers" in shown
    assert "algo.margin=0.0" in shown
    assert plugins.versions(["my_ideas"]) == {"my_ideas": "0.1.0"}


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("plugins=no_such_package", "plugins=no_such_package: no package no_such_package is installed"),
        ("plugins=os.path", "plugins=os.path: no package os.path is installed"),
        (
            "plugins=[my_ideas]",
            "algo._target_: my_ideas.greedy_bc.GreedyBC cannot be imported (ZeroDivisionError: ",
        ),
    ],
)
def test_what_is_wrong_with_a_plugin_is_told_in_a_line(word, said, package):
    (package / "my_ideas/greedy_bc.py").write_text("1 / 0\n")
    result, _ = tried(*RUN, word)
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert said in result.err


def test_packages_of_the_environment_are_checked_as_those_of_a_command(package, monkeypatch):
    monkeypatch.setenv(plugins.VARIABLE, " my_ideas , ")
    assert tried(*RUN)[0].code == 0
    monkeypatch.setenv(plugins.VARIABLE, "my_ideas,my_idea")
    assert genpolicy(*RUN).err == "genpolicy: GENPOLICY_PLUGINS=my_idea: no package my_idea is installed\n"
    monkeypatch.setenv(plugins.VARIABLE, "")
    said = genpolicy("env=gym", "env.id=my_idea.envs:Name-v0").err
    assert said == "genpolicy: env.id: my_idea.envs:Name-v0 cannot be made: no package my_idea is installed\n"
    assert tried(*RUN, "plugins=my_ideas")[0].code == 0


@pytest.mark.slow
def test_the_example_is_installed_and_trained_by_jobs_of_a_sweep(tmp_path):
    for name, content in FILES.items():
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    site, folder = tmp_path / "site", tmp_path / "folder"
    folder.mkdir()
    install = ["install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", site]
    subprocess.run([sys.executable, "-m", "pip", *install, tmp_path / "project"], check=True)
    clean = {name: value for name, value in os.environ.items() if name != plugins.VARIABLE}
    others = ("env=", "algo=", "solver.", "likelihood.")
    words = [*plain_task(folder), *(word for word in RUN if not word.startswith(others))]
    words += ["model=gaussian", "algo=bc,greedy_bc", "hydra/launcher=local", "launch.parallel=2"]
    done = subprocess.run(
        [sys.executable, "-m", "genpolicy.app", "-m", *words],
        cwd=folder,
        env=clean | {"PYTHONPATH": os.pathsep.join(map(str, (site, ROOT, ROOT / "launch"))), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(path.read_text()) for path in folder.rglob("status.json")]
    assert [status["state"] for status in told] == ["finished", "finished"]
    assert [status["plugins"] for status in told if "plugins" in status] == [{"my_ideas": "0.1.0"}]
