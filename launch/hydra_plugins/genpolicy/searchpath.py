"""Where options come from, beside the packaged files: the user's own `./conf`, plugins, and the files of families."""

import os
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf


class OwnConf(SearchPathPlugin):
    """Lets options in `./conf` add to genpolicy's, or replace them; and has `tuned` values found.

    Other Hydra programs are left alone.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        from genpolicy.config import plugins, tuned
        from genpolicy.config.arguments import CONF, own_conf

        main = next((element for element in search_path.get_path() if element.provider == "main"), None)
        if main is None or os.path.realpath(main.path) != os.path.realpath(CONF):
            return
        own = own_conf()
        if own is not None:
            search_path.prepend("user", f"{OwnOptions.scheme()}://{own}", anchor=SearchPathQuery(provider="main"))
        for folder in reversed(plugins.folders()):
            search_path.append("plugin", f"{OwnOptions.scheme()}://{folder}")
        search_path.prepend("tuned", f"{Tuned.scheme()}://")
        OmegaConf.register_new_resolver("tuned", tuned.taken, replace=True)  # for the packaged config.yaml


class OwnOptions(ConfigSource):
    """The options in a folder of the user's own; all that Hydra reads of it comes this way, and is checked here."""

    @staticmethod
    def scheme() -> str:
        return "genpolicy"

    def available(self) -> bool:
        return self.is_group("")

    def is_group(self, config_path: str) -> bool:
        place = self._place(config_path)
        return place is not None and place.is_dir()

    def is_config(self, config_path: str) -> bool:
        place = self._place(self._normalize_file_name(config_path))
        return place is not None and place.is_file()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        found: list[str] = []
        for name in os.listdir(self._place(config_path)):
            self._list_add_result(found, os.path.join(config_path, name), name, results_filter)
        return sorted(set(found))

    def load_config(self, config_path: str) -> ConfigResult:
        from genpolicy.config import option_content, option_files

        place = self._place(self._normalize_file_name(config_path))
        if place is None or not place.is_file():
            raise ConfigLoadError(f"Config not found : {config_path}")
        config, header = option_files.checked(place)
        option_content.lineage(place)  # which refuses files that build on one another
        return ConfigResult(provider=self.provider, path=self.full_path(), config=config, header=header)

    def _place(self, config_path: str) -> Path | None:
        """The file or folder; None for what is outside, or a part of Hydra's own configuration."""
        parts = Path(config_path).parts
        return None if {"..", "/"} & {*parts} or parts[:1] == ("hydra",) else Path(self.path, *parts)


class Tuned(ConfigSource):
    """The options `tuned/<algo>/<task>` of all folders, from the task's own file or that of its family."""

    @staticmethod
    def scheme() -> str:
        return "genpolicy-tuned"

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return False

    def is_config(self, config_path: str) -> bool:
        return self.file(config_path) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return []

    def file(self, config_path: str) -> Path | None:
        """The file that has the values."""
        from genpolicy.config import tuned

        group, _, name = config_path.removesuffix(".yaml").partition("/")
        return tuned.file(name) if group == "tuned" else None

    def load_config(self, config_path: str) -> ConfigResult:
        from genpolicy.config import option_files, plain_yaml, tuned
        from genpolicy.config.arguments import CONF

        path = self.file(config_path)
        if path is None:
            raise ConfigLoadError(f"Config not found : {config_path}")
        name = config_path.removesuffix(".yaml").partition("/")[2]
        task = name.partition("/")[2]
        if CONF in path.parents:
            content, package = plain_yaml.read(path), "_global_"
        else:
            config, header = option_files.checked(path)
            content = OmegaConf.to_container(config, resolve=False)
            package = header.get("package") or ("_global_" if path.stem != task else None)
        tuned.files(name)  # which refuses what Hydra would not understand
        values = OmegaConf.create(tuned.values(content, task, path))
        return ConfigResult(provider=self.provider, path=self.full_path(), config=values, header={"package": package})
