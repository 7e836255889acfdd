"""The rooms of genpolicy/ are in the order of docs/architecture.md: no import runs from a lower to a higher one."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "genpolicy"
PAGE = (ROOT / "docs/architecture.md").read_text()


def order(page: str) -> list[str]:
    """The rooms of the numbered list below the heading "The order of rooms", from low to high."""
    section = page.split("## The order of rooms", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\d+\. `(\w+)`", section, re.MULTILINE)


def imported(source: str) -> Iterator[tuple[int, str]]:
    """The lines and dotted names that a module imports, inside functions too, but not for type checkers alone.

    Names that `import_module` is given count as well, up to the first part that is computed.
    """

    def visit(node: ast.AST) -> Iterator[tuple[int, str]]:
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            children = node.orelse
        else:
            children = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "import_module":
            given = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
            if isinstance(given, ast.Constant):
                yield node.lineno, given.value
        for child in children:
            yield from visit(child)

    return visit(ast.parse(source))


def upward(source: str, room: str, rooms: list[str]) -> list[str]:
    """What a module of a room imports of higher ones."""
    wrong = []
    for line, name in imported(source):
        parts = name.rstrip(".").split(".")
        if parts[0] == PACKAGE and len(parts) > 1 and rooms.index(parts[1]) > rooms.index(room):
            wrong.append(f"line {line}: {name}")
    return wrong


ROOMS = order(PAGE)
FILES = sorted((ROOT / PACKAGE).rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / PACKAGE).with_suffix("").parts[0]


def test_the_order_names_every_room_once():
    names = {room_of(path) for path in FILES} - {"__init__"}
    assert len(ROOMS) == len(set(ROOMS))
    assert set(ROOMS) == names


@pytest.mark.parametrize("room", ROOMS)
def test_no_import_runs_from_a_lower_room_to_a_higher_one(room):
    for path in FILES:
        if room_of(path) == room:
            assert upward(path.read_text(), room, ROOMS) == [], path.relative_to(ROOT)


def test_what_is_held_against_the_order_is_what_python_would_import():
    source = """
import typing
from typing import TYPE_CHECKING
import genpolicy.errors, genpolicy.high.one
from genpolicy import high
if TYPE_CHECKING:
    from genpolicy.high import two
else:
    from genpolicy.high import three
def later():
    from genpolicy.high.four import five
    importlib.import_module(f"genpolicy.high.{name}")
"""
    found = upward(source, "low", ["errors", "low", "high"])
    assert [line.split()[1] for line in found] == ["4:", "5:", "9:", "11:", "12:"]
    assert upward(source, "high", ["errors", "low", "high"]) == []


def test_the_tree_of_the_page_is_the_tree():
    tree = PAGE.split("## The tree", 1)[1].split("\n## ", 1)[0]
    assert set(re.findall(r"^  (\w+)(?:/|\.py) ", tree, re.MULTILINE)) == set(ROOMS)
    for name in re.findall(r"`((?:genpolicy|conf|launch|tests|docs)/[\w./-]+)`", PAGE):
        assert (ROOT / name).exists(), name
