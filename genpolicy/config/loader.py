"""Hydra's loader of configurations, made quick: what jobs and commands share is done once."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import yaml
from hydra import version
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository, IConfigRepository
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import InputDefault, ResultDefault
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobRuntime, setup_globals
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf._utils import get_yaml_loader

from genpolicy.config import plain_yaml
from genpolicy.config.arguments import CONF
from genpolicy.config.nodes import packed, unpacked

PRIMARY = "config"  # the file that every configuration begins with


@functools.cache
def parsed(word: str) -> Override:
    """A word of the command line by Hydra's grammar. Raises `OverrideParseException`."""
    [override] = OverridesParser.create().parse_overrides([word])
    return override


def settings_in(words: Sequence[str]) -> set[str]:
    """The names of what words set: launch.gpus and launch.cpus of launch={gpus:1,cpus:2}."""
    found = set()
    for override in map(parsed, words):
        key, value = override.key_or_group, override.value()
        found |= {f"{key}.{name}" for name in value} if isinstance(value, dict) else {key}
    return found


class Loader(ConfigLoaderImpl):
    """Composes from genpolicy's options and those of the user's own.

    It takes its steps from Hydra, and composes what Hydra would. But a file is read once while it does not change, and
    what the options that a job chooses compose is composed once; the job's values are set in a copy.
    """

    # Of the whole process: the content of each file, and what Hydra makes of it at a place in the configuration.
    _placed: ClassVar[dict[tuple[str | None, str | None], tuple[Any, ConfigResult, bytes]]] = {}

    def __init__(self) -> None:
        version.setbase("1.3")
        setup_globals()
        JobRuntime.instance().set("name", "genpolicy")
        super().__init__(create_config_search_path(str(CONF)))
        self.repository = _Files(self.config_search_path)
        self._composed: dict[tuple[str, ...], tuple[bytes, dict[str, str | None]]] = {}

    def job(self, words: Sequence[str], number: int | None = None) -> tuple[DictConfig, dict[str, str | None]]:
        """What the words of a job compose, without Hydra's part of the configuration, and the option of each group.

        `number` is the job's place in its sweep. The words choose nothing of Hydra's own groups. Raises what Hydra
        raises.
        """
        overrides = [parsed(word) for word in words]
        self.validate_sweep_overrides_legal(overrides, RunMode.RUN, from_shell=True)
        if any("${hydra:" in str(override.value()) for override in overrides):  # which a word may have in escapes
            self._tell_hydra(words, number)
        choosing = [override for override in overrides if self._chooses(override)]
        composed, choices = self._composed_of(choosing)
        config = unpacked(composed)
        self._apply_overrides_to_config([override for override in overrides if override not in choosing], config)
        return config, choices

    def _chooses(self, override: Override) -> bool:
        """Whether it chooses an option of a group, on which it depends of what files the configuration is made."""
        return self.repository.group_exists(override.key_or_group) and not isinstance(override.value(), dict)

    def _composed_of(self, choosing: Sequence[Override]) -> tuple[bytes, dict[str, str | None]]:
        key = tuple(str(override.input_line) for override in choosing)
        if key not in self._composed:
            files = _OwnPart(self.repository)
            with _choices_where_needed():
                found = defaults_list.create_defaults_list(
                    files, PRIMARY, list(choosing), prepend_hydra=False, skip_missing=False
                )
            config = self._compose_config_from_defaults_list(found.defaults, files)
            del config["hydra"]
            OmegaConf.set_struct(config, True)
            self._composed[key] = packed(config), found.overrides.known_choices
        return self._composed[key]

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        """A file's content at its place, which Hydra will make a part of what it composes: a copy each time."""
        key, read = (default.config_path, default.package), repo.load_config(str(default.config_path))
        assert read is not None  # the list of defaults names files that are there
        if key not in self._placed or self._placed[key][0] is not read.config:
            found = super()._load_single_config(default, repo)
            self._placed[key] = read.config, found, packed(found.config)
        _, found, content = self._placed[key]
        return dataclasses.replace(found, config=unpacked(content))

    def _tell_hydra(self, words: Sequence[str], number: int | None) -> None:
        """Makes ${hydra:...} resolve to this job."""
        config = self.load_configuration(PRIMARY, list(words), RunMode.RUN)
        if number is not None:
            with open_dict(config):
                config.hydra.job.id, config.hydra.job.num = str(number), number
        HydraConfig.instance().set_config(config)


@contextlib.contextmanager
def _choices_where_needed() -> Iterator[None]:
    """Inside, Hydra makes what ${...} in a defaults list may refer to only for lists that have one, not for each."""
    make = defaults_list._create_interpolation_map

    def make_if_needed(overrides: Any, entries: list[InputDefault], self_added: bool) -> DictConfig | None:
        return make(overrides, entries, self_added) if any(entry.is_interpolation() for entry in entries) else None

    defaults_list._create_interpolation_map = make_if_needed
    try:
        yield
    finally:
        defaults_list._create_interpolation_map = make


class _Files(ConfigRepository):
    """The files of options, each read once while it does not change. What is handed out is shared."""

    _read: ClassVar[dict[tuple[str, str], tuple[tuple[str | int, ...], ConfigResult]]] = {}  # of the whole process

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        super().initialize_sources(config_search_path)
        self.sources = [
            _Packaged(source.provider, source.path) if source.scheme() == FileConfigSource.scheme() else source
            for source in self.sources
        ]

    def load_config(self, config_path: str) -> ConfigResult | None:
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None:
            return None
        key, state = (source.full_path(), config_path), _state(source, config_path)
        if key not in self._read or self._read[key][0] != state:
            self._read[key] = state, super().load_config(config_path)
        return self._read[key][1]

    def __deepcopy__(self, memo: dict) -> "_Files":
        return self


class _Packaged(FileConfigSource):
    """genpolicy's own files, read as OmegaConf reads them, but by the parser in C."""

    _yaml = type("_Yaml", (plain_yaml.LOADER,), {"yaml_implicit_resolvers": get_yaml_loader().yaml_implicit_resolvers})

    def load_config(self, config_path: str) -> ConfigResult:
        with open(os.path.join(self.path, self._normalize_file_name(config_path)), encoding="utf-8") as file:
            text = file.read()
        config = OmegaConf.create(yaml.load(text, self._yaml) or {})
        header = ConfigSource._get_header_dict(text)
        return ConfigResult(provider=self.provider, path=f"{self.scheme()}://{self.path}", config=config, header=header)


class _OwnPart(CachingConfigRepository):
    """The files of one composition that leaves Hydra's own part out: they choose nothing of Hydra's groups."""

    def load_config(self, config_path: str) -> ConfigResult | None:
        found = super().load_config(config_path)
        if found is None:
            return None
        own = [
            entry for entry in found.defaults_list or [] if not str(getattr(entry, "group", "")).startswith("hydra/")
        ]
        return dataclasses.replace(found, defaults_list=own)


def _state(source: ConfigSource, config_path: str) -> tuple[str | int, ...]:
    """The file that a configuration comes from, and what changes with it; empty for what is none."""
    place = os.path.join(source.path, ConfigSource._normalize_file_name(config_path))
    path = source.file(config_path) if hasattr(source, "file") else place
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return str(path), found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
