"""`tuned`: the papers' values for an algorithm on a task, from the file of the task or that of its family.

`tuned/<algo>/<task>.yaml` is an option as Hydra knows it. `tuned/<algo>/<family>.yaml` holds values that the tasks of a
family share, and in a table `tasks` what each of them has beside or instead. Tasks that the table does not name have no
values; a file without a table is for the whole family. Which family a task belongs to, its own file says
(`family: locomotion`).
"""

import os
import re
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from genpolicy.config import plain_yaml
from genpolicy.config.arguments import conf_folders, options
from genpolicy.config.option_content import lineage, merged, settings_of
from genpolicy.errors import UserError

TABLE = "tasks"
_NAME = r"\w[\w.-]*"


def names() -> dict[str, Path]:
    """All that has values, as `<algo>/<task>`, and the file that has them."""
    tasks = options("env")
    families: dict[str | None, list[str]] = {}
    for task, path in tasks.items():
        families.setdefault(_family(path), []).append(task)
    shared, single = {}, {}
    for folder in conf_folders():
        for path in filter(Path.is_file, (folder / "tuned").glob("*/*.yaml")):
            algo, name = path.parent.name, path.stem
            if name in families and name not in tasks:
                table = _table(settings_of(path), path)
                shared |= {f"{algo}/{task}": path for task in families[name] if table is None or task in table}
            else:
                single[f"{algo}/{name}"] = path
    return dict(sorted({**shared, **single}.items()))


def has(name: str) -> bool:
    """Whether `<algo>/<task>` has values, without reading what all tasks have."""
    if not re.fullmatch(rf"{_NAME}/{_NAME}", name):
        return False
    algo, _, task = name.partition("/")
    if _file(f"tuned/{algo}", task) is not None:
        return _file("env", task) is not None or name in names()
    return family_file(name) is not None


def family_file(name: str) -> Path | None:
    """The file of a family that has values for `<algo>/<task>`, if there is one."""
    algo, _, task = name.partition("/")
    chosen = _file("env", task) if "/" not in task else None
    family = chosen and _family(chosen)
    if family is None or _file("env", family) is not None:
        return None
    path = _file(f"tuned/{algo}", family)
    if path is None:
        return None
    table = _table(settings_of(path), path)
    return path if table is None or task in table else None


def _file(group: str, name: str) -> Path | None:
    """The file of one option of a group, the user's own first: what `options` has, without listing all of them."""
    paths = (folder / group / f"{name}.yaml" for folder in reversed(conf_folders()))
    return next(filter(os.path.isfile, paths), None)


def values(content: dict, task: str, path: Path) -> dict:
    """The values of one task in the content of its family's file. Raises `UserError` for what are no values."""
    return OmegaConf.to_container(OmegaConf.merge(*_parts(content, task, path)))


def _parts(content: dict, task: str, path: Path) -> tuple[dict, dict]:
    """What the tasks of a file share, and what one of them has of its own."""
    shared, table = dict(content), _table(content, path)
    shared.pop(TABLE, None)
    own = (table or {}).get(task) or {}
    if not isinstance(own, dict) or {"hydra", "defaults"} & own.keys():
        raise UserError(f"{path}: {TABLE}: {task}: must hold settings, as in 'algo: {{beta: 4}}'")
    return shared, own


def explained(name: str, group: str = "tuned") -> list[tuple[Path, str, list[tuple[str, Any, str]]]]:
    """What gives values to `<algo>/<task>`, the strongest first: a file, the part of it, and what that gives.

    Or, of another `group` whose files hold values of several, to one of its options.
    Each value with its full name and the file's comment on it; values that a stronger part replaces are left out.
    """
    task, found, given = name.partition("/")[2], [], set()
    for path in reversed(lineage(options(group)[name])):
        comments, row = plain_yaml.comments(path), f"{TABLE}.{task}"
        shared, own = _parts(settings_of(path), task, path)
        about = "; ".join(comments[above] for above in (TABLE, row) if above in comments)
        for part, prefix, node in (f"{row} ({about})" if about else row, f"{row}.", own), ("", "", shared):
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


def _family(path: Path) -> str | None:
    """The family that a task's file names; None if it names none."""
    try:
        family = merged(path, "env").get("family")
    except UserError:  # which is said when the task is composed
        return None
    return family if isinstance(family, str) and re.fullmatch(_NAME, family) else None
