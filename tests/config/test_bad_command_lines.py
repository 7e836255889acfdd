"""Two hundred random bad command lines: each is one line on stderr and exit code 1, and leaves nothing."""

import dataclasses
import functools
import random
import typing

import pytest
from command_line import jobs, mistaken

from genpolicy.config.arguments import groups, options
from genpolicy.config.run_settings import RunSettings
from genpolicy.config.schema import TARGET, field_types, is_component, locate

EACH = 25  # lines of each of the eight kinds

WRONG = {
    int: ["abc", "1.5", "true", "null", "[1]", "{a:1}", "''", "1e3x"],
    float: ["abc", "true", "nan", "inf", "-inf", "1e400", "[1]", "{a:1}", "''"],
    bool: ["maybe", "3.5", "[true]", "null", "2"],
    str: ["[a]", "{a:1}", "null"],
    list: ["3", "abc", "[abc]", "[null]", "[[1]]", "null"],
}


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
            if is_component(field):
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


def unknown_option(draw):
    group = draw.choice(groups())
    legal = options(group) or {"hopper": None}
    name = misspelt(draw, draw.choice(sorted(legal)), [*legal, "none", "null"])
    return draw.choice([[f"{group}={name}"], ["-m", f"{group}={name}"], ["seed=3", f"{group}={name}"]])


def unknown_setting(draw):
    names = {name for name, _, _ in settings()}
    parents = {name.rpartition(".")[0] for name in names} - {""}
    name = draw.choice(sorted(names))
    inside, dot, last = name.rpartition(".")
    siblings = {other.rpartition(".")[2] for other in names | parents if other.rpartition(".")[0] == inside}
    legal = siblings | {"tuned", "experiment"}
    wrong = inside + dot + misspelt(draw, last, legal)
    return [f"{draw.choice(['', '+', '++'])}{wrong}={draw.choice(['1', 'abc', '[1]', 'null'])}"]


def wrong_type(draw):
    name, _, hint = draw.choice([entry for entry in settings() if kind(entry[2])])
    return [f"{name}={draw.choice(WRONG[kind(hint)])}"]


def out_of_range(draw):
    limits = ("ge", "gt", "le", "lt", "choices")
    bounded = [entry for entry in settings() if any(limit in entry[1].metadata for limit in limits)]
    name, field, hint = draw.choice(bounded)
    meta = field.metadata
    if "choices" in meta:
        value = misspelt(draw, draw.choice(meta["choices"]), meta["choices"])
    elif "le" in meta or "lt" in meta:
        value = 2 * abs(meta.get("le", meta.get("lt"))) + draw.choice([1, 10, 10**9])  # beyond a float's digits, too
    else:
        value = meta.get("ge", meta.get("gt")) - draw.choice([1, 10, 10**9])
    value = int(value) if hint in (int, list[int]) else value
    return [f"{name}=[{value}]" if kind(hint) is list else f"{name}={value}"]


def bad_syntax(draw):
    value = draw.choice(
        ["[1", "{a:1", "'a", 'a"', "range(1", "1]", "a=b", "(", "$", "${", "[1,,2]", "choice(", "a:", "\\"]
    )
    key = draw.choice(["seed", "algo.beta", "eval.episodes"])
    broken = [
        "seed",
        "=1",
        "algo",
        ".seed=1",
        "seed.=1",
        "algo..beta=1",
        "1=2",
        "@=1",
        "",
        " ",
        "a b=1",
        "seed=1\nx=2",
    ]
    return draw.choice([[f"{key}={value}"], [draw.choice(broken)], ["-m", f"{key}=choice({value})"]])


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
            ["--help", value or "algorithm"],
        ]
    )


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


KINDS = [
    unknown_option,
    unknown_setting,
    wrong_type,
    out_of_range,
    bad_syntax,
    bad_flag,
    bad_path,
    bad_combination,
]


@pytest.mark.slow
@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_a_bad_command_line_is_one_line(make, tmp_path):
    assert mistaken(make, EACH, tmp_path) == []
