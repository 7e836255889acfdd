"""Packages that register environments of the user's own, as in env.id=my_package:MyTask-v0.

Importing one runs its code, and a run directory that names one may come from other people. So a package is imported
only if the command line names it; the processes that a command starts get its permission by an environment variable.
"""

import os
import re
from collections.abc import Sequence

from genpolicy.errors import UserError

VARIABLE = "GENPOLICY_PLUGINS"  # packages, separated by commas


class PluginNeeded(UserError):
    """A package would have to be imported that no command has named."""


def permit(words: Sequence[str]) -> None:
    """Lets this process, and those that it starts, import the packages that words such as env.id=package:Name name."""
    named = (word.partition("=")[2] for word in words if word.lstrip("+").startswith("env.id="))
    found = {package for value in named for package in re.findall(r"([A-Za-z_][\w.]*):", value)}
    if found:
        os.environ[VARIABLE] = ",".join(sorted(found | _permitted()))


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


def _permitted() -> set[str]:
    return set(filter(None, os.environ.get(VARIABLE, "").split(",")))
