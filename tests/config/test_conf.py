"""The files of conf/: each lists what differs from its class, says what it is, and goes together with the rest."""

import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from command_line import jobs
from omegaconf import DictConfig, OmegaConf

from genpolicy.config.arguments import CONF, groups, options
from genpolicy.config.option_content import all_settings, comment, lineage, merged
from genpolicy.config.run_settings import RunSettings, TrainSettings
from genpolicy.config.schema import TARGET, completed, field_types, is_nested, locate

COMPONENTS = [group for group in groups() if group not in ("tuned", "experiment", "cluster")]


pytestmark = pytest.mark.usefixtures("elsewhere")


def repeated(given: dict, cls: type, inherited: dict, path: str = "") -> Iterator[str]:
    """The settings that a file gives as its class, or the file that it builds on, has them anyway."""
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    unknown = given.keys() - fields.keys() - {TARGET}
    assert not unknown, f"{cls.__name__} has no {', '.join(unknown)}"
    defaults = completed(inherited, cls)
    for name in given.keys() & fields.keys():
        value = given[name]
        if is_nested(fields[name]):
            yield from repeated(value, locate(value[TARGET]), inherited.get(name, {}), f"{path}{name}.")
        elif dataclasses.is_dataclass(fields[name].type):
            yield from repeated(value, fields[name].type, {}, f"{path}{name}.")
        elif value == defaults[name]:
            yield f"{path}{name}"


@pytest.mark.parametrize("group", COMPONENTS)
def test_an_option_lists_what_differs_from_the_defaults_of_its_class(group):
    assert options(group)
    for path in options(group).values():
        *bases, _ = lineage(path)
        inherited = merged(bases[-1], group) if bases else {}
        given = OmegaConf.to_container(OmegaConf.load(path))
        given.pop("defaults", None)
        assert [*repeated(given, locate(merged(path, group)[TARGET]), inherited)] == [], path


def test_config_yaml_lists_what_differs_from_the_defaults_of_the_settings():
    content = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml"))
    del content["defaults"], content["hydra"]
    assert [*repeated(content, RunSettings, {})] == []


@pytest.mark.parametrize("group", [*COMPONENTS, "likelihood"])
def test_a_job_has_all_settings_of_its_options(group):
    """Those that no file lists, too, and these can be referred to, and be given on a command line."""
    [(job, _)] = jobs("algo=gmpg", "log_every='${algo.critic_batch_size}'", "algo.chunk='${seed}1'", "seed=3")
    node = job.config[group]
    assert node.keys() - {TARGET} == {field.name for field in dataclasses.fields(locate(node[TARGET])) if field.init}
    assert (job.config.log_every, job.config.algo.chunk) == (job.config.algo.critic_batch_size, 31)


def test_every_number_has_bounds():
    """Where nothing but the sign is wrong with 1e21, a command waits for ever, or the machine runs out of memory."""
    classes = set()

    def walk(cls, node):
        classes.add(cls)
        hints = field_types(cls)
        for field in dataclasses.fields(cls):
            if dataclasses.is_dataclass(hints[field.name]):
                walk(hints[field.name], {})
            elif is_nested(field) and field.name in node:
                walk(locate(node[field.name][TARGET]), node[field.name])

    walk(TrainSettings, {})
    for group in COMPONENTS:
        for path in options(group).values():
            node = all_settings(path, group)
            walk(locate(node[TARGET]), node)
    found, unbounded = 0, []
    for cls in classes:
        hints = field_types(cls)
        for field in dataclasses.fields(cls):
            if field.init and {int, float} & {hints[field.name], *typing.get_args(hints[field.name])}:
                found += 1
                low, high = (any(end in field.metadata for end in ends) for ends in (("ge", "gt"), ("le", "lt")))
                if not (low and high) and "choices" not in field.metadata:
                    unbounded.append(f"{cls.__name__}.{field.name}")
    assert found > 200
    assert unbounded == ["Launch.gpus"]  # a number or 'a100:1', which genpolicy.config.sbatch checks


def test_every_component_has_a_group_and_every_group_a_component():
    fields = {field.name for field in dataclasses.fields(TrainSettings) if is_nested(field)}
    assert fields == {*COMPONENTS, "likelihood"}


@pytest.mark.parametrize("group", groups())
def test_every_option_says_in_a_line_what_it_is(group):
    for path in options(group).values():
        if group != "tuned":
            assert comment(path), path
            assert len(comment(path)[0]) > 10, path


def contains(config: DictConfig, values: dict) -> bool:
    """Whether the configuration has these values, wherever they are nested."""
    return all(
        contains(config[name], value) if isinstance(value, dict) else config[name] == value
        for name, value in values.items()
        if name != "defaults"
    )


@pytest.mark.parametrize("name", options("cluster"))
def test_a_profile_of_a_cluster_is_taken_and_legal(name):
    [(job, _)] = jobs("-m", "hydra/launcher=slurm", f"cluster={name}")
    assert contains(job.config.launch, yaml.safe_load(options("cluster")[name].read_text()))


def test_no_file_of_conf_is_left_out():
    """Every YAML is an option of a group, a part shared by options, or one of Hydra's and the task sets."""
    known = {path for group in groups() for path in options(group).values()}
    for path in CONF.rglob("*.yaml"):
        inside = path.relative_to(CONF).parts
        if inside[0] in ("hydra", "taskset") or inside == ("config.yaml",) or path in known:
            continue
        assert any(f"{Path(*inside[1:]).with_suffix('')}@_here_" in other.read_text() for other in known), path
