"""A report as a document: texts, tables and figures, written as Markdown, LaTeX, CSV and one HTML page."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from genpolicy.report.chart import Chart
from genpolicy.system.files import make_folder, regular_files, unwritable, write_atomically

DPI = 150
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {sign: f"\\{sign}" for sign in "&%$#_{}"} | {"±": r"$\pm$", "<": r"$<$", ">": r"$>$"}
_LATEX |= {"\0": r"\textbf{", "\1": "}"}
_MARKDOWN = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "\0": "**", "\1": "**"}
_ONE = r"[-+]?([\d.,]+(e[-+]?\d+)?|inf|nan)"
_NUMBER = re.compile(rf"-|{_ONE}( ± {_ONE})?( \[{_ONE}, {_ONE}\])?( \(\d+ of \d+\))?")


@dataclass(frozen=True)
class Text:
    """Lines of prose, listed one by one below a title; `name` as of a table, though it has no file."""

    name: str
    title: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading; the cells (row, column) in `strong` are set in bold.

    `name` is that of its files, `note` says what the numbers are. shades: of cells, between 0 and 1, on the page.
    commands: of each row the command that makes its run, on the page and in CSV; "" where it is not known.
    """

    name: str
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    strong: frozenset[tuple[int, int]] = frozenset()
    shades: Mapping[tuple[int, int], float] = field(default_factory=dict)
    commands: Sequence[str] = ()

    def cells(self, bold: str) -> Iterator[list[str]]:
        """The rows, with `bold`, such as '**{}**', round what is strong."""
        for i, row in enumerate(self.rows):
            yield [bold.format(cell) if (i, j) in self.strong else cell for j, cell in enumerate(row)]

    def markdown(self) -> str:
        """A table of GitHub's Markdown, its columns aligned in plain text, too."""
        rows = [list(map(_markdown, row)) for row in (self.head, *self.cells("\0{}\1"))]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        lines = [rows[0], rules, *rows[1:]]
        return "\n".join(f"| {' | '.join(map(_padded, line, widths, range(len(line))))} |" for line in lines)

    def latex(self) -> str:
        """A table environment for the package booktabs."""
        lines = [r"\begin{table}", r"\centering", rf"\caption{{{_tex(self.title)}. {_tex(self.note)}}}"]
        lines += [rf"\label{{tab:{self.name}}}", rf"\begin{{tabular}}{{l{'r' * (len(self.head) - 1)}}}", r"\toprule"]
        lines += [" & ".join(map(_tex, self.head)) + r" \\", r"\midrule"]
        lines += [" & ".join(map(_tex, row)) + r" \\" for row in self.cells("\0{}\1")]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])

    def csv(self) -> str:
        """Comma-separated values."""
        text = io.StringIO()
        rows = [self.head, *self.rows]
        if self.commands:
            rows = [[*row, told] for row, told in zip(rows, ["command", *self.commands], strict=True)]
        csv.writer(text, lineterminator="\n").writerows(map(_value, row) for row in rows)
        return text.getvalue()


@dataclass(frozen=True)
class Picture:
    """A chart; `name` is that of its files, `note` says what is seen."""

    name: str
    title: str
    chart: Chart = field(repr=False)
    note: str = ""

    def files(self) -> dict[str, bytes]:
        """The chart as PNG and PDF, by the ends of their names."""
        from genpolicy.report.figures import draw  # matplotlib is slow to import, and tables need none

        figure, written = draw(self.chart), {"png": io.BytesIO(), "pdf": io.BytesIO()}
        for kind, file in written.items():
            figure.savefig(file, format=kind, dpi=DPI)
        return {kind: file.getvalue() for kind, file in written.items()}


@dataclass(frozen=True)
class Image:
    """A PNG file that is there already; `name` is that of its copy, `note` says what is seen."""

    name: str
    title: str
    content: bytes = field(repr=False)
    note: str = ""

    def files(self) -> dict[str, bytes]:
        """The image, by the end of its name."""
        return {"png": self.content}


@dataclass(frozen=True)
class Choice:
    """Pictures of which the page shows the one that is chosen, by its title; the first to begin with. Four at most."""

    name: str
    title: str
    pictures: Sequence[Picture | Image]


@dataclass(frozen=True)
class Document:
    """A title, lines that say what this is, and what is in it."""

    title: str
    lines: Sequence[str]
    parts: Sequence[Text | Table | Picture | Choice]

    def pictures(self) -> Iterator[Picture | Image]:
        """All of them."""
        for part in self.parts:
            match part:
                case Picture():
                    yield part
                case Choice():
                    yield from part.pictures

    def write(self, folder: Path) -> None:
        """Write report.md, report.html, and each table and figure as files of their own; what was there goes.

        Raises `UserError` if that cannot be.
        """
        from genpolicy.report.page import page  # which knows documents

        files = {"report.md": self.markdown().encode(), "report.html": page(self).encode()}
        for part in self.parts:
            if isinstance(part, Table):
                files |= {f"tables/{part.name}.csv": part.csv().encode()}
                files |= {f"tables/{part.name}.tex": part.latex().encode()}
        for picture in self.pictures():
            files |= {f"figures/{picture.name}.{kind}": content for kind, content in picture.files().items()}
        try:
            for own in (folder, folder / "tables", folder / "figures"):  # first, as a link is refused
                make_folder(own)
            for old in regular_files(folder, "tables/*.csv", "tables/*.tex", "figures/*.png", "figures/*.pdf"):
                old.unlink()
            for name, content in files.items():
                write_atomically(folder / name, content)
        except OSError as error:
            raise unwritable(folder, error) from error

    def markdown(self) -> str:
        """The whole, with its figures as links."""
        parts = [f"# {_markdown(self.title)}", "\n".join(f"{_markdown(line)}  " for line in self.lines)]
        for part in self.parts:
            parts.append(f"## {_markdown(part.title)}")
            match part:
                case Text():
                    parts.append("\n".join(f"- {_markdown(line)}" for line in part.lines))
                case Table():
                    parts += [_markdown(part.note), part.markdown()]
                case Picture():
                    parts += [_markdown(part.note), _linked(part)]
                case Choice():
                    for picture in part.pictures:
                        parts += [f"### {_markdown(picture.title)}", _markdown(picture.note), _linked(picture)]
        return "\n\n".join(filter(None, parts)) + "\n"


def file_name(text: str) -> str:
    """A text as a part of a file's name."""
    return "".join(sign if sign.isalnum() or sign == "-" else "_" for sign in text)


def _linked(picture: Picture | Image) -> str:
    return f"![{_markdown(picture.title)}](figures/{picture.name}.png)"


def _padded(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if column else cell.ljust(width)


def _tex(text: str) -> str:
    return re.sub(r"[\\~^&%$#_{}±<>\0\1]", lambda found: _LATEX[found[0]], text)


def _markdown(text: str) -> str:
    """Text in which Markdown and HTML find nothing of theirs."""
    return re.sub(r"[\\`*\[\]|<>&\0\1]", lambda found: _MARKDOWN.get(found[0], f"\\{found[0]}"), text)


def _value(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) and not _NUMBER.fullmatch(cell) else cell
