"""YAML that other people may have written: read within bounds, and written without anchors."""

import re
from pathlib import Path
from typing import Any

import yaml

from genpolicy.errors import UserError

_SAFE = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where there is one: a sweep reads hundreds
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_TIME = "tag:yaml.org,2002:timestamp"
_OLD = r"(?![-+]?0[0-9bx]|.*[:_])"  # 12:00:00 as seconds, 0123 as an octal number, 2026_11_29 as one of eight digits
LARGEST = 2**20  # bytes of a file
DEEPEST = 50  # nested lists and mappings


def as_typed(loader: type) -> type:
    """A loader to which only decimal numbers are numbers: what YAML 1.1 has beside them is the text that it looks like.

    The words of the command line are read so, too.
    """
    resolvers = {
        first: [
            (tag, re.compile(_OLD + form.pattern, form.flags) if tag in _NUMBERS else form)
            for tag, form in forms
            if tag != _TIME
        ]
        for first, forms in loader.yaml_implicit_resolvers.items()
    }
    return type(loader.__name__, (loader,), {"yaml_implicit_resolvers": resolvers})


LOADER = as_typed(_SAFE)


def read(path: Path) -> Any:
    """The plain values of a file. Raises `UserError` if it cannot be read, and for what `check` refuses."""
    return parse(content(path), path)


def content(path: Path) -> bytes:
    """The bytes of a file, of one of more than `LARGEST` the first. Raises `UserError` if it cannot be read."""
    try:
        if not path.is_file():
            raise UserError(f"{path}: not a regular file")
        with open(path, "rb") as file:
            return file.read(LARGEST + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def parse(text: bytes, path: Path) -> Any:
    """The plain values of a document; `path` is where it comes from. Raises `UserError` for what `check` refuses."""
    check(text, path)
    try:
        return yaml.load(text, LOADER)
    except (yaml.YAMLError, ValueError) as error:
        raise _unreadable(path, error) from error


def comments(path: Path) -> dict[str, str]:
    """The comment at the end of the line on which a name stands, by the names down to it, with dots between them."""
    text, found = content(path), {}
    check(text, path)
    lines = text.decode(errors="replace").splitlines()

    def visit(node: yaml.Node, prefix: str) -> None:
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            if said := re.search(r"\s#\s*(.+)", lines[key.start_mark.line]):
                found[f"{prefix}{key.value}"] = said[1].strip()
            visit(value, f"{prefix}{key.value}.")

    visit(yaml.compose(text, LOADER), "")
    return found


def check(text: bytes, path: Path) -> None:
    """Raises `UserError` for invalid YAML, and for what can turn few bytes into gigabytes: aliases, deep nesting."""
    if len(text) > LARGEST:
        raise UserError(f"{path}: of more than {LARGEST:,} bytes; settings need less")
    depth = 0
    try:
        for event in yaml.parse(text, LOADER):
            if isinstance(event, yaml.AliasEvent):
                raise UserError(
                    f"{path}: line {event.start_mark.line + 1}: *{event.anchor} repeats another part of the file; "
                    "aliases are not read; write the part out"
                )
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise UserError(f"{path}: line {event.start_mark.line + 1}: nested more than {DEEPEST} deep")
    except (yaml.YAMLError, ValueError) as error:
        raise _unreadable(path, error) from error


def dump(content: Any) -> bytes:
    """Plain values as a document that `parse` reads, whatever parts of them are the same object."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True).encode()


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())[:300]})")
