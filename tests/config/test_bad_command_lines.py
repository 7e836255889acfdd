"""Five hundred random bad command lines: each is one line on stderr and exit code 1, and leaves nothing."""

import dataclasses
import functools
import random
import typing
from collections.abc import Callable

import gymnasium
import pytest
from command_line import jobs, mistaken

from genpolicy.config.arguments import groups, options
from genpolicy.config.option_content import all_settings
from genpolicy.config.run_settings import MODES, RunSettings, TrainSettings
from genpolicy.config.schema import TARGET, field_types, is_nested, locate

EACH = 15  # lines of each kind
CHOICES = [group for group in groups() if group not in ("tuned", "experiment", "cluster", "env", "dataset")]
KINDS: list[Callable[[random.Random], list[str]]] = []  # each draws a line

WRONG = {
    int: ["abc", "1.5", "true", "null", "[1]", "{a:1}", "''", "1e3x"],
    float: ["abc", "true", "nan", "inf", "-inf", "1e400", "[1]", "{a:1}", "''"],
    bool: ["maybe", "3.5", "[true]", "null", "2"],
    str: ["[a]", "{a:1}", "null"],
    list: ["3", "abc", "[abc]", "[null]", "[[1]]", "null"],
}


def kind_of_line(draw_line):
    """Decorator of what draws a bad line."""
    KINDS.append(draw_line)
    return draw_line


def kind(hint) -> type | None:
    """The plain type of an annotation that does not take null; None if it does."""
    if hint in WRONG:
        return hint
    return list if typing.get_origin(hint) is list else None


@functools.cache
def settings() -> list[tuple[str, dataclasses.Field, object]]:
    """Every setting of the default configuration: its full name, its field, its type."""
    found = []

    def walk(cls, node, prefix):
        hints = field_types(cls)
        for field in dataclasses.fields(cls):
            if is_nested(field):
                walk(locate(node[field.name][TARGET]), node[field.name], f"{prefix}{field.name}.")
            elif dataclasses.is_dataclass(hints[field.name]):
                walk(hints[field.name], node[field.name], f"{prefix}{field.name}.")
            else:
                found.append((prefix + field.name, field, hints[field.name]))

    [(job, _)] = jobs()
    walk(RunSettings, job.config, "")
    for name, node in job.config.items():
        if TARGET in (node if hasattr(node, "keys") else ()):
            walk(locate(node[TARGET]), node, f"{name}.")
    return found


def misspelt(draw: random.Random, word: str, legal) -> str:
    """The word with one letter changed, left out, doubled or swapped, so that it is not legal."""
    while True:
        at = draw.randrange(len(word))
        letter = draw.choice("abcdefghijklmnopqrstuvwxyz_9")
        wrong = draw.choice(
            [
                word[:at] + letter + word[at + 1 :],
                word[:at] + word[at + 1 :],
                word[:at] + word[at] + word[at:],
                word + letter,
            ]
        )
        if wrong and wrong not in legal and wrong[0].isalpha() and wrong[-1] not in "-.":
            return wrong


def numbers(*types):
    """Settings of the default configuration that are numbers, or lists of them."""
    found = []
    for name, _, hint in settings():
        if {hint, *typing.get_args(hint)} & {*types} and not {hint, *typing.get_args(hint)} & {str, bool}:
            found.append((name, typing.get_origin(hint) is list))
    return found


@kind_of_line
def unknown_option(draw):
    group = draw.choice(groups())
    legal = options(group) or {"hopper": None}
    name = misspelt(draw, draw.choice(sorted(legal)), [*legal, "none", "null"])
    return draw.choice([[f"{group}={name}"], ["-m", f"{group}={name}"], ["seed=3", f"{group}={name}"]])


@kind_of_line
def unknown_setting(draw):
    names = {name for name, _, _ in settings()}
    parents = {name.rpartition(".")[0] for name in names} - {""}
    name = draw.choice(sorted(names))
    inside, dot, last = name.rpartition(".")
    siblings = {other.rpartition(".")[2] for other in names | parents if other.rpartition(".")[0] == inside}
    legal = siblings | {"tuned", "experiment"}
    wrong = inside + dot + misspelt(draw, last, legal)
    return [f"{draw.choice(['', '+', '++'])}{wrong}={draw.choice(['1', 'abc', '[1]', 'null'])}"]


@kind_of_line
def wrong_type(draw):
    name, _, hint = draw.choice([entry for entry in settings() if kind(entry[2])])
    return [f"{name}={draw.choice(WRONG[kind(hint)])}"]


@kind_of_line
def out_of_range(draw):
    limits = ("ge", "gt", "le", "lt", "choices")
    bounded = [entry for entry in settings() if any(limit in entry[1].metadata for limit in limits)]
    name, field, hint = draw.choice(bounded)
    meta = field.metadata
    if "choices" in meta:
        words = [choice for choice in meta["choices"] if isinstance(choice, str)]
        value = misspelt(draw, draw.choice(words), words) if words else "none_of_these"
    elif "le" in meta or "lt" in meta:
        value = 2 * abs(meta.get("le", meta.get("lt"))) + draw.choice([1, 10, 10**9])  # beyond a float's digits, too
    else:
        value = meta.get("ge", meta.get("gt")) - draw.choice([1, 10, 10**9])
    value = int(value) if hint in (int, list[int]) else value
    return [f"{name}=[{value}]" if kind(hint) is list else f"{name}={value}"]


@kind_of_line
def bad_syntax(draw):
    value = draw.choice(
        ["[1", "{a:1", "'a", 'a"', "range(1", "1]", "a=b", "(", "$", "${", "[1,,2]", "choice(", "a:", "\\"]
    )
    key = draw.choice(["seed", "algo.beta", "eval.episodes"])
    broken = ["seed", "=1", "algo", ".seed=1", "seed.=1", "algo..beta=1", "1=2", "@=1", "", " ", "a b=1", "seed=1\nx=2"]
    return draw.choice([[f"{key}={value}"], [draw.choice(broken)], ["-m", f"{key}=choice({value})"]])


@kind_of_line
def bad_flag(draw):
    flag = draw.choice(
        ["--seed", "-x", "--config-name", "--config-dir", "--run", "-cn", "-", "--", "--hydra-help", "---m"]
    )
    value = draw.choice(["", "job", "x", "seed=1"])
    return draw.choice(
        [
            [flag],
            [flag, value or "algo=bc"],
            ["--cfg", value.replace("job", "jobs") or "all2"],
            ["--info=" + draw.choice(["", "everything", "1"])],
            ["--multirun=" + value],
            ["--package"],
            ["--help", value.replace("seed=1", "sead=1") or "algorithm"],
        ]
    )


@kind_of_line
def bad_path(draw):
    outside = draw.choice(["../x", "/tmp/x", "a/b", "..", ".", "", "a\\b", "-x", "~", "a:b", "x" * 200])
    missing = draw.choice(["nowhere", "/nowhere/at/all", "0" * 32, "file", ".", "..", "~/nowhere/x"])
    target = draw.choice(["os.system", "builtins.eval", "genpolicy", "genpolicy.app.main", "3"])
    return draw.choice(
        [
            [f"study='{outside}'" if "\\" not in outside else f"study={outside}"],
            ["mode=eval", f"checkpoint={missing}"],
            ["mode=eval", "checkpoint="],
            [f"checkpoint={missing}"],
            ["paths.outputs=' '"],
            ["paths.outputs=file/below"],
            [f"network._target_={target}"],
            ["hydra.run.dir=x"],
            ["hydra.output_subdir=x"],
        ]
    )


@kind_of_line
def bad_combination(draw):
    return draw.choice(
        [
            ["algo=bc", "algo.beta=1"],
            ["-m", "algo=gmpg,bc", "algo.beta=1,2"],
            ["mode=eval"],
            ["mode=eval", "checkpoint=x", f"{draw.choice(groups())}=x"],
            ["mode=sync", "algo.beta=1"],
            ["env=hopper-medium-v2", "dataset=waypoint"],
            ["env=locomotion"],
            ["-m", "env=locomotion,nothing"],
            ["-m", "algo=glob(nothing*)"],
            ["algo=bc,gmpg"],
            [f"seed={draw.choice(['0,1', 'range(3)', 'choice(1,2)', 'glob(*)'])}"],
            ["-m", "seed=interval(0,1)"],
            ["-m", "seed=0,-1"],
            ["--cfg", "job", "-m"],
            ["--resolve"],
            ["~algo"],
            ["~seed"],
            ["~network.hidden"],
            ["tuned=null"],
            ["experiment=[nothing]"],
            ["+experiment=short"],
            ["solver@model=rk4"],
            ["hydra/launcher=basic"],
            ["hydra.mode=MULTIRUN"],
        ]
    )


@kind_of_line
def far_too_large(draw):
    name, many = draw.choice(numbers(int, float))
    value = draw.choice(["1e31", "1e300", "9" * 40, "123456789e30"])
    return [f"{name}=[{value}]" if many else f"{name}={value}"]


@kind_of_line
def no_whole_number(draw):
    name, many = draw.choice([entry for entry in numbers(int) if entry not in numbers(float)])
    value = draw.choice(["1.5e0", "2.25", "1e-3", "3.0000001", "0x10", "1_0.5", "12h"])
    return [f"{name}=[{value}]" if many else f"{name}={value}"]


@kind_of_line
def no_time(draw):
    value = draw.choice(["2x", "h2", "1:3:0", "1:00", "-2h", "2h-", "1d 2", "soon", "2hh", "1.5.2h", "99999d", "0.1s"])
    if draw.random() < 0.3:
        return [
            f"checkpoint_seconds={draw.choice(['2x', 'soon', '1:00', '-2m', '999999999d'])}",
            f"seed={draw.randrange(9)}",
        ]
    return ["-m", "hydra/launcher=local", f"launch.minutes='{value}'", f"seed={draw.randrange(9)}"]


@kind_of_line
def dashes(draw):
    name = draw.choice([*(name for name, _, _ in settings()), *groups()])
    name = draw.choice([name, name.replace("_", "-")])
    return draw.choice([[f"--{name}", "3"], [f"--{name}=3"], [f"-{name}", "3"], ["algo=bc", f"--{name}"]])


@kind_of_line
def last_name_alone(draw):
    top = {*TrainSettings.__dataclass_fields__, *groups()}
    names = sorted({name.rpartition(".")[2] for name, _, _ in settings()} - top)
    return [*draw.choice([[], ["algo=bc"], ["-m", "seed=0,1"], ["algo=nothing"]]), f"{draw.choice(names)}=3"]


@kind_of_line
def key_without_value(draw):
    group = draw.choice(CHOICES)
    return draw.choice([[draw.choice(MODES)], [draw.choice(sorted(options(group)))], [group], [group, "=", "bc"]])


@kind_of_line
def lacked_by_some(draw):
    while True:
        group = draw.choice(CHOICES)
        first, second = draw.sample(sorted(options(group)), 2)
        nodes = [all_settings(options(group)[name], group) for name in (first, second)]
        only = sorted(name for name in nodes[0].keys() - nodes[1].keys() if not isinstance(nodes[0][name], dict))
        if only:
            return ["-m", f"{group}={first},{second}", f"{group}.{draw.choice(only)}=1"]


@kind_of_line
def unquoted_path(draw):
    name = draw.choice(["a[1],b.npz", "data (1).npz", "x{1}.npz", "a, b.npz", "a]b", "a,b,c", "(x)", "run:[3].pt"])
    key = draw.choice(["dataset.path", "paths.outputs", "paths.data", "checkpoint", "collect.path"])
    return [*draw.choice([[], ["mode=eval"], ["dataset=npz"], ["dataset=hdf5"]]), f"{key}={name}"]


@kind_of_line
def simulator_for_a_task(draw):
    names = {name for name in gymnasium.registry if "/" not in name} - options("env").keys()  # d4rl registers some
    name = draw.choice(sorted(names))
    return [f"env={draw.choice([name, name.lower(), name.upper(), name[:-1] + '9'])}"]


@kind_of_line
def no_store(draw):
    uri = draw.choice(
        ["file:///x", "./mlruns", "mlruns", "/x/y", "foo://x", "http://u:p@h/", "https://me@h", "sqlite:x", "''"]
    )
    mode = draw.choice([[], ["mode=sync"], ["mode=report"], ["mode=sync", "--follow"], ["-m", "seed=0,1"], ["algo=bc"]])
    return [*mode, f"tracking.uri={uri}"]


@kind_of_line
def another_modes_setting(draw):
    name = draw.choice([name for name, _, _ in settings() if "." in name])
    top = name.partition(".")[0]
    mode = draw.choice([mode for mode in ("sync", "status", "report", "tasks") if mode != top])
    if top in ("check", "collect", "report") or top in groups() or top == "likelihood":
        return [f"mode={mode}", f"{name}=1"]
    return [f"mode={mode}", f"{draw.choice(CHOICES)}.{misspelt(draw, 'steps', [])}=1"]


@kind_of_line
def bad_data_or_simulator(draw):
    kind = draw.choice(["npz", "hdf5"])
    path = draw.choice(["file", "nowhere.npz", ".", "''", "/", "file/x"])
    task = draw.choice(["Pendulum-v1", "Hopper-v2", "CartPole-v1", ".x:N-v0", "a..b:N-v0", ":N", "N-v0", "''", "x y"])
    sweep = draw.choice([[], ["-m", "seed=0,1"]])
    return [*sweep, "env=gym", f"env.id={task}", f"dataset={kind}", f"dataset.path={path}"]


@pytest.mark.slow
@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_a_bad_command_line_is_one_line(make, tmp_path):
    assert mistaken(make, EACH, tmp_path) == []
