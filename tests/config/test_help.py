"""`genpolicy --help` fits a screen; what it leaves out is one question further on."""

import dataclasses

import pytest
from command_line import genpolicy

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
