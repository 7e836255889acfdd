"""What the files of options say, read without Hydra: their settings, and the comments that explain them."""

import functools
from pathlib import Path

from genpolicy.config import plain_yaml
from genpolicy.config.arguments import conf_folders, has_option, options
from genpolicy.config.schema import TARGET, completed, locate
from genpolicy.errors import UserError


def merged(path: Path, group: str) -> dict:
    """The settings that an option's file gives, and those that the files give which it builds on."""
    node = {}
    for file in lineage(path):
        content = settings_of(file)
        content.pop("defaults", None)
        node |= content.get(group, content if TARGET in content or TARGET in node else {})
    return node


def given_settings(group: str, name: str) -> dict:
    """The settings that the files of an option give; none if there is no such option."""
    return merged(options(group)[name], group) if has_option(group, name) else {}


def all_settings(path: Path, group: str) -> dict:
    """All settings of an option: those that its files give, and the defaults of its class, which is imported."""
    node = merged(path, group)
    return completed(node, locate(node[TARGET])) if TARGET in node else node


def lineage(path: Path, above: tuple[Path, ...] = ()) -> list[Path]:
    """The files that an option's file builds on, those that they build on first; the file itself is the last.

    Raises `UserError` for files that build on one another.
    """
    if path in above:
        raise UserError(f"{path}: builds on itself")
    return [*(file for base in _bases(path) for file in lineage(base, (*above, path))), path]


def _bases(path: Path) -> list[Path]:
    """The files that a file's defaults list names for its own place; Hydra says which are not there."""
    entries = [entry for entry in settings_of(path).get("defaults") or [] if isinstance(entry, str)]
    names = [name for name, _, place in (entry.partition("@") for entry in entries) if place in ("", "_here_")]
    folders = list(reversed(conf_folders()))
    inside = next((path.parent.relative_to(folder) for folder in folders if folder in path.parents), Path())
    parts = [name.strip("/") if name.startswith("/") else inside / name for name in names if name != "_self_"]
    files = [[folder / f"{part}.yaml" for folder in folders] for part in parts]
    return [found for each in files if (found := next(filter(Path.is_file, each), None)) is not None]


def settings_of(path: Path) -> dict:
    """The content of an option's file, which is read once while it does not change."""
    try:
        found = path.stat()
    except OSError:
        found = None
    return dict(_content(path, found and (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)))


@functools.lru_cache(maxsize=1000)
def _content(path: Path, state: tuple[int, ...] | None) -> dict:
    content = plain_yaml.read(path) or {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold settings, as in 'name: value'")
    return content


def background(path: Path) -> list[str]:
    """What the files say that an option builds on: of a task, what stands in for its simulator."""
    return [line for base in lineage(path)[:-1] for line in comment(base)]


def comment(path: Path) -> list[str]:
    """The comment lines at the top of a file, without Hydra's own."""
    lines = []
    for line in plain_yaml.content(path).decode(errors="replace").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @"):
            lines.append(line.lstrip("# ").rstrip())
    return lines
