"""Every setting of every two options: a sweep over both takes what both have, and says which of them lacks it.

What the options compose is found once for each; which settings that has is read from the files of conf/.
"""

import copy
import functools
import itertools
import random
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import tried

from genpolicy.config.arguments import options
from genpolicy.config.compose import job
from genpolicy.config.loader import Loader
from genpolicy.config.option_content import all_settings, lineage
from genpolicy.config.schema import TARGET
from genpolicy.config.validation import _Checker
from genpolicy.errors import UnknownSetting
from hydra_plugins.genpolicy.launcher import lacking

GROUPS = ("algo", "model", "objective", "solver", "likelihood", "network", "critic", "select", "dataset", "env")
VARIED = (*GROUPS, "experiment", "tuned")
DRAWN = 6  # whole command lines


@functools.cache
def files(group: str) -> Mapping[str, Any]:
    """The options of a group; of tasks of one family, and of what was tuned for an algorithm, the first."""
    if group == "env":
        families = {tuple(lineage(path)[:-1]) or name: name for name, path in reversed(options("env").items())}
        return {name: options("env")[name] for name in families.values()}
    if group == "tuned":
        algos = {name.partition("/")[0]: name for name in reversed(options("tuned"))}
        return {"none": None} | {name: options("tuned")[name] for name in list(algos.values())[:3]}
    if group == "experiment":
        return {"null": None} | options("experiment")
    return options("solver" if group == "likelihood" else group)


def choice_lines(group: str, option: str) -> tuple[str, ...]:
    """The lines of an option's files that choose options of other groups."""
    path = files(group)[option]
    lines = [] if path is None else [line for file in lineage(path) for line in file.read_text().splitlines()]
    return tuple(line.partition("#")[0].strip() for line in lines if "override" in line)


@functools.cache
def choices(group: str, option: str) -> Mapping[str, str]:
    """The option of each group that a command with this one composes; nothing is checked."""
    chosen = choice_lines(group, option)
    return composed(group, chosen, option) if group == "tuned" else composed(group, chosen) | {group: option}


@functools.cache
def composed(group: str, chosen: tuple[str, ...], option: str | None = None) -> Mapping[str, str]:
    """The same, of any option of a group that chooses others by these lines of its files."""
    words = []
    if chosen:
        same = (name for name in files(group) if name != "null" and choice_lines(group, name) == chosen)
        words = [f"{'solver@likelihood' if group == 'likelihood' else group}={next(same)}"]
    if option not in (None, "none"):
        words = [f"tuned={option}", f"algo={option.partition('/')[0]}"]
    _, named, _ = job(Loader(), words)
    return {name: named[name] for name in GROUPS}


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        elif name != TARGET:
            yield prefix + name


@functools.cache
def node(group: str, option: str) -> dict[str, Any]:
    """All settings of an option."""
    placed = "solver" if group == "likelihood" else group
    return all_settings(options(placed)[option], placed)


@functools.cache
def settings(group: str, option: str) -> frozenset[str]:
    return frozenset(leaves(node(group, option)))


@functools.cache
def refusal(group: str, option: str, name: str) -> UnknownSetting | None:
    """What the check of a composed option says of a setting that a command gives it."""
    plain = copy.deepcopy(node(group, option))  # what refers to other settings as it is written
    if name not in settings(group, option):
        *outer, last = name.split(".")
        functools.reduce(lambda inside, part: inside.setdefault(part, {}), outer, plain)[last] = 1
    try:
        _Checker({group: option}).component(
            {key: 1 if str(value).startswith(("???", "${")) else value for key, value in plain.items()}, group
        )
    except UnknownSetting as error:
        return error
    return None


def pairs(varied: str, group: str) -> Iterator[tuple[tuple[str, str], tuple[str, str], str]]:
    """Two options that vary, the options of `group` that they bring, and a setting that one of these has."""
    seen = set()
    for both in itertools.combinations(files(varied), 2):
        brought = tuple(choices(varied, option)[group] for option in both)
        if brought not in seen:
            seen.add(brought)
            for name in sorted(settings(group, brought[0]) | settings(group, brought[1])):
                yield both, brought, name


@pytest.mark.slow
@pytest.mark.parametrize("varied", VARIED)
def test_a_sweep_takes_what_all_its_options_have_and_names_those_that_lack_a_setting(varied):
    found = [(group, *each[1:]) for group in GROUPS for each in pairs(varied, group)]
    assert len(found) > 40
    for group, brought, name in found:
        lack = [option for option in dict.fromkeys(brought) if name not in settings(group, option)]
        errors = [error for option in dict.fromkeys(brought) if (error := refusal(group, option, name))]
        assert [error.option for error in errors] == lack, (brought, name)
        if lack:
            (has,) = {*brought} - {*lack}
            said = lacking(errors, [SimpleNamespace(choices={group: has})])
            assert f"{group}.{name}".startswith(errors[0].name)
            assert said == (
                f"{errors[0].name}: {group}={lack[0]} has no such setting; give it to a sweep over {group}={has} alone"
            )


@pytest.mark.slow
def test_whole_command_lines_agree(tmp_path, monkeypatch):
    """Of options that a default run can be made of, each pair with a setting of whatever group."""
    monkeypatch.chdir(tmp_path)
    draw, words = random.Random(0), set()
    while len(words) < DRAWN:
        varied, group = draw.choice(("algo", "network")), draw.choice(GROUPS[:-1])
        found = [each for each in pairs(varied, group) if each[2] != "hidden" and "." not in each[2]]
        lacking_some = len(words) % 2 == 1
        found = [
            each
            for each in found
            if (each[2] in frozenset.intersection(*map(functools.partial(settings, group), each[1]))) != lacking_some
        ]
        if not found:
            continue
        both, brought, name = draw.choice(found)
        value = node(group, brought[name not in settings(group, brought[0])])[name]
        word = f"{group}.{name}={'null' if value is None else str(value).replace(' ', '').lower()}"
        if (both, word) in words:
            continue
        words.add((both, word))
        result, started = tried("-m", f"{varied}={','.join(both)}", word, "tuned=none")
        lack = [option for option in brought if name not in settings(group, option)]
        assert (result.code, len(started)) == ((1, 0) if lack else (0, 2)), (both, word, result.err)
        if lack:
            assert result.err.startswith(f"genpolicy: {group}.{name}: {group}={lack[0]} has no such setting"), (
                result.err
            )
