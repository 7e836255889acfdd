"""What only the command line allows: to import a package (plugins=my_package), to ask an address (env.url=).

Importing a package runs its code, and whoever asks an address tells it something, and takes what comes. A run directory
or a file of options that names one may come from other people. So it is done only if the command line names it, or, of
a package, if it was installed as a plugin: it declares the entry point group `genpolicy.components`. The processes that
a command starts get its permission by environment variables.

A plugin's classes may be named by `_target_`, and the options in its folder `conf` are found beside the packaged ones.
"""

import functools
import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from genpolicy.config import plain_yaml
from genpolicy.config.arguments import CONF
from genpolicy.errors import UserError
from genpolicy.system.git import revision

VARIABLE = "GENPOLICY_PLUGINS"  # packages, separated by commas
GROUP = "genpolicy.components"  # of entry points, each the name of a package
ADDRESSES = "GENPOLICY_ADDRESSES"  # of data, separated by spaces
PLUGINS = "plugins="  # begins the word that names packages: plugins=my_package, plugins=[one,two]
WORDS = ("env.id=", "env.url=")  # begin the words that give a permission beside what they set


class PluginNeeded(UserError):
    """A package would have to be imported that no command has named."""


def permit(words: Sequence[str]) -> None:
    """Lets this process, and those that it starts, import the packages and ask the addresses that words name.

    Such words are plugins=package, env.id=package:Name and env.url=http://host/file.hdf5. Raises `UserError` for a
    package that is not installed, of a word or of the environment.
    """
    ids, urls, named = (
        [word.partition("=")[2] for word in words if word.lstrip("+").startswith(key)] for key in (*WORDS, PLUGINS)
    )
    asked = {package.strip("'\" ") for value in named for package in value.strip("[] ").split(",")} - {""}
    inside = {package: value for value in ids for package in re.findall(r"(?<![\w.])([A-Za-z_][\w.]*):", value)}
    said = {_top(package): f"{VARIABLE}={package}" for package in _permitted()}
    said |= {_top(package): f"env.id: {value} cannot be made" for package, value in inside.items()}
    said |= {package: f"{PLUGINS}{package}" for package in asked}
    for package, where in sorted(said.items()):
        if not re.fullmatch(r"[A-Za-z_]\w*", package) or importlib.util.find_spec(package) is None:
            raise UserError(f"{where}: no package {package} is installed")
    if asked or inside:
        os.environ[VARIABLE] = ",".join(sorted({*asked, *inside, *_permitted()}))
    addresses = {address for value in urls for address in (value.strip("'\""), *re.findall(r"http[^\s,'\"]+", value))}
    if addresses := {address for address in addresses if address.startswith("http") and " " not in address}:
        os.environ[ADDRESSES] = " ".join(sorted(addresses | _permitted_addresses()))


def without(words: Sequence[str]) -> list[str]:
    """The words without those that name plugins, which set nothing."""
    return [word for word in words if not word.lstrip("+").startswith(PLUGINS)]


def folders() -> list[Path]:
    """The folders of options that plugins bring along."""
    places = (place / "conf" for package in sorted(_packages()) for place in _places(package))
    return [place for place in places if place.is_dir()]


def require_class(target: str, where: str) -> None:
    """Raises `PluginNeeded` for a class of a package that may not be imported. where: the setting that names it."""
    package = target.partition(".")[0]
    if package not in _packages():
        raise PluginNeeded(
            f"{where}: {target} is not a class of genpolicy, nor of a plugin; if you trust the package {package}, "
            f"whose code runs when it is imported, add {PLUGINS}{package} to the command (or set {VARIABLE}={package})"
        )


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The version of each package, and of one in a git repository the commit: '0.3.1', '0.3.1 at 1a2b3c4'."""
    known, found = importlib.metadata.packages_distributions(), {}
    for package in packages:
        names = known.get(package, [])
        text = importlib.metadata.version(names[0]) if names else "of no version"
        place = next(iter(_places(package)), None)
        commit, dirty = revision(place) if place else (None, None)
        found[package] = text + (f" at {commit[:7]}{' with changes' if dirty else ''}" if commit else "")
    return found


def permissions() -> Mapping[str, str]:
    """The environment variables that give another process the permissions of this one."""
    return {name: os.environ.get(name, "") for name in (VARIABLE, ADDRESSES)}


def require(name: str) -> None:
    """Raises `PluginNeeded` for the name of an environment of a package that may not be imported."""
    package = name.rpartition(":")[0]
    if package and not re.fullmatch(r"[A-Za-z_][\w.]*", package):
        raise UserError(f"env.id: {name} cannot be made: {package!r} is no package's name")
    if package and package not in _permitted():
        raise PluginNeeded(
            f"plugin needed: the environment {name} is of the package {package}, whose code runs when it is imported; "
            f"if you trust it, add env.id={name} to the command (or set {VARIABLE}={package})"
        )


def require_address(url: str) -> None:
    """Raises `UserError` for the address of data that is none of the packaged tasks', if no command has named it."""
    if url in _permitted_addresses() or url in map(_url, (CONF / "env").glob("*.yaml")):
        return
    raise UserError(
        f"env.url: {url} is not asked for data: it is no address of genpolicy's own tasks, and comes from a run's "
        f"configuration or a file of options; if you trust it, add env.url={url} to the command"
    )


def _url(path: Path) -> str | None:
    return plain_yaml.read(path).get("url")


def _packages() -> set[str]:
    """The top-level packages that may be imported."""
    return {*map(_top, _permitted()), *_declared()}


def _top(package: str) -> str:
    return package.partition(".")[0]


def _places(package: str) -> list[Path]:
    """The folders of a package, which is not imported; none if there is no such package."""
    spec = importlib.util.find_spec(package)
    return [Path(place) for place in spec.submodule_search_locations or ()] if spec else []


@functools.cache
def _declared() -> frozenset[str]:
    """Those that were installed as plugins."""
    points = importlib.metadata.entry_points(group=GROUP)
    return frozenset(re.split("[.:]", point.value)[0] for point in points)


def _permitted() -> set[str]:
    return {package.strip() for package in os.environ.get(VARIABLE, "").split(",")} - {""}


def _permitted_addresses() -> set[str]:
    return set(os.environ.get(ADDRESSES, "").split())
