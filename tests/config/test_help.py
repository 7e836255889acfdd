"""`genpolicy --help` fits a screen; what it leaves out is one question further on."""

import dataclasses
import re
from pathlib import Path

import pytest
from command_line import genpolicy, jobs

from genpolicy.config import help, plain_yaml, tuned
from genpolicy.config.arguments import HYDRA_GROUPS, PLACED, groups, options
from genpolicy.config.run_settings import MODES, RunSettings

GROUPS = [*groups(), *PLACED, *HYDRA_GROUPS]


def test_the_first_page_fits_a_screen_and_names_every_group_and_mode():
    lines = genpolicy("--help").out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    assert {line.split("=")[0].split()[0] for line in lines if line.startswith("  ") and line[2] != " "} == {*GROUPS}
    (modes,) = (line for line in lines if line.startswith("Modes: "))
    assert modes.removeprefix("Modes: ").split(", ") == list(MODES)


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_lists_all_its_options(group):
    words = genpolicy("--help", group).out.replace(",", " ").split()
    for name in options(PLACED.get(group, group)):
        assert name.rpartition("/")[2] in words or f"*{name}" in words


def test_the_settings_of_every_run_are_all_there():
    said = genpolicy("--help", "settings").out
    for field in dataclasses.fields(RunSettings):
        assert f"\n  {field.name}=" in said or f"\n  {field.name}." in said


def test_settings_can_be_asked_for_by_the_beginning_of_their_names():
    said = genpolicy("--help", "settings").out.splitlines()
    assert genpolicy("--help", "eval").out.splitlines() == [line for line in said if line.startswith("  eval.")]
    assert genpolicy("--help", "eval.video", "mode=train").out.count("\n") == 2
    assert "(true | false | any)" in genpolicy("--help", "phases.reuse").out


@pytest.mark.parametrize(
    ("option", "settings"), [("launcher=slurm", "launch"), ("sweeper=optuna", "search"), ("sweeper=product", None)]
)
def test_an_option_of_hydras_says_what_it_is_and_what_sets_it(option, settings):
    first, *more = genpolicy("--help", f"hydra/{option}").out.splitlines()
    assert re.fullmatch(rf"hydra/{option}: \w.+", first)
    assert more == (["", "Settings", *genpolicy("--help", settings).out.splitlines()] if settings else [])


@pytest.mark.parametrize("columns", [80, 120])
def test_on_a_terminal_no_line_is_longer_than_it_is_wide(columns, monkeypatch):
    words = "--help", "algo=gmpg", "algo", "tuned=gmpo/hopper-medium-v2", "settings"
    whole = genpolicy(*words).out
    monkeypatch.setattr(help, "_columns", lambda: columns)
    for said in genpolicy(*words).out, genpolicy("--help").out:
        assert max(map(len, said.splitlines())) <= columns
    said = genpolicy(*words).out
    assert said.split() == whole.split()
    assert "\n                                       " in said


def test_tuned_values_are_those_of_the_task_and_say_where_they_come_from():
    said = genpolicy("--help", "tuned=gmpo/hopper-medium-v2").out
    path = options("tuned")["gmpo/hopper-medium-v2"]
    own, shared = said.split(f"\nFrom {path}")[1:]
    assert "tasks.hopper-medium-v2" in own.splitlines()[0]
    for part in ("halfcheetah", "walker2d"):
        assert part not in said
    assert "\n  algo.beta=16\n" in own
    assert re.search(r"\n  dataset\.reward=iql_locomotion +the unit of beta\n", shared)
    shown = re.findall(r"^  (\w+)\.(\w+)=(\S+)", said, re.MULTILINE)
    values = tuned.values(plain_yaml.read(path), "hopper-medium-v2", path)
    assert sorted(shown) == sorted(
        (group, name, str(value)) for group in values for name, value in values[group].items()
    )
    [(job, _)] = jobs("algo=gmpo", "env=hopper-medium-v2")
    for group, name, value in shown:
        assert str(job.config[group][name]).removesuffix(".0") == value.removesuffix(".0")


@pytest.mark.usefixtures("elsewhere")
def test_what_an_own_file_of_a_task_builds_on_and_replaces_is_shown(tmp_path):
    folder = tmp_path / "conf/tuned/gmpo"
    folder.mkdir(parents=True)
    (folder / "base.yaml").write_text("# @package _global_\nalgo: {beta: 3, policy_lr: 0.1}\ncritic: {hidden: [4]}\n")
    (folder / "hopper-medium-v2.yaml").write_text(
        "# @package _global_\n# Mine\ndefaults: [/tuned/gmpo/base, _self_]\nalgo:\n  beta: 5   # tried\n"
    )
    first, own, base = genpolicy("--help", "tuned=gmpo/hopper-medium-v2").out.split("\nFrom ")
    assert first == "tuned=gmpo/hopper-medium-v2: Mine\n"
    assert own.splitlines()[0] == str(folder / "hopper-medium-v2.yaml")
    assert [line.split() for line in own.splitlines()[1:]] == [["algo.beta=5", "tried"]]
    assert base.splitlines() == [str(folder / "base.yaml"), "  algo.policy_lr=0.1", "  critic.hidden=[4]"]
    [(job, _)] = jobs("algo=gmpo", "env=hopper-medium-v2")
    assert (job.config.algo.beta, job.config.algo.policy_lr, job.config.critic.hidden) == (5, 0.1, [4])


@pytest.mark.parametrize("algo", options("algo"))
def test_every_algorithm_says_what_it_is_compared_with_and_what_differs(algo):
    said = genpolicy("--help", f"algo={algo}").out
    assert "\n  Differs: " in said
    assert "Reference: " in said
    page = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text()
    headings = [name for line in page.splitlines() if line.startswith("## ") for name in line[3:].split(", ")]
    assert algo in headings
