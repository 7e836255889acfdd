"""What only the command line allows: to import a package (env.id=my_package:MyTask-v0), to ask an address (env.url=).

Importing a package that registers environments runs its code, and whoever asks an address tells it something, and takes
what comes. A run directory or a file of options that names one may come from other people. So it is done only if the
command line names it; the processes that a command starts get its permission by environment variables.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from genpolicy.config import plain_yaml
from genpolicy.config.arguments import CONF
from genpolicy.errors import UserError

VARIABLE = "GENPOLICY_PLUGINS"  # packages, separated by commas
ADDRESSES = "GENPOLICY_ADDRESSES"  # of data, separated by spaces
WORDS = ("env.id=", "env.url=")  # begin the words that give a permission


class PluginNeeded(UserError):
    """A package would have to be imported that no command has named."""


def permit(words: Sequence[str]) -> None:
    """Lets this process, and those that it starts, import the packages and ask the addresses that words name.

    Such words are env.id=package:Name and env.url=http://host/file.hdf5.
    """
    ids, urls = ([word.partition("=")[2] for word in words if word.lstrip("+").startswith(key)] for key in WORDS)
    if packages := {package for value in ids for package in re.findall(r"([A-Za-z_][\w.]*):", value)}:
        os.environ[VARIABLE] = ",".join(sorted(packages | _permitted()))
    addresses = {address for value in urls for address in (value.strip("'\""), *re.findall(r"http[^\s,'\"]+", value))}
    if addresses := {address for address in addresses if address.startswith("http") and " " not in address}:
        os.environ[ADDRESSES] = " ".join(sorted(addresses | _permitted_addresses()))


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


def _permitted() -> set[str]:
    return set(filter(None, os.environ.get(VARIABLE, "").split(",")))


def _permitted_addresses() -> set[str]:
    return set(os.environ.get(ADDRESSES, "").split())
