"""What genpolicy asks of Hydra: composing the command line, and saying in one line what is wrong with it.

Only this module, `loader`, `option_files` and the plugins in `hydra_plugins.genpolicy` know Hydra.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import hydra
import yaml
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override, OverrideType, Sweep, ValueType
from hydra.core.plugins import Plugins
from hydra.errors import MissingConfigException, OverrideParseException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from genpolicy.config import hints
from genpolicy.config.arguments import CONF, HYDRA_GROUPS, PLACED, groups, has_option, options, quoted, rewrite, shell
from genpolicy.config.loader import Loader, parsed
from genpolicy.config.run_settings import RunSettings, TrainSettings, filled
from genpolicy.config.schema import TARGET
from genpolicy.errors import UserError, message, one_line, printable, suggest

RUN = {field.name for field in fields(RunSettings)}
ONE_PROCESS = "trains in this process; with another launcher or sweeper list them as seed="  # `seeds`

Composed = tuple[DictConfig, dict[str, str], list[str]]  # a configuration, the option of each group, the words


def run(words: list[str], task: Callable[[Composed], None]) -> None:
    """Composes the configuration of the job on a command line, and calls `task` with it.

    A sweep goes to Hydra's sweeper and launcher, which call the application themselves; what --info and --cfg ask for
    beside the job, Hydra prints. Raises whatever goes wrong.
    """
    overrides = [word for word in words if not word.startswith("--")]
    if "--cfg=job" in words:
        task(job(Loader(), overrides, number=0))
    elif any(word.startswith(("--cfg", "--info")) for word in words):
        ask_hydra(words)
    elif "--multirun" in words:
        _sweep(overrides)
    else:
        task(job(Loader(), overrides))


def complete(words: list[str]) -> None:
    """Has Hydra answer --shell-completion. Raises `UserError` for words that a shell does not ask with."""
    asked = [word for word in words if not word.startswith("-")]
    if not re.fullmatch(r"(install|uninstall|query)=(bash|fish|zsh)", " ".join(asked)):
        raise UserError("-sc: needs install=bash, or uninstall=bash; legal: bash, fish, zsh")
    if asked[0].startswith("query=") and "COMP_LINE" not in os.environ:
        raise UserError(f"-sc {asked[0]}: is asked by the shell itself, once -sc install has told it to")
    Hydra("genpolicy", _Completing()).shell_completion("config", asked)


class _Completing(Loader):
    """Composes a line that is being completed, with the settings that no file lists."""

    def load_configuration(
        self, config_name: str | None, overrides: list[str], run_mode: RunMode, **more: Any
    ) -> DictConfig:
        words = hydra_words(rewrite(["--multirun", *overrides])[1:])
        config = super().load_configuration(config_name, words, run_mode, **more)
        word = os.environ.get("COMP_LINE", "").rpartition(" ")[2]
        inside = "." in word and word.partition(".")[0] not in RUN  # of a component: its class takes time to import
        return filled(config, TrainSettings if inside else RunSettings)

    def get_group_options(
        self, group_name: str, results_filter: ObjectType | None = ObjectType.CONFIG, *rest: Any, **more: Any
    ) -> list[str]:
        """What words may choose, with what `arguments.rewrite` spells out."""
        found = super().get_group_options(PLACED.get(group_name, group_name), results_filter, *rest, **more)
        sweep = {"-m", "--multirun"} & {*os.environ.get("COMP_LINE", "").split()}
        short = PLACED if not group_name else options("taskset") if group_name == "env" and sweep else ()
        return [*found, *short]


def ask_hydra(words: list[str]) -> None:
    """Has Hydra answer --cfg or --info."""
    with _full_errors(), _arguments(hydra_words(words)):
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(lambda config: None)()


def _sweep(words: list[str]) -> None:
    # Who sweeps and who launches is composed without the words of the jobs: what such a word means depends on the
    # options of its job.
    own = [word for word in words if word.startswith(HYDRA_GROUPS)]
    loader = Loader()
    config = loader.load_configuration("config", [*own, "hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
    context = HydraContext(config_loader=loader, callbacks=Callbacks())
    plugins = Plugins.instance()
    sweeper = plugins.instantiate_sweeper(hydra_context=context, task_function=lambda config: None, config=config)
    sweeper.sweep([word for word in words if word not in own])


def job(loader: Loader, words: Sequence[str], number: int | None = None) -> Composed:
    """What the words of a job compose, without Hydra's part; the option of each group; and the job's own words.

    A group placed elsewhere goes by that name: `solver@likelihood: rk4` is `likelihood: rk4`. `number` is the job's
    place in its sweep. Raises `UserError` for a launcher without a sweep, and for settings of a launcher that is not
    chosen.
    """
    own = [word for word in words if word.startswith(HYDRA_GROUPS)]
    overrides = [word for word in words if word not in own]
    config, choices = loader.job(hydra_words(overrides), number)
    launching = dict(zip(HYDRA_GROUPS, ("here", "product"), strict=True))
    launching |= {override.key_or_group: override.value() for override in map(parsed, own)}
    _check_launching(overrides, *launching.values(), sweep=number is not None)
    named = {group.rpartition("@")[2].removeprefix("_global_."): option for group, option in choices.items() if option}
    return config, named, overrides


def _check_launching(words: Sequence[str], launcher: str, sweeper: str, sweep: bool) -> None:
    here = (launcher, sweeper) == ("here", "product")
    for word in words:
        if launcher == "here" and word.lstrip("+").startswith(("launch.", "cluster=")):
            raise UserError(f"{word}: goes with hydra/launcher=slurm or hydra/launcher=local")
        if sweeper == "product" and word.lstrip("+").startswith("search."):
            raise UserError(f"{word}: goes with hydra/sweeper=optuna")
        if not here and word.lstrip("+").startswith("seeds="):
            raise UserError(f"{word}: {ONE_PROCESS}")
    if not here and not sweep:
        part = f"hydra/launcher={launcher}" if launcher != "here" else f"hydra/sweeper={sweeper}"
        raise UserError(f"{part}: starts the jobs of a sweep, which may be one; add -m")


def hydra_words(words: Iterable[str]) -> list[str]:
    """The words of a job as Hydra is to have them.

    It sets a value whether a file lists the setting or not, as `schema.check` knows what the chosen options have;
    and it chooses no option of a group by an empty list.
    """
    words = [f"++{word}" if _sets(word) else word for word in words]
    return [f"{word.removesuffix('null')}[]" if word in ("experiment=null", "cluster=null") else word for word in words]


def _sets(word: str) -> bool:
    """Whether a word gives a value to a setting, and chooses no option."""
    key, equals, _ = word.partition("=")
    return bool(equals) and (key in RUN or re.match(r"\w+\.", key) is not None)


def choosing(words: Iterable[str]) -> frozenset[str]:
    """Those of the words that choose options, on which it depends what settings there are."""
    known = groups()
    return frozenset(word for word in words if re.split("[=@]", word.lstrip("+~"))[0] in known)


def check_words(words: list[str]) -> None:
    """Refuses overrides that cannot be read, of unknown settings, or choosing options that do not exist."""
    multirun = "--multirun" in words
    known = groups()
    overrides = [parsed(word) for word in words if not word.startswith("--")]
    for override in overrides:
        _check_key(override, known, words)
        if override.is_sweep_override():
            if override.key_or_group.startswith("launch."):
                raise UserError(
                    f"{override.input_line}: all jobs of a sweep are launched alike; one value with commas is written "
                    f"'{override.key_or_group}=\"{override.input_line.partition('=')[2]}\"'"
                )
            if not multirun:
                key, _, value = override.input_line.partition("=")
                text = "." in key and re.search("[A-Za-z/]", value)
                how = f"; or quote one text: {_quoted_word(override.input_line)}" if text else ""
                raise UserError(f"{override.input_line}: several values are a sweep; add -m{how}")
            if not override.is_discrete_sweep() and "hydra/sweeper=optuna" not in words:
                raise UserError(
                    f"{override.input_line}: an interval cannot be enumerated; list the values, or search it "
                    "with hydra/sweeper=optuna"
                )
        if override.key_or_group in known or override.key_or_group in HYDRA_GROUPS:
            _check_options(override)


def explain(error: Exception) -> str:
    """One line, never empty, that says what is wrong: for Hydra's, OmegaConf's and any other exception."""
    of_hydra = type(error).__module__.startswith("hydra")
    cause = error.__cause__ if of_hydra else error
    if isinstance(error, OverrideParseException):
        text = f"cannot read {error.override!r}; {_how_to_write(error.override)}"
    elif isinstance(error, MissingConfigException):
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        text = f"{group}={option}, which a file chooses: no such option; {suggest(option, options(group), group)}"
        text = text if group in groups() else str(error).split("\n")[0]
    elif of_hydra and (found := re.search(r"In '(.+)': Could not override '(\w+)@\S+\.(\w+)'", str(error))):
        file, group, place = found.groups()
        text = (
            f"{file}.yaml: there is no {group} to override here; write 'override /{group}@_global_.{place}: <option>'"
        )
    elif isinstance(cause, OmegaConfBaseException):
        text = _explain_node(cause)
    elif isinstance(error, yaml.YAMLError):
        text = f"cannot read a configuration file: {error}"
    else:
        text = message(error) if of_hydra else one_line(error)
    return printable(" ".join(text.split()))


def _how_to_write(word: str) -> str:
    """How a word that cannot be read is written if its value is text, as that of a path."""
    value = word.partition("=")[2]
    if value[:1] in ("[", "{", "(", "'", '"') or re.match(r"\w+\(", value, re.ASCII):
        return "the forms are 3, [1,2], {a:1}, 'a text', and for sweeps 1,2 or range(3) or glob(a*)"
    if value.startswith("="):
        return f"say {word.partition('=')[0]}={value.lstrip('=')}"
    what = "with such characters" if {*value}.isdisjoint("[]{}(),:=' ") else "with commas or brackets"
    what = what if value.isascii() else "of other letters than a to z"
    return f"text {what} is quoted, for the shell and in itself: {_quoted_word(word)}"


def _quoted_word(word: str) -> str:
    key, _, value = word.partition("=")
    return shell(f"{key}={quoted(value)}") if {*value} & {*"'\"$\\"} else f"'{key}=\"{value}\"'"


def _explain_node(error: OmegaConfBaseException) -> str:
    name, parent = str(error.full_key), error.parent_node
    said = (str(error) or message(error)).splitlines()[0]
    if "is not in struct" in said and isinstance(parent, DictConfig):
        listed, last = name.partition(".")[0], name.rpartition(".")[2]
        return f"{name}: no such setting; {suggest(last, map(str, parent.keys() - {TARGET}), listed)}"
    return f"{name}: {said}" if name else said


def _check_key(override: Override, known: list[str], words: list[str]) -> None:
    key = override.key_or_group
    top = key.replace("/", ".").split(".")[0]
    if top == "hydra":
        if key not in HYDRA_GROUPS:
            folders = "say paths.outputs=<folder> study=<name>" if key.endswith((".dir", ".subdir")) else ""
            legal = f"legal: {', '.join(HYDRA_GROUPS)}"
            raise UserError(f"{key}: genpolicy arranges this itself; {folders or legal}")
        if override.is_delete():
            raise UserError(f"{override.input_line}: cannot be left out; choose one, as in {key}=<option>")
        return
    legal = {field.name for field in fields(TrainSettings)} | set(known)
    if top not in legal or "/" in key:
        value = "" if override.is_delete() else override.input_line.partition("=")[2]
        hint = hints.setting(key, value, _composed(words)) or suggest(top, legal, "settings")
        raise UserError(f"{key}: no such setting; {hint}")
    if override.package is not None and PLACED.get(override.package) != key:
        raise UserError(f"{override.input_line}: {key} has no second place; write {key}=<option>")
    if override.is_delete() and override.input_line not in ("~tuned", "~experiment"):
        raise UserError(f"{override.input_line}: only ~tuned and ~experiment can be left out")


def _composed(words: list[str]) -> DictConfig | None:
    """What the options among the words compose, or None if that cannot be."""
    try:
        return filled(Loader().job(hydra_words(word for word in choosing(words) if "," not in word))[0])
    except Exception:  # some of them may be wrong as well
        return None


def _check_options(override: Override) -> None:
    """Each option must exist; `tuned=none`, `cluster=null` and `experiment=null` choose none.

    An experiment may be a list.
    """
    group = override.package or override.key_or_group
    if override.is_delete() or override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        return
    if override.type == OverrideType.ADD:
        raise UserError(f"{override.input_line}: write it without the +")
    value = override.value()
    if isinstance(value, Sweep):
        chosen = [Override._convert_value(item) for item in override.sweep_iterator()]
    else:
        chosen = [value]
    if group in ("experiment", "cluster"):
        chosen = [name for item in chosen if item is not None for name in (item if isinstance(item, list) else [item])]
    for name in chosen:
        if not isinstance(name, str) or not has_option(override.key_or_group, name):
            shown, legal = "null" if name is None else str(name), options(override.key_or_group)
            if name is None and has_option(override.key_or_group, "none"):
                raise UserError(f"{group}=null: no such option; say {group}=none")
            if group == "env" and shown in options("taskset"):
                raise UserError(f"{override.input_line}: {shown} is a set of tasks; write env={shown} alone, with -m")
            legal |= {"none": None} if group == "tuned" else options("taskset") if group == "env" else {}
            hint = (group == "env" and hints.task(shown)) or suggest(shown, legal, group)
            raise UserError(f"{group}={shown}: no such option; {hint}")


@contextmanager
def _full_errors() -> Iterator[None]:
    """Lets Hydra raise its errors where it would print them and exit."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


@contextmanager
def _arguments(words: list[str]) -> Iterator[None]:
    """Hydra reads `sys.argv`."""
    before = sys.argv
    sys.argv = [before[0], *words]
    try:
        yield
    finally:
        sys.argv = before
