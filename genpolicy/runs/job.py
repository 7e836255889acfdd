"""From the words of a command line to checked jobs, before anything is made."""

import functools
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from genpolicy.config import arguments, plugins
from genpolicy.config.legal import remark_unused
from genpolicy.config.nodes import created, texts
from genpolicy.config.run_settings import (
    MODES_OF,
    OF_A_POLICY,
    REQUESTS,
    CheckSettings,
    CollectSettings,
    RunSettings,
    TrainSettings,
    absolute,
    absolute_uri,
    filled,
)
from genpolicy.config.schema import TARGET
from genpolicy.config.validation import checked, plain_values
from genpolicy.errors import UnknownSetting, UserError, suggest
from genpolicy.runs.evaluations import CHOSEN
from genpolicy.runs.identity import directory_of, each_seed

PLACES = {"tuned": "_global_", "experiment": "_global_", "cluster": "launch"}  # of what a group's files hold
COMPONENTS = {"check": CheckSettings, "collect": CollectSettings}
# The groups that another option may be chosen of for a trained policy.
FOR_POLICY = {"eval": CHOSEN, "export": tuple(group for group in CHOSEN if group != "likelihood")}
_SETTING = re.compile(r"\$\{(?!oc\.env:)")  # begins a reference to a setting, which no file may list


@dataclass(frozen=True)
class Job:
    """One checked configuration, ready to start."""

    config: DictConfig
    choices: dict[str, str]
    overrides: list[str]
    sweep: str | None = None  # the name of the multirun that it belongs to

    @functools.cached_property
    def directories(self) -> list[Path]:
        """The directories of its runs: one, or one for each of its `seeds`."""
        return [directory_of(single, self.choices) for single in each_seed(self.config)]


def each_job(words: list[str], act: Callable[[Job], None]) -> None:
    """Composes and checks the job of a command line, and acts on it; a sweep's go to its launcher.

    Raises whatever goes wrong.
    """
    from genpolicy.config import compose

    words = arguments.rewrite(words)
    arguments.check_once(words)
    plugins.permit(words)
    words = plugins.without(words)
    if any(
        f"mode={mode}" in words for mode in OF_A_POLICY
    ):  # where the task is the run's, and the word is a permission
        words = [word for word in words if not word.startswith(plugins.WORDS)]
    compose.check_words(words)
    if "--cfg=job" in words:
        package = next((word.partition("=")[2] for word in words if word.startswith("--package=")), None)
        compose.run(words, lambda composed: show(prepare(*composed).config, package))
    else:
        compose.run(words, lambda composed: act(prepare(*composed)))


def show(config: DictConfig, package: str | None) -> None:
    """Prints a checked configuration as YAML, or the part of it at `package`, as Hydra's --cfg does."""
    found = config if package is None else OmegaConf.select(config, package)
    if found is None:
        raise UserError(f"--package {package}: the configuration has no such part")
    if not OmegaConf.is_config(found):
        print(found)
        return
    print(f"# @package {package}\n" if package else "", OmegaConf.to_yaml(found), sep="", end="")


def prepare(config: DictConfig, choices: dict[str, str], overrides: list[str]) -> Job:
    """The job of a composed configuration (`checked_job`); says which words mean nothing, which values are left out."""
    from genpolicy.config import tuned

    job = checked_job(config, choices, overrides)
    if job.config.mode == "train":
        tuned.remark_left_out(choices, overrides)
        remark_unused(OmegaConf.to_container(job.config), TrainSettings, overrides)
    return job


def checked_job(config: DictConfig, choices: dict[str, str], overrides: list[str]) -> Job:
    """Checks a composed configuration and resolves its paths; creates nothing.

    Modes other than train read no component but those of `COMPONENTS`: their configuration holds nothing else. But that
    of mode=eval and mode=export has what the words say of `FOR_POLICY`, to be checked with the run that it is for.
    """
    try:
        return _prepared(config, choices, overrides)
    except UnknownSetting as error:
        said = {word.lstrip("+").partition("=")[0]: word for word in overrides}
        if place := PLACES.get(error.name):
            option = said.get(error.name, f"{error.name}={choices.get(error.name)}")
            raise UserError(f"{option}: a file of this group begins with the line '# @package {place}'") from error
        source = "" if error.name in said else _source(error.name, choices, overrides)
        if not source:
            raise
        way_out = "; tuned=none leaves it out" if source.startswith("tuned=") else ""
        raise UserError(f"{error}; it comes from {source}{way_out}") from error


def _source(name: str, choices: dict[str, str], words: Sequence[str]) -> str:
    """The option whose file gives a setting, and the file; empty if no file does."""
    from genpolicy.config import tuned
    from genpolicy.config.option_content import given_settings

    experiments = next((word.partition("=")[2] for word in words if word.startswith("experiment=")), "")
    presets = [("experiment", option) for option in reversed(experiments.strip("[]").split(","))]
    for group, option in [*presets, ("tuned", choices.get("tuned", "none"))]:
        if option in arguments.options(group):
            for file, _, values in tuned.explained(option, group):
                if any(f"{full}.".startswith(f"{name}.") for full, _, _ in values):
                    return f"{group}={option} ({file})"
    group, _, inner = name.partition(".")
    option, group = choices.get(group), arguments.PLACED.get(group, group)
    if option and inner.split(".")[0] in given_settings(group, option):
        return str(arguments.options(group)[option])
    return ""


def _prepared(config: DictConfig, choices: dict[str, str], overrides: list[str]) -> Job:
    from genpolicy.config import option_files  # which imports Hydra

    own = {field.name for field in fields(RunSettings)}
    if any(_SETTING.search(text) for text in texts(config)):
        config = filled(config)
    plain = plain_values(config, own)
    settings = checked(plain, root=RunSettings)
    mode = settings["mode"]
    tops = {word: re.search(r"^[+~]*(?:[^=]*@)?([^=./]*)", word)[1] for word in overrides}
    given = {word: top for word, top in tops.items() if top in MODES_OF}
    given |= {f"{name}={settings[name]}": name for name in REQUESTS if settings[name]}
    for said, name in given.items():
        if (legal := MODES_OF[name]) and mode not in legal:
            raise UserError(f"{said}: goes with {' or '.join(f'mode={each}' for each in legal)}")
    if mode == "train":
        plain |= plain_values(config, config.keys() - own)
        settings = checked(plain, choices, root=TrainSettings)
        if settings["seeds"] and "seed" in tops.values():
            raise UserError("seed and seeds do not go together; leave one out")
        of_online = [word for word, top in tops.items() if top == "online"]
        if of_online and not settings["online"]["steps"] and not any("steps=" in word for word in of_online):
            raise UserError(f"{of_online[0]}: goes with online.steps, which is 0")
    else:
        if mode in COMPONENTS:
            plain |= plain_values(config, {field.name for field in fields(COMPONENTS[mode])} - own)
            settings = checked(plain, choices, root=COMPONENTS[mode])
        legal = [name for name in settings if not MODES_OF.get(name) or mode in MODES_OF[name]]
        legal += FOR_POLICY.get(mode, ())
        for word, top in tops.items():
            if top not in legal:
                raise UserError(f"{word}: mode={mode} takes no such setting; {suggest(top, legal, 'settings')}")
        settings |= _chosen(config, overrides, FOR_POLICY.get(mode, ()))
    option_files.check_said(settings, overrides)
    settings["tracking"]["uri"] = absolute_uri(settings["tracking"]["uri"])
    settings["paths"] = {name: absolute(path) for name, path in settings["paths"].items()}
    if "path" in settings.get("dataset", ()):
        settings["dataset"]["path"] = absolute(settings["dataset"]["path"])
    return Job(created(settings), choices, overrides)


def _chosen(config: DictConfig, overrides: Sequence[str], groups: Collection[str]) -> dict:
    """What words say of some groups: a whole node where an option is chosen, else the values of settings."""
    found: dict = {}
    keys = [word.lstrip("+~").partition("=")[0] for word in overrides]
    for key in keys:
        group, dot, _ = key.rpartition("@")[2].partition(".")
        if group in groups and not dot:
            found[group] = OmegaConf.to_container(config[group], resolve=True)
    for key in keys:
        group, *path = key.split(".")
        if path and group in groups and TARGET not in (node := found.setdefault(group, {})):
            for part in path[:-1]:
                node = node.setdefault(part, {})
            value = OmegaConf.select(config, key)
            node[path[-1]] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    return found
