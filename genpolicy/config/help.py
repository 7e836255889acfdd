"""`genpolicy --help`: what can be chosen and set, read from the configuration's files.

Nothing heavy is imported, unless the settings of one option are asked for.
"""

import dataclasses
import inspect
import itertools
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

from genpolicy.config import plain_yaml, tuned
from genpolicy.config.arguments import CONF, HYDRA_GROUPS, PLACED, groups, options
from genpolicy.config.option_content import all_settings, background, comment, lineage, settings_of
from genpolicy.config.run_settings import MODES, RunSettings, TrainSettings
from genpolicy.config.schema import TARGET, completed, field_types, is_nested, locate, name_of
from genpolicy.errors import UserError, printable, suggest, written

WIDTH = 100  # columns of the first page, which fits a screen
NARROW = 20  # columns in which nothing is folded
_INTRODUCTION = """\
Trains, evaluates and compares generative policies (diffusion, flow, trajectory) on offline data.

    genpolicy [-m] [mode=...] [group=option ...] [key=value ...]

Modes: %s

    genpolicy                                              a first run, nothing to download
    genpolicy algo=gmpg model=vpsde env=hopper-medium-v2   a D4RL task (its data: see README.md)
    genpolicy -m algo=bc,gmpo,gmpg seed=0,1,2              a sweep over all combinations
    genpolicy -m hydra/launcher=slurm algo=gmpo,gmpg       the same as jobs of a SLURM cluster
    genpolicy mode=status                                  how the runs of a study stand
    genpolicy mode=eval checkpoint=outputs/.../seed0       a trained policy, evaluated again
    genpolicy mode=inspect checkpoint=outputs/.../seed0    its actions, density and values, drawn
    genpolicy mode=report                                  a study's tables and figures
    genpolicy --cfg job algo=gmpg                          the whole configuration, without a run
"""
_MORE = """\
    genpolicy --help algo                                  the options of a group, explained
    genpolicy --help algo=gmpg                             the settings of an option, explained
    genpolicy --help settings                              settings of every run; --help eval: some

The same command finds the same run: it resumes where it was stopped; overwrite=true starts it anew.
Your own options in ./conf/<group>/<option>.yaml are found too. Completion of words by the shell:
eval "$(genpolicy -sc install=bash)"
"""
_GROUP_DOCS = {
    "tuned": "the papers' values for an algorithm on a task, taken by themselves; tuned=none leaves them out",
    "cluster": "a site's values of launch",
    "hydra/launcher": "where the jobs of a sweep (-m) run",
    "hydra/sweeper": "what a sweep tries",
    "experiment": "presets, applied last; several as experiment=[a,b]",
}
_SET_BY = {"slurm": "launch", "local": "launch", "optuna": "search"}  # of Hydra's options, which have no class of ours


def show(words: list[str]) -> None:
    """Prints the help of the whole program, or of each `group`, `group=option` or "settings" in `words`."""
    if not words:
        _print([*(_INTRODUCTION % ", ".join(MODES)).split("\n"), *_groups(), "", *_MORE.rstrip().split("\n")])
    for word in words:
        _print(_explained(word))


def _print(lines: Iterable[str]) -> None:
    print("\n".join(part for line in lines for part in _folded(printable(line))))


def _columns() -> int | None:
    """Of the terminal; None for a file or a pipe, whose lines are as long as they are."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _folded(line: str) -> list[str]:
    """The line as one or more that the terminal has room for, the others below the start of its last column."""
    width = _columns()
    if width is None or len(line) <= width:
        return [line]
    start = max(found.end() for found in re.finditer(r"^ *|  +(?=\S)", line))
    if width - start < NARROW:
        start = len(line) - len(line.lstrip()) + 4
    return textwrap.wrap(line, width, subsequent_indent=" " * start, break_long_words=False, break_on_hyphens=False)


def _groups() -> list[str]:
    """A line a group: its default, and as many of its options as fit."""
    defaults, lines = _defaults(), ["Groups, their default options, and others"]
    for group in [*_named(), *PLACED, *HYDRA_GROUPS]:
        chosen = defaults.get(f"{PLACED[group]}@{group}" if group in PLACED else group)
        others = [name for name in options(PLACED.get(group, group)) if name != chosen]
        start = f"  {f'{group}={chosen}' if chosen else group:24} "
        width = min(WIDTH, _columns() or WIDTH)
        wrapped = textwrap.wrap(", ".join(others), width - len(start) - len(" ..."), break_on_hyphens=False)
        lines.append(start + " ".join(wrapped[:1] + ["..."] * (len(wrapped) > 1)))
    return lines


def _named() -> list[str]:
    """The groups, those of components first."""
    order = [*(field.name for field in dataclasses.fields(TrainSettings)), *_GROUP_DOCS]
    return sorted(groups(), key=lambda name: order.index(name) if name in order else len(order))


def _group(group: str) -> list[str]:
    """A group and its options, the default marked with a star."""
    docs = {field.name: field.metadata.get("doc", "") for field in dataclasses.fields(TrainSettings)} | _GROUP_DOCS
    found, defaults = options(PLACED.get(group, group)), _defaults()
    lines = [f"{group}: {docs.get(group, '')}".rstrip(": "), ""]
    if group == "tuned":
        for algo, named in itertools.groupby(found, lambda name: name.partition("/")[0]):
            tasks = ", ".join(name.partition("/")[2] for name in named)
            shown = f"{algo}/ {tasks}"
            lines += textwrap.wrap(shown, WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
        return lines
    chosen = defaults.get(f"{PLACED[group]}@{group}" if group in PLACED else group)
    width = max(map(len, found), default=0)
    for name, path in found.items():
        star = "*" if chosen == name else " "
        lines.append(f" {star}{name:{width}}  {next(iter(comment(path)), '')}".rstrip())
    return [*lines, "", *_tasksets()] if group == "env" else lines


def _settings() -> list[str]:
    """The settings that belong to no group."""
    return _fields(RunSettings, completed(plain_yaml.read(CONF / "config.yaml"), RunSettings), "  ")


def _beginning(name: str) -> list[str]:
    """Those of them that a name is, or begins, as eval that of eval.episodes."""
    return [line for line in _settings() if re.match(rf"  {re.escape(name)}[.=]", line)]


def _tasksets() -> list[str]:
    lines = [f"  env={name}: {' '.join(comment(path))}" for name, path in options("taskset").items()]
    return ["Sets of tasks, for sweeps (-m)", *lines]


def _explained(word: str) -> list[str]:
    """The help of one word: a group, an option of one, "settings", or the beginning of some settings' names."""
    group, equals, name = word.partition("=")
    legal = [*groups(), *PLACED, *HYDRA_GROUPS]
    if word == "settings":
        return ["Settings of every run", *_settings()]
    if found := _beginning(group):
        return found
    if group not in legal:
        raise UserError(
            f"--help {word}: ask for a group, such as algo, an option, such as algo=gmpg, or settings; "
            f"{suggest(group, legal)}"
        )
    return _option(PLACED.get(group, group), name) if equals else _group(group)


def _option(group: str, name: str) -> list[str]:
    if name not in options(group):
        raise UserError(f"{group}={name}: no such option; {suggest(name, options(group), group)}")
    path = options(group)[name]
    first, *more = comment(path) or [""]
    lines = [f"{group}={name}: {first}", *(f"  {line}" for line in more), *background(path), ""]
    if group in HYDRA_GROUPS:
        return [*lines, "Settings", *_beginning(_SET_BY[name])] if name in _SET_BY else lines[:-1]
    if CONF not in path.parents:
        from genpolicy.config import option_files  # which imports Hydra

        option_files.checked(path)
    if group == "tuned":
        return [*lines, *_tuned(name)]
    node = all_settings(path, group)
    if TARGET not in node:
        return [*lines, *textwrap.indent(plain_yaml.content(path).decode(errors="replace"), "  ").splitlines()]
    cls = locate(node[TARGET])
    lines += [*textwrap.indent(inspect.cleandoc(cls.__doc__ or ""), "  ").splitlines(), ""]
    return [*lines, "Settings", *_fields(cls, node, "  ", f"{group}.")]


def _tuned(name: str) -> list[str]:
    """The values for an algorithm on a task, below the part of the file that each comes from."""
    lines = []
    for path, part, values in tuned.explained(name):
        lines.append(f"From {path}" + (f", {part}" if part else ""))
        lines += [f"  {_said(full, value):36} {remark}".rstrip() for full, value, remark in values]
    return lines


def _said(name: str, value: object) -> str:
    return f"{name}={written(value)}"


def _fields(cls: type, values: dict, indent: str, prefix: str = "") -> list[str]:
    """A line a setting: name, value, type and range, meaning; those of nested components below their own."""
    hints, lines = field_types(cls), []
    for field in dataclasses.fields(cls):
        name, value = prefix + field.name, values.get(field.name, "???")
        if is_nested(field) or dataclasses.is_dataclass(hints[field.name]):
            inner = locate(value[TARGET]) if is_nested(field) and TARGET in value else hints[field.name]
            lines += _fields(inner, value, indent, f"{name}.") if dataclasses.is_dataclass(inner) else []
            continue
        modes = field.metadata.get("modes", ())
        other = f"mode={'|'.join(modes)}: " if modes and "train" not in modes else ""
        doc = f"{other}{field.metadata.get('doc', '')} ({_legal(field, hints[field.name])})"
        lines.append(f"{indent}{_said(name, value):36} {doc}")
    return lines


def _legal(field: dataclasses.Field, hint: type) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    limits = [f"{sign} {field.metadata[name]}" for name, sign in signs.items() if name in field.metadata]
    choices = " | ".join(map(written, field.metadata.get("choices", ())))
    kind = name_of(hint) + (" or a time such as 2h" if "seconds" in field.metadata else "")
    return choices or ", ".join([kind, *limits])


def _defaults() -> dict[str, str]:
    """The default option of each group, with what the default options themselves choose."""
    chosen = {}
    for entry in plain_yaml.read(CONF / "config.yaml")["defaults"]:
        if isinstance(entry, dict):
            chosen |= {group.removeprefix("override "): option for group, option in entry.items()}
    for group in list(chosen):
        if group in groups() and chosen[group] in options(group):
            chosen |= _overridden(options(group)[chosen[group]])
    return chosen


def _overridden(path: Path) -> dict[str, str]:
    entries = [entry for file in lineage(path) for entry in settings_of(file).get("defaults") or []]
    chosen = {}
    for entry in entries:
        if isinstance(entry, dict):
            for group, option in entry.items():
                chosen[group.removeprefix("override").strip().strip("/").partition("@")[0]] = option
    return chosen
