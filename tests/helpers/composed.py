"""Components as the command line would compose them, for the tests."""

import functools
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from genpolicy.config.compose import hydra_words
from genpolicy.config.loader import Loader
from genpolicy.config.schema import build
from genpolicy.config.validation import check
from genpolicy.env.task import Task

CONF = Path(__file__).resolve().parents[2] / "conf"


@functools.cache
def loader() -> Loader:
    """The loader of all that a test process composes, which keeps what it has read."""
    return Loader()


def nodes(*overrides: str, only=("env", "dataset")) -> DictConfig:
    """The checked nodes of the composed configuration named in `only`."""
    config, _ = loader().job(hydra_words(overrides))
    return check(OmegaConf.create({name: config[name] for name in only}))


def task(name: str) -> Task:
    """The task of `conf/env/<name>.yaml`."""
    return build(nodes(f"env={name}", only=["env"]).env)


def names(group: str) -> list[str]:
    """The options of a group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))
