"""What may have been meant by a word of the command line that is none: looked for only when there is such a word."""

from collections.abc import Iterator, Sequence

from omegaconf import DictConfig

from genpolicy.config import arguments
from genpolicy.config.option_content import all_settings
from genpolicy.config.run_settings import MODES, OF_ONE_MODE, TrainSettings

MANY = 5  # places of a setting that are named at most
OWN_FILES = ("config-dir", "cd", "config-path", "cp", "config-name", "cn")  # flags of Hydra's that ask for these
MODE_SETTINGS = (*OF_ONE_MODE, "launch", "search")  # which are rarely meant


def setting(name: str, value: str, config: DictConfig | None) -> str:
    """The full names under which there is a setting `name`, as words to give: 'say algo.beta=4'; '' if there is none.

    config: the composed configuration; what it has comes first, then what other options have, with these.
    """
    found = dict.fromkeys(_places(config, name), "") if config is not None else {}
    for group in arguments.groups():
        if group not in ("tuned", "experiment", "cluster"):
            nodes = {option: all_settings(path, group) for option, path in arguments.options(group).items()}
            having = [option for option, node in nodes.items() if name in node and not isinstance(node[name], dict)]
            if having and f"{group}.{name}" not in found:
                found[f"{group}.{name}"] = f" ({group}={'|'.join(having[:MANY])})"
    ordered = sorted(found, key=lambda place: place.split(".")[0] in MODE_SETTINGS)[:MANY]
    return f"say {' or '.join(f'{place}={value}{found[place]}' for place in ordered)}" if ordered else ""


def _places(node: DictConfig, name: str, prefix: str = "") -> Iterator[str]:
    for key in node:
        value = node._get_node(key)
        if isinstance(value, DictConfig) and not value._is_none() and not value._is_missing():
            yield from _places(value, name, f"{prefix}{key}.")
        elif key == name and prefix:
            yield prefix + key


def flag(word: str, rest: Sequence[str]) -> str:
    """'say seed=3' for `--seed 3` and `--seed=3`, where files of one's own lie; empty if it is neither."""
    name, equals, value = word.lstrip("-").partition("=")
    if name in OWN_FILES:
        return (
            "files of your own lie in ./conf/<group>/<option>.yaml, say conf/experiment/mine.yaml for experiment=mine"
        )
    name = name.replace("-", "_")
    if name.partition(".")[0] not in {*TrainSettings.__dataclass_fields__, *arguments.groups()}:
        return ""
    if not equals and rest and "=" not in rest[0] and not rest[0].startswith("-"):
        value = rest[0]
    return f"settings have no dashes; say {name}={value or '<value>'}"


def bare(word: str) -> str:
    """'say mode=train' for `train`, 'say algo=gmpo' for `gmpo`; empty for anything else."""
    if word in MODES:
        return f"say mode={word}"
    having = [group for group in arguments.groups() if group != "tuned" and word in arguments.options(group)]
    return f"say {' or '.join(f'{group}={word}' for group in having)}" if having else ""


def task(name: str) -> str:
    """'say env=gym env.id=Pendulum-v1' for what gymnasium knows by that name, in whatever case; empty otherwise."""
    import gymnasium  # slow, and needed only here

    known = {registered.lower(): registered for registered in gymnasium.registry}
    found = known.get(name.lower())
    return f"say env=gym env.id={found}" if found else ""
