"""Train, evaluate and compare generative policies on offline reinforcement-learning data sets."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genpolicy import api as api
    from genpolicy.api import load_policy as load_policy


def __getattr__(name: str) -> Any:
    # On demand: the command's help must not wait for torch.
    if name == "api":
        return importlib.import_module("genpolicy.api")
    if name == "load_policy":
        return __getattr__("api").load_policy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
