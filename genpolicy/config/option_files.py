"""The files of options: what they may hold.

A folder `./conf` may come from other people. Its files give values to genpolicy's settings and choose its options, and
nothing else: nothing of Hydra's own configuration, which names classes that Hydra makes, and no resolver, such as
${oc.env:...}, which could put a secret into a run.
"""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from hydra.plugins.config_source import ConfigSource
from omegaconf import Container, OmegaConf
from omegaconf._utils import get_yaml_loader

from genpolicy.config import plain_yaml
from genpolicy.config.arguments import PLACED, options
from genpolicy.config.loader import parsed, settings_in
from genpolicy.config.run_settings import TrainSettings
from genpolicy.errors import UserError

SETTINGS = {field.name for field in fields(TrainSettings)}
_YAML = plain_yaml.as_typed(get_yaml_loader())
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_CHOSEN = r"\$\{[a-z]+\}"  # the option of a group
_PATH = re.compile(rf"/?({_NAME})(/{_NAME})*")
_OPTION = re.compile(rf"/?({_NAME}|{_CHOSEN})(/({_NAME}|{_CHOSEN}))*")
_PACKAGE = re.compile(rf"_here_|_global_|(_global_\.)?({'|'.join(sorted(SETTINGS))})(\.[A-Za-z_]\w*)*")
_REFERENCE = re.compile(r"\$\{[.\w]+\}")  # to another setting


def checked(path: Path) -> tuple[Container, dict[str, str | None]]:
    """The content of a file of the user's own, for Hydra, and the header before it.

    Raises `UserError` for whatever could reach Hydra's own configuration, and for resolvers.
    """
    text = plain_yaml.content(path)
    plain_yaml.check(text, path)
    try:
        header = ConfigSource._get_header_dict(text.decode())
        content = yaml.load(text, _YAML)
        config = OmegaConf.create({} if content is None else content)
        plain = OmegaConf.to_container(config, resolve=False)
    except Exception as error:  # whatever YAML and OmegaConf make of what is neither a list nor a mapping
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())[:300]})") from error
    if not isinstance(plain, dict):
        raise UserError(f"{path}: must hold settings, as in 'name: value'")
    package = header.get("package")
    if package is not None and not _PACKAGE.fullmatch(package):
        raise UserError(f"{path}: # @package {package}: no place of settings; legal: _global_, or a group")
    if "hydra" in plain:
        raise UserError(f"{path}: hydra: genpolicy arranges this itself; no file of options may change it")
    defaults = plain.pop("defaults", [])
    for entry in defaults if isinstance(defaults, list) else [defaults]:
        _check_entry(entry, path)
    _check_values(plain, path)
    return config, header


def check_said(settings: dict, overrides: list[str]) -> None:
    """Refuses what only the command line may say, where a file of options has said it: the file may be a stranger's.

    That is where data are sent, that a run is deleted, and lines for a shell, but for those of the `cluster` that the
    command line names.
    """
    given = settings_in(overrides)
    if settings["overwrite"] and "overwrite" not in given:
        raise UserError("overwrite: deletes a run; give it on the command line, not in a file of options")
    for group, name in ("tracking", "uri"), ("search", "storage"):
        if settings[group][name] is not None and f"{group}.{name}" not in given:
            raise UserError(
                f"{group}.{name}: says where data are sent; give it on the command line, not in a file of options"
            )
    if settings["launch"]["setup"] and "launch.setup" not in given:
        known = options("cluster")
        said = [parsed(word) for word in overrides]
        chosen = [override.value() for override in said if override.key_or_group == "cluster"]
        names = [name for value in chosen for name in (value if isinstance(value, list) else [value])]
        sites = [plain_yaml.read(known[name]) for name in names if name in known]
        lines = [site.get("setup", site.get("launch", {}).get("setup")) for site in sites]
        if settings["launch"]["setup"] not in lines:
            raise UserError("launch.setup: lines for a shell; give them, or the cluster=<site> that has them, yourself")


def _check_entry(entry: Any, path: Path) -> None:
    """One entry of a defaults list: an option of a group of genpolicy's, at a place of genpolicy's."""
    if isinstance(entry, str):
        chosen, named = entry, []
    elif isinstance(entry, dict) and len(entry) == 1:
        ((chosen, named),) = entry.items()
        chosen = re.sub(r"^((optional|override) )*", "", str(chosen))
        named = named if isinstance(named, list) else [named]
    else:
        raise UserError(f"{path}: defaults: {entry!r} is no option")
    group, at, package = chosen.partition("@")
    legal = _PATH.fullmatch(group) and all(
        option is None or (isinstance(option, str) and _OPTION.fullmatch(option)) for option in named
    )
    if not legal or (at and not _PACKAGE.fullmatch(package)) or "hydra" in re.split("[/.]", group):
        raise UserError(f"{path}: defaults: {entry!r} is no option of genpolicy's groups; Hydra's own cannot be chosen")
    if (name := group.strip("/")) in PLACED:
        word = f"override /{PLACED[name]}@_global_.{name}: {', '.join(map(str, named))}"
        raise UserError(f"{path}: defaults: {entry!r}: {name} takes the options of {PLACED[name]}; write {word!r}")


def _check_values(value: Any, path: Path) -> None:
    if isinstance(value, dict):
        for name, part in value.items():
            _check_values(name, path)
            _check_values(part, path)
    elif isinstance(value, list):
        for part in value:
            _check_values(part, path)
    elif isinstance(value, str) and "${" in _REFERENCE.sub("", value):
        raise UserError(
            f"{path}: {value!r}: only references to other settings, such as ${{seed}}, are resolved in a file of "
            "options; give the value itself, or give it on the command line"
        )
