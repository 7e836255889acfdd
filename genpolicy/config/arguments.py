"""The words of a command line, before Hydra sees them, and the folders that its options come from."""

import dataclasses
import functools
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from genpolicy.config import plain_yaml, sbatch
from genpolicy.errors import UserError, suggest

_HERE = Path(__file__).resolve().parent.parent
# An installed package holds its configuration; in a checkout it lies beside the package.
CONF = next(path for path in (_HERE / "conf", _HERE.parent / "conf") if (path / "config.yaml").is_file())

# Nodes that take the options of another group.
PLACED = {"likelihood": "solver"}

# What may be chosen of Hydra's own groups.
HYDRA_GROUPS = ("hydra/launcher", "hydra/sweeper")

# flag -> legal values (None: takes none, "": any)
_FLAGS = {
    "--multirun": None,
    "--cfg": ("job", "hydra", "all"),
    "--resolve": None,
    "--package": "",
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    "--version": None,
    "--shell-completion": None,
}
_WORDS = {"--follow": "follow=true"}  # what reads better as a flag
_PLAIN = re.compile(r"(?!(true|false|null|inf|nan)$)[a-z_][\w-]*|[\w.@%+-]*/[\w./@%+-]*", re.ASCII | re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?[\d._]*\d[\d._]*(e[+-]?[\d_]+)?|[+-]?(inf|nan)|true|false", re.ASCII | re.IGNORECASE)
_SHORT = {"-m": "--multirun", "-c": "--cfg", "-p": "--package", "-i": "--info", "-sc": "--shell-completion"}


def quoted(value: str) -> str:
    """A string as the value of a word `key=value`, in quotes of Hydra's grammar where it needs them.

    Only `${`, which begins an interpolation, keeps its meaning; no setting may hold it as text.
    """
    if _PLAIN.fullmatch(value):
        return value
    # Of backslashes, only those before a quote are an escape.
    escaped = re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), value)
    return f"'{escaped}'"


def shell(*words: str) -> str:
    """Words as one line that a shell (bash, zsh) reads as these very words."""
    return " ".join(shlex.quote(word) if word.isprintable() else _ansi_c(word) for word in words)


def _ansi_c(word: str) -> str:
    """The word as $'...', its control characters as escapes."""
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{''.join(sign if sign.isprintable() else _escape(sign) for sign in escaped)}'"


def _escape(sign: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in sign.encode(errors="surrogateescape"))


def own_conf() -> Path | None:
    """The user's own `./conf`, whose options come before the packaged ones; None if there is none.

    A folder with a `config.yaml` belongs to another program (or is ours already), and is not used. Raises `UserError`
    for one with options of Hydra's own groups.
    """
    own = Path("conf").absolute()
    if not own.is_dir() or os.path.lexists(own / "config.yaml"):
        return None
    if os.path.lexists(own / "hydra"):
        raise UserError(f"{own / 'hydra'}: genpolicy arranges this itself; move it away")
    return own


def remark_unused_conf() -> None:
    """Says of a `./conf` of another program that its options are not taken, if it has some of genpolicy's groups."""
    own = Path("conf")
    if not os.path.lexists(own / "config.yaml") or own.resolve() == CONF.resolve():
        return
    if meant := [group for group in groups() if (own / group).is_dir()]:
        from genpolicy.system.console import remark  # whose package is slow to import

        folders = ", ".join(f"conf/{group}" for group in meant)
        remark(
            f"./conf has a config.yaml and is not taken for genpolicy's options ({folders}); to use them, move it away"
        )


def conf_folders() -> list[Path]:
    """The folders of options, those of plugins, the packaged one and the user's own: of equal names the last counts."""
    from genpolicy.config import plugins  # which takes the packaged folder from here

    return [*plugins.folders(), *(folder for folder in (CONF, own_conf()) if folder is not None)]


def options(group: str) -> dict[str, Path]:
    """The options of a group and their files; those of `tuned` are named `<algo>/<env>`.

    Files in folders below a group are parts that options share.
    """
    if group == "tuned":
        from genpolicy.config import tuned  # which reads the options of env

        return tuned.names()
    files = (path for folder in conf_folders() for path in (folder / group).glob("*.yaml") if path.is_file())
    return dict(sorted({path.stem: path for path in files}.items()))


def has_option(group: str, name: str) -> bool:
    """Whether a group has an option, or `tuned` is to be none; lists none of the others."""
    if group == "tuned":
        from genpolicy.config import tuned  # which reads the options of env

        return name == "none" or tuned.has(name)
    return "/" not in name and any(os.path.isfile(folder / group / f"{name}.yaml") for folder in conf_folders())


def groups() -> list[str]:
    """The names of all groups of options."""
    found = {path.name for folder in conf_folders() for path in folder.iterdir() if path.is_dir()}
    return sorted(name for name in found - {"hydra", "taskset"} if not name.startswith((".", "_")))


def rewrite(words: list[str]) -> list[str]:
    """The words as Hydra wants them: flags first, task sets spelled out, `likelihood=` as the group it is.

    Raises `UserError` for an unknown flag, a flag's illegal value, and for words that are neither flag nor
    key=value.
    """
    flags, overrides = _split(words)
    multirun = "--multirun" in flags
    return flags + [_rewrite_override(word, multirun) for word in overrides]


def check_once(words: Sequence[str]) -> None:
    """Refuses rewritten words that say the same setting, or choose of the same group, twice: Hydra takes the last."""
    first: dict[str, str] = {}
    for word in words:
        key = word.lstrip("+~").partition("=")[0].rpartition("@")[2]
        if not word.startswith("--") and first.setdefault(key, word) is not word:
            how = "give it once" + (f", as in {first[key]},..." if "--multirun" in words else "")
            raise UserError(f"{first[key]} and {word}: both say {key}; {how}")


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    flags, overrides = [], []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        word = _WORDS.get(word, word)
        if not word.startswith("-"):
            overrides.append(_override(word))
            continue
        name, equals, value = word.partition("=")
        name = _SHORT.get(name, name)
        if name not in _FLAGS:
            from genpolicy.config import hints

            hint = hints.flag(word, rest) or f"legal: --help, {', '.join(_FLAGS)}"
            raise UserError(f"{word}: no such flag; {hint}")
        legal = _FLAGS[name]
        if legal is None:
            if equals:
                raise UserError(f"{name} takes no value")
            flags += [name] if name not in flags else []
            continue
        if not equals:
            value = rest.pop(0) if rest else ""
        if not value or (legal and value not in legal):
            needed = f"one of {', '.join(legal)}" if legal else "a value"
            raise UserError(f"{name} {value}".rstrip() + f": needs {needed}")
        flags.append(f"{name}={value}")
    for flag in flags:
        if flag.startswith(("--resolve", "--package")) and not any(other.startswith("--cfg") for other in flags):
            raise UserError(f"{flag.replace('=', ' ')} goes with --cfg job")
    if len(asked := [flag for flag in flags if flag.startswith(("--cfg", "--info", "--multirun"))]) > 1:
        raise UserError(f"{' and '.join(asked)} do not go together")
    return flags, overrides


def _override(word: str) -> str:
    key, _, value = word.partition("=")
    legible = word.isprintable() or (key.isprintable() and value[:1] in ("'", '"'))
    if not re.match(r"~[A-Za-z]|\+{0,2}[A-Za-z_][^=]*=", word) or not legible:
        from genpolicy.config import hints

        raise UserError(f"{word!r} is not of the form key=value; {hints.bare(word) or 'see genpolicy --help'}")
    return word


def _rewrite_override(word: str, multirun: bool) -> str:
    key, _, value = word.partition("=")
    if value.startswith("~/"):  # the shell does not expand it there, and Hydra cannot read it
        home = str(Path(value).expanduser())
        return f"{key}={quoted(home) if _PLAIN.fullmatch(value[1:]) else home}"
    if (typed := _as_typed(key.lstrip("+"), value, multirun)) != value:
        return f"{key}={typed}"
    if key.lstrip("+") == "seeds":  # a list, where Hydra would see a sweep
        if not re.fullmatch(r"\d+(,\d+)+|\[[\d, ]*\]", value):
            raise UserError(f"{word}: not a list of seeds; write it as in seeds=0,1,2, or one as in seed=0")
        return f"seeds=[{value.strip('[]')}]"
    if key.lstrip("+") == "launch.time":  # as SLURM writes it; the setting is one
        return f"launch.minutes={sbatch.minutes(value)}"
    if re.match(r"launch\.extra\b", key):  # whose names are not known beforehand
        return f"++{word}"
    if key in PLACED:
        return f"{PLACED[key]}@{key}={value}"
    if key != "env":
        return word
    sets, names = options("taskset"), value.split(",")
    if not any(name in sets for name in names):
        return word
    if not multirun:
        raise UserError(f"{word}: a set of tasks; add -m to train on each of them")
    tasks = [task for name in names for task in (_taskset(sets[name]) if name in sets else [name])]
    return f"env={','.join(dict.fromkeys(tasks))}"


def _as_typed(key: str, value: str, multirun: bool) -> str:
    """A text, or those of a sweep, in quotes where Hydra would see a number: 1.1 in 1.10, 20261129 in 2026_11_29."""
    if key not in _texts() or not {*value}.isdisjoint("'\"\\[]{}()"):
        return value
    items = value.split(",") if multirun else [value]
    return ",".join(quoted(item) if _NUMBER.fullmatch(item) else item for item in items)


@functools.cache
def _texts() -> frozenset[str]:
    """The full names of the settings of every run that are text."""
    from genpolicy.config.run_settings import RunSettings  # which takes what it needs of schema
    from genpolicy.config.schema import field_types

    def names(cls: type, prefix: str) -> Iterator[str]:
        for name, hint in field_types(cls).items():
            if dataclasses.is_dataclass(hint):
                yield from names(hint, f"{prefix}{name}.")
            elif hint in (str, str | None):
                yield f"{prefix}{name}"

    return frozenset(names(RunSettings, ""))


def _taskset(path: Path) -> list[str]:
    tasks = plain_yaml.read(path)
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
        raise UserError(f"{path}: must be a list of options of env")
    if unknown := [task for task in tasks if task not in options("env")]:
        raise UserError(f"{path}: env={unknown[0]}: no such option; {suggest(unknown[0], options('env'), 'env')}")
    return tasks
