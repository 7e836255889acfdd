"""The files of conf/: each lists what its class takes, says what it is, and goes together with the rest."""

import dataclasses
import typing
from pathlib import Path

import pytest
import yaml
from command_line import jobs
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from genpolicy.config.arguments import CONF, groups, options
from genpolicy.config.option_content import comment, merged
from genpolicy.config.run_settings import RunSettings, TrainSettings
from genpolicy.config.schema import TARGET, field_types, is_component, locate

COMPONENTS = [group for group in groups() if group not in ("tuned", "experiment", "cluster")]


pytestmark = pytest.mark.usefixtures("elsewhere")


def listed(node: dict, path: str) -> None:
    """The node's keys are its class's settings, here and in nested components."""
    cls = locate(node[TARGET])
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    assert set(node) - {TARGET} == set(fields), f"{path} and {cls.__name__} differ"
    for name, field in fields.items():
        if is_component(field):
            listed(node[name], f"{path}.{name}")


@pytest.mark.parametrize("group", COMPONENTS)
def test_an_option_lists_exactly_the_settings_of_its_class(group):
    assert options(group)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for name in options(group):
            node = compose("config", overrides=[f"{group}={name}", "tuned=none"])[group]
            listed(OmegaConf.to_container(node), f"conf/{group}/{name}.yaml")


def test_config_yaml_lists_exactly_the_settings_of_every_run():
    content = yaml.safe_load((CONF / "config.yaml").read_text())
    for field in dataclasses.fields(RunSettings):
        if dataclasses.is_dataclass(field.type):
            assert set(content[field.name]) == {inner.name for inner in dataclasses.fields(field.type)}
    assert set(content) - {"defaults", "hydra"} == {field.name for field in dataclasses.fields(RunSettings)}
    defaults = OmegaConf.create(
        {field.name: getattr(RunSettings(), field.name) for field in dataclasses.fields(RunSettings)}
    )
    plain = OmegaConf.to_container(defaults)
    plain["paths"] = content["paths"] = None
    assert plain == {name: content[name] for name in plain}


def test_every_number_has_bounds():
    """Where nothing but the sign is wrong with 1e21, a command waits for ever, or the machine runs out of memory."""
    classes = set()

    def walk(cls, node):
        classes.add(cls)
        hints = field_types(cls)
        for field in dataclasses.fields(cls):
            if dataclasses.is_dataclass(hints[field.name]):
                walk(hints[field.name], {})
            elif is_component(field) and field.name in node:
                walk(locate(node[field.name][TARGET]), node[field.name])

    walk(TrainSettings, {})
    for group in COMPONENTS:
        for path in options(group).values():
            node = merged(path, group)
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
    fields = {field.name for field in dataclasses.fields(TrainSettings) if is_component(field)}
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
