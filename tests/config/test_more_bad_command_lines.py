"""Three hundred more bad command lines, of what people do: each is one line and exit code 1, and leaves nothing."""

import typing

import gymnasium
import pytest
from command_line import mistaken
from test_bad_command_lines import misspelt, settings

from genpolicy.config.arguments import groups, options
from genpolicy.config.option_content import all_settings
from genpolicy.config.run_settings import MODES, TrainSettings

EACH = 25  # lines of each of the twelve kinds
CHOICES = [group for group in groups() if group not in ("tuned", "experiment", "cluster", "env", "dataset")]


def numbers(*types):
    """Settings of the default configuration that are numbers, or lists of them."""
    found = []
    for name, _, hint in settings():
        if {hint, *typing.get_args(hint)} & {*types} and not {hint, *typing.get_args(hint)} & {str, bool}:
            found.append((name, typing.get_origin(hint) is list))
    return found


def far_too_large(draw):
    name, many = draw.choice(numbers(int, float))
    value = draw.choice(["1e31", "1e300", "9" * 40, "123456789e30"])
    return [f"{name}=[{value}]" if many else f"{name}={value}"]


def no_whole_number(draw):
    name, many = draw.choice([entry for entry in numbers(int) if entry not in numbers(float)])
    value = draw.choice(["1.5e0", "2.25", "1e-3", "3.0000001", "0x10", "1_0.5", "12h"])
    return [f"{name}=[{value}]" if many else f"{name}={value}"]


def no_time(draw):
    value = draw.choice(["2x", "h2", "1:3:0", "1:00", "-2h", "2h-", "1d 2", "soon", "2hh", "1.5.2h", "99999d", "0.1s"])
    if draw.random() < 0.3:
        return [
            f"checkpoint_seconds={draw.choice(['2x', 'soon', '1:00', '-2m', '999999999d'])}",
            f"seed={draw.randrange(9)}",
        ]
    return ["-m", "hydra/launcher=local", f"launch.minutes='{value}'", f"seed={draw.randrange(9)}"]


def dashes(draw):
    name = draw.choice([*(name for name, _, _ in settings()), *groups()])
    name = draw.choice([name, name.replace("_", "-")])
    return draw.choice([[f"--{name}", "3"], [f"--{name}=3"], [f"-{name}", "3"], ["algo=bc", f"--{name}"]])


def last_name_alone(draw):
    top = {*TrainSettings.__dataclass_fields__, *groups()}
    names = sorted({name.rpartition(".")[2] for name, _, _ in settings()} - top)
    return [*draw.choice([[], ["algo=bc"], ["-m", "seed=0,1"], ["algo=nothing"]]), f"{draw.choice(names)}=3"]


def key_without_value(draw):
    group = draw.choice(CHOICES)
    return draw.choice([[draw.choice(MODES)], [draw.choice(sorted(options(group)))], [group], [group, "=", "bc"]])


def lacked_by_some(draw):
    while True:
        group = draw.choice(CHOICES)
        first, second = draw.sample(sorted(options(group)), 2)
        nodes = [all_settings(options(group)[name], group) for name in (first, second)]
        only = sorted(name for name in nodes[0].keys() - nodes[1].keys() if not isinstance(nodes[0][name], dict))
        if only:
            return ["-m", f"{group}={first},{second}", f"{group}.{draw.choice(only)}=1"]


def unquoted_path(draw):
    name = draw.choice(["a[1],b.npz", "data (1).npz", "x{1}.npz", "a, b.npz", "a]b", "a,b,c", "(x)", "run:[3].pt"])
    key = draw.choice(["dataset.path", "paths.outputs", "paths.data", "checkpoint", "collect.path"])
    return [*draw.choice([[], ["mode=eval"], ["dataset=npz"], ["dataset=hdf5"]]), f"{key}={name}"]


def simulator_for_a_task(draw):
    name = draw.choice(sorted(name for name in gymnasium.registry if "/" not in name))
    return [f"env={draw.choice([name, name.lower(), name.upper(), name[:-1] + '9'])}"]


def no_store(draw):
    uri = draw.choice(
        ["file:///x", "./mlruns", "mlruns", "/x/y", "foo://x", "http://u:p@h/", "https://me@h", "sqlite:x", "''"]
    )
    mode = draw.choice([[], ["mode=sync"], ["mode=report"], ["mode=sync", "--follow"], ["-m", "seed=0,1"], ["algo=bc"]])
    return [*mode, f"tracking.uri={uri}"]


def another_modes_setting(draw):
    name = draw.choice([name for name, _, _ in settings() if "." in name])
    top = name.partition(".")[0]
    mode = draw.choice([mode for mode in ("sync", "status", "report", "tasks") if mode != top])
    if top in ("check", "collect", "report") or top in groups() or top == "likelihood":
        return [f"mode={mode}", f"{name}=1"]
    return [f"mode={mode}", f"{draw.choice(CHOICES)}.{misspelt(draw, 'steps', [])}=1"]


def bad_data_or_simulator(draw):
    kind = draw.choice(["npz", "hdf5"])
    path = draw.choice(["file", "nowhere.npz", ".", "''", "/", "file/x"])
    task = draw.choice(["Pendulum-v1", "Hopper-v2", "CartPole-v1", ".x:N-v0", "a..b:N-v0", ":N", "N-v0", "''", "x y"])
    sweep = draw.choice([[], ["-m", "seed=0,1"]])
    return [*sweep, "env=gym", f"env.id={task}", f"dataset={kind}", f"dataset.path={path}"]


KINDS = [
    far_too_large,
    no_whole_number,
    no_time,
    dashes,
    last_name_alone,
    key_without_value,
    lacked_by_some,
    unquoted_path,
    simulator_for_a_task,
    no_store,
    another_modes_setting,
    bad_data_or_simulator,
]


@pytest.mark.slow
@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_a_bad_command_line_is_one_line(make, tmp_path):
    assert mistaken(make, EACH, tmp_path) == []
