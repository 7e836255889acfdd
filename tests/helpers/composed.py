"""Components as the command line would compose them, for the tests."""

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from genpolicy.config.compose import hydra_words
from genpolicy.config.schema import build
from genpolicy.config.validation import check
from genpolicy.env.task import Task

CONF = Path(__file__).resolve().parents[2] / "conf"


def nodes(*overrides: str, only=("env", "dataset")) -> DictConfig:
    """The checked nodes of the composed configuration named in `only`."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=hydra_words(overrides))
    return check(OmegaConf.create({name: config[name] for name in only}))


def task(name: str) -> Task:
    """The task of `conf/env/<name>.yaml`."""
    return build(nodes(f"env={name}", only=["env"]).env)


def names(group: str) -> list[str]:
    """The options of a group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))
