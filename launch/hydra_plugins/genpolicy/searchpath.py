"""The user's own `./conf` before the packaged configuration."""

import os

from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.plugins.search_path_plugin import SearchPathPlugin


class OwnConf(SearchPathPlugin):
    """Lets options in `./conf` add to genpolicy's, or replace them. Other Hydra programs are left alone."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        from genpolicy.command import CONF, own_conf

        main = next((element for element in search_path.get_path() if element.provider == "main"), None)
        if main is None or os.path.realpath(main.path) != os.path.realpath(CONF):
            return
        own = own_conf()
        if own is not None:
            search_path.prepend("user", f"file://{own}", anchor=SearchPathQuery(provider="main"))
