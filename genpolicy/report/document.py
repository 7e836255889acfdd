"""A report as a document: texts, tables and figures, written as Markdown, LaTeX, CSV and one HTML page."""

from __future__ import annotations

import base64
import csv
import html
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from genpolicy.system.files import make_folder, regular_files, unwritable, write_atomically

if TYPE_CHECKING:  # slow to import, and tables need none
    from matplotlib.figure import Figure

DPI = 150
PIXELS = 72  # of an inch of a figure on the page; where it is too narrow, it scrolls sideways
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {sign: f"\\{sign}" for sign in "&%$#_{}"} | {"±": r"$\pm$", "<": r"$<$", ">": r"$>$"}
_LATEX |= {"\0": r"\textbf{", "\1": "}"}
_MARKDOWN = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "\0": "**", "\1": "**"}
_NUMBER = re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?( ± [\d.]+)?( \(\d+ of \d+\))?")
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 0 auto; padding: 1rem; color: #1b1f24 }
h1 { font-size: 1.5rem; overflow-wrap: anywhere } h2 { font-size: 1.15rem; margin-top: 2.2rem }
p, li { max-width: 46rem } .note { color: #57606a; font-size: .9rem }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #d8dee4 }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff }
thead th { border-bottom: 2px solid #57606a }
"""


@dataclass(frozen=True)
class Text:
    """Lines of prose, listed one by one below a title; `name` as of a table, though it has no file."""

    name: str
    title: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading; the cells (row, column) in `strong` are set in bold.

    `name` is that of its files, `note` says what the numbers are.
    """

    name: str
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    strong: frozenset[tuple[int, int]] = frozenset()

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
        csv.writer(text, lineterminator="\n").writerows(map(_value, row) for row in [self.head, *self.rows])
        return text.getvalue()

    def html(self) -> str:
        """A table that scrolls sideways where the page is narrow."""
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in self.head)
        rows = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in self.cells("\0{}\1"))
        body = "".join(f"<tr>{row}</tr>\n" for row in rows).replace("\0", "<b>").replace("\1", "</b>")
        return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


@dataclass(frozen=True)
class Picture:
    """A figure; `name` is that of its files, `note` says what is seen."""

    name: str
    title: str
    figure: Figure = field(repr=False)
    note: str = ""

    def bytes(self, kind: str) -> bytes:
        """The file: kind 'png' or 'pdf'."""
        written = io.BytesIO()
        self.figure.savefig(written, format=kind, dpi=DPI)
        return written.getvalue()


@dataclass(frozen=True)
class Document:
    """A title, lines that say what this is, and what is in it."""

    title: str
    lines: Sequence[str]
    parts: Sequence[Text | Table | Picture]

    def write(self, folder: Path) -> None:
        """Write report.md, report.html, and each table and figure as files of their own; what was there goes.

        Raises `UserError` if that cannot be.
        """
        pictures = {part.name: part.bytes("png") for part in self.parts if isinstance(part, Picture)}
        files = {"report.md": self.markdown().encode(), "report.html": self.html(pictures).encode()}
        for part in self.parts:
            match part:
                case Table():
                    files |= {f"tables/{part.name}.csv": part.csv().encode()}
                    files |= {f"tables/{part.name}.tex": part.latex().encode()}
                case Picture():
                    files |= {f"figures/{part.name}.png": pictures[part.name]}
                    files |= {f"figures/{part.name}.pdf": part.bytes("pdf")}
        try:
            for old in regular_files(folder, "tables/*.csv", "tables/*.tex", "figures/*.png", "figures/*.pdf"):
                old.unlink()
            for own in (folder, folder / "tables", folder / "figures"):
                make_folder(own)
            for name, content in files.items():
                write_atomically(folder / name, content)
        except OSError as error:
            raise unwritable(folder, error) from error

    def markdown(self) -> str:
        """The whole, with its figures as links."""
        parts = [f"# {_markdown(self.title)}", "\n".join(f"{_markdown(line)}  " for line in self.lines)]
        for part in self.parts:
            title = _markdown(part.title)
            parts.append(f"## {title}")
            match part:
                case Text():
                    parts.append("\n".join(f"- {_markdown(line)}" for line in part.lines))
                case Table():
                    parts += [_markdown(part.note), part.markdown()]
                case Picture():
                    parts += [_markdown(part.note), f"![{title}](figures/{part.name}.png)"]
        return "\n\n".join(filter(None, parts)) + "\n"

    def html(self, pictures: dict[str, bytes]) -> str:
        """One page that needs nothing else; `pictures` are its PNG files by name."""
        title = html.escape(self.title)
        parts = [f"<h1>{title}</h1>", *(f"<p>{html.escape(line)}</p>" for line in self.lines)]
        for part in self.parts:
            parts.append(f"<h2>{html.escape(part.title)}</h2>")
            match part:
                case Text():
                    parts.append("<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in part.lines) + "</ul>")
                case Table():
                    parts += [_note(part.note), part.html()]
                case Picture():
                    source = base64.b64encode(pictures[part.name]).decode()
                    width = f"width:{PIXELS * part.figure.get_figwidth():.0f}px"
                    image = (
                        f'<img alt="{html.escape(part.title)}" style="{width}" src="data:image/png;base64,{source}">'
                    )
                    parts += [_note(part.note), f'<div class="wide">{image}</div>']
        head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        head += f"<title>{title}</title><style>{_STYLE}</style>"
        return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def _note(note: str) -> str:
    return f'<p class="note">{html.escape(note)}</p>' if note else ""


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
