"""The command that makes a run: its options, and the settings that these do not already mean."""

import json
from collections.abc import Mapping

from omegaconf import OmegaConf

from genpolicy.config import compose
from genpolicy.config.arguments import options, quoted, rewrite, shell
from genpolicy.config.loader import Loader
from genpolicy.config.plain_yaml import read
from genpolicy.config.run_settings import absolute, filled
from genpolicy.config.schema import TARGET
from genpolicy.report.results import Result
from genpolicy.runs.identity import INCIDENTAL, settings
from genpolicy.runs.job import checked_job

FIRST = ("env", "algo", "model")  # which may choose the options of other groups


class Commands:
    """Finds commands by composing; what runs share is composed once. paths: absolute ones, as `paths` has them."""

    def __init__(self, study: str, paths: Mapping[str, str]):
        self.study, self.paths = study, paths
        self._loader = Loader()
        self._known: dict[frozenset, list[str] | None] = {}
        self._composed: dict[tuple[str, ...], tuple[Mapping[str, str], Mapping[str, str]]] = {}

    def of(self, result: Result) -> str:
        """The command that makes this run, or finds it; "" where no words make the same settings with this code."""
        asked = {name: value for name, value in result.settings.items() if name not in INCIDENTAL}
        key = frozenset([*result.choices.items(), *asked.items()])
        if key not in self._known:
            try:
                self._known[key] = self._words(result, asked)
            except Exception:  # whatever composing raises: options, plugins or data may not be here
                self._known[key] = None
        words = self._known[key]
        if words is None:
            return ""
        more = [f"{name}={result.settings[name]}" for name in sorted(INCIDENTAL & result.settings.keys())]
        usual = {"device=auto", "threads=1", "compile=none"}
        own = [] if self.study == "default" else [f"study={self.study}"]
        return shell("genpolicy", *words, *(word for word in more if word not in usual), *own)

    def _words(self, result: Result, wanted: Mapping[str, str]) -> list[str] | None:
        words = [f"{group}={result.choices[group]}" for group in FIRST]
        _, choices = self._compose(words)
        words += [f"{group}={name}" for group, name in result.choices.items() if choices.get(group, "none") != name]
        given, _ = self._compose(words)
        for name in sorted(given.keys() & wanted.keys()):  # of groups that no tag tells of
            group, _, last = name.rpartition(".")
            if last == TARGET and given[name] != wanted[name] and group not in result.choices:
                words.append(f"{group}={_option(group, wanted[name])}")
        given, _ = self._compose(words)
        words += [f"{name}={_value(value)}" for name, value in wanted.items() if not _same(given.get(name), value)]
        job = checked_job(*compose.job(self._loader, rewrite(words)))
        made = settings(OmegaConf.to_container(job.config))
        usual = {name: absolute(path) for name, path in job.config.paths.items()}
        own = [f"paths.{name}={quoted(path)}" for name, path in self.paths.items() if path != usual[name]]
        same = {name: made[name] for name in made if name not in INCIDENTAL} == wanted
        return [*words, *own] if same else None

    def _compose(self, words: list[str]) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """The settings that words compose, unchecked as more may be to come, and the option of each group."""
        key = tuple(words)
        if key not in self._composed:
            config, choices, _ = compose.job(self._loader, rewrite(words))
            self._composed[key] = settings(OmegaConf.to_container(filled(config), resolve=True)), choices
        return self._composed[key]


def _option(group: str, target: str) -> str:
    """The option of a group that names a class."""
    places = "solver" if group == "likelihood" else group
    return next(name for name, path in options(places).items() if read(path).get(TARGET) == target)


def _same(text: str | None, other: str) -> bool:
    """Whether two settings are equal, as numbers, too: 1 and 1.0."""
    try:
        return text == other or float(text) == float(other)
    except (TypeError, ValueError):
        return False


def _value(text: str) -> str:
    """A setting as a word has it: text in quotes where it needs them."""
    try:
        json.loads(text)
    except ValueError:
        return quoted(text)
    return text
