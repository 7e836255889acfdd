"""`tuned`: the papers' values for an algorithm on a task, from the file of the task or that of its family.

`tuned/<algo>/<task>.yaml` is an option as Hydra knows it. `tuned/<algo>/<family>.yaml` holds values that the tasks of a
family share, and in a table `tasks` what each of them has beside or instead. Tasks that the table does not name have no
values; a file without a table is for the whole family. Which family a task belongs to, its own file says
(`family: locomotion`). Of the folders of options the first that has values for a task counts, and in it the task's own
file before its family's. Values chosen for some data say so (`for_dataset: waypoint`): they are not taken by themselves
for others.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from genpolicy.config import plain_yaml
from genpolicy.config.arguments import CONF, conf_folders, has_option, options
from genpolicy.config.option_content import lineage, merged, settings_of
from genpolicy.errors import UserError, suggest

TABLE = "tasks"
DATASET = "for_dataset"
_NAME = r"\w[\w.-]*"


def names() -> dict[str, Path]:
    """All that has values, as `<algo>/<task>`, and the file that has them."""
    tasks, found = {task: _family(path) for task, path in options("env").items()}, {}
    for folder in conf_folders():
        for algo in filter(Path.is_dir, (folder / "tuned").glob("*")):
            found |= {f"{algo.name}/{task}": path for task, path in _of(algo, tasks).items()}
    return dict(sorted(found.items()))


def has(name: str) -> bool:
    """Whether `<algo>/<task>` has values, without reading what all tasks have."""
    return file(name) is not None and (_file("env", name.partition("/")[2]) is not None or name in names())


def file(name: str) -> Path | None:
    """The file that has the values of `<algo>/<task>`, if there is one."""
    if not re.fullmatch(rf"{_NAME}/{_NAME}", name):
        return None
    algo, _, task = name.partition("/")
    chosen = _file("env", task)
    tasks = {task: _family(chosen) if chosen is not None else None}
    paths = (_of(folder / "tuned" / algo, tasks).get(task) for folder in reversed(conf_folders()))
    return next(filter(None, paths), None)


def _of(folder: Path, tasks: Mapping[str, str | None]) -> dict[str, Path]:
    """What the files in a folder `tuned/<algo>` have values for: a task's own file, before its family's.

    tasks: the families of the tasks in question.
    """
    files = {path.stem: path for path in folder.glob("*.yaml") if path.is_file()}
    found, families = {}, {*tasks.values()} & files.keys()
    for family in families:
        path = files[family]
        table = _table(settings_of(path), path)
        found |= {task: path for task, own in tasks.items() if own == family and (table is None or task in table)}
    return found | {name: path for name, path in files.items() if name not in families}


def _file(group: str, name: str) -> Path | None:
    """The file of one option of a group, the user's own first: what `options` has, without listing all of them."""
    paths = (folder / group / f"{name}.yaml" for folder in reversed(conf_folders()))
    return next(filter(os.path.isfile, paths), None)


def taken(algo: str, task: str, dataset: str) -> str:
    """The option that is taken by itself: `<algo>/<task>`, or `none` if its values are for other data."""
    name = f"{algo}/{task}"
    try:
        return name if _for_dataset(name) in (None, dataset) else "none"
    except UserError:  # which is said when the file is composed
        return name


def _for_dataset(name: str) -> str | None:
    """The option of `dataset` that the values of `<algo>/<task>` are for; None if they are for any."""
    path = file(name)
    return _dataset(settings_of(path), path) if path is not None else None


def remark_left_out(choices: Mapping[str, str], words: Sequence[str]) -> None:
    """Says of values that are not taken by themselves, and might have been meant, how to take them.

    These are values for other data, and those of the algorithm that one of the user's own builds on.
    """
    algo, task, dataset = (choices[group] for group in ("algo", "env", "dataset"))
    name, chosen, said = f"{algo}/{task}", choices.get("tuned"), ""
    if any(word.startswith(("tuned=", "~tuned")) for word in words):
        return
    if chosen == "none" and (other := _for_dataset(name)) not in (None, dataset):
        said = f"tuned: the values for algo={algo} are for dataset={other}, and not taken; to take them: tuned={name}"
    elif chosen == name and file(name) is None:
        bases = (f"{base}/{task}" for base in _bases_of(algo))
        if base := next((base for base in bases if has(base) and taken(*base.split("/"), dataset) == base), None):
            said = f"tuned: no values for algo={algo}; those of {base.partition('/')[0]}: tuned={base}"
    if said:
        from genpolicy.system.console import remark  # whose package is slow to import

        remark(said)


def _bases_of(algo: str) -> list[str]:
    """The algorithms that one builds on which is not genpolicy's own, the nearest first."""
    path = _file("algo", algo)
    own = path is not None and CONF not in path.parents
    return [base.stem for base in reversed(lineage(path)[:-1])] if own else []


def values(content: dict, task: str, path: Path) -> dict:
    """The values of one task in the content of its file, or its family's. Raises `UserError` for what are no values."""
    return OmegaConf.to_container(OmegaConf.merge(*_parts(content, task, path)))


def _parts(content: dict, task: str, path: Path) -> tuple[dict, dict]:
    """What the tasks of a file share, and what one of them has of its own."""
    _dataset(content, path)
    shared = {key: value for key, value in content.items() if key != DATASET}
    if path.stem == task:
        return shared, {}
    table = _table(content, path)
    shared.pop(TABLE, None)
    own = (table or {}).get(task) or {}
    if not isinstance(own, dict) or {"hydra", "defaults"} & own.keys():
        raise UserError(f"{path}: {TABLE}: {task}: must hold settings, as in 'algo: {{beta: 4}}'")
    return shared, own


def files(name: str, above: tuple[str, ...] = ()) -> list[tuple[Path, str]]:
    """The file of `<algo>/<task>` and those that it builds on, these first, each with the task it is asked for.

    Raises `UserError` for files that build on one another, and for one whose defaults list has anything else: Hydra
    reads it when the options have been chosen.
    """
    path = file(name)
    if path is None:  # as Hydra says
        return []
    if name in above:
        raise UserError(f"{path}: builds on itself")
    found, entries = [], settings_of(path).get("defaults") or []
    for entry in entries if isinstance(entries, list) else [entries]:
        base = re.fullmatch(rf"/tuned/({_NAME}/{_NAME})", entry) if isinstance(entry, str) else None
        if base is None and entry != "_self_":
            raise UserError(
                f"{path}: defaults: {entry!r}: a file of tuned gives values and chooses no options (one of experiment "
                "may); it can build on another, as in '/tuned/gmpo/hopper-medium-v2'"
            )
        found += files(base[1], (*above, name)) if base else []
    return [*found, (path, name.partition("/")[2])]


def explained(name: str, group: str = "tuned") -> list[tuple[Path, str, list[tuple[str, Any, str]]]]:
    """What gives values to `<algo>/<task>`, the strongest first: a file, the part of it, and what that gives.

    Or, of another `group` whose files hold values of several, to one of its options.
    Each value with its full name and the file's comment on it; values that a stronger part replaces are left out.
    """
    found, given = [], set()
    for path, task in reversed(
        files(name) if group == "tuned" else [(path, "") for path in lineage(options(group)[name])]
    ):
        comments, row, content = plain_yaml.comments(path), f"{TABLE}.{task}", settings_of(path)
        shared, own = _parts(content, task, path)
        about = "; ".join(comments[above] for above in (TABLE, row) if above in comments)
        data = f"for dataset={content[DATASET]}" if DATASET in content else ""
        for part, prefix, node in (f"{row} ({about})" if about else row, f"{row}.", own), (data, "", shared):
            flat = {full: value for full, value in _flat(node).items() if full not in given}
            given |= flat.keys()
            values = [(full, value, comments.get(prefix + full, "")) for full, value in flat.items()]
            found += [(path, part, values)] if values else []
    return found


def _flat(node: dict, prefix: str = "") -> dict[str, Any]:
    """The values by their full names; the options that a `defaults` list chooses by their groups."""
    flat = {}
    for name, value in node.items():
        if name == "defaults" and not prefix:
            chosen = (entry for entry in value if isinstance(entry, dict))
            flat |= {str(key).split()[-1].strip("/"): option for entry in chosen for key, option in entry.items()}
        elif isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _table(content: dict, path: Path) -> dict | None:
    table = content.get(TABLE, {})
    if not isinstance(table, dict):
        raise UserError(f"{path}: {TABLE}: must hold the values of each task by its name")
    return table if TABLE in content else None


def _dataset(content: dict, path: Path) -> str | None:
    """The option of `dataset` that a file's values are for. Raises `UserError` if there is none of the name."""
    dataset = content.get(DATASET)
    if dataset is not None and not (isinstance(dataset, str) and has_option("dataset", dataset)):
        hint = suggest(str(dataset), options("dataset"), "dataset")
        raise UserError(f"{path}: {DATASET}: {dataset}: no option of dataset; {hint}")
    return dataset


def _family(path: Path) -> str | None:
    """The family that a task's file names; None if it names none, or a task."""
    try:
        family = merged(path, "env").get("family")
    except UserError:  # which is said when the task is composed
        return None
    named = isinstance(family, str) and re.fullmatch(_NAME, family)
    return family if named and _file("env", family) is None else None
