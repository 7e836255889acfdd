"""A report as one HTML page: it asks for nothing, and what needs its script can be done without."""

import base64
import hashlib
import html
from collections.abc import Iterator
from pathlib import Path

from genpolicy.report import svg
from genpolicy.report.document import Choice, Document, Image, Picture, Table, Text

SHOWN = 8  # lines of a text; the others are unfolded
SHADES = 20  # of a table's cells, from 0
_LIGHT, _DARK = (0xEA, 0xF2, 0xFB), (0x08, 0x3A, 0x7A)  # the colours of the first and the last
STYLE, SCRIPT = (Path(__file__).with_suffix(kind).read_text() for kind in (".css", ".js"))


def page(document: Document) -> str:
    """The page of a document. Its security policy lets it load nothing, and run no script but its own."""
    title = html.escape(document.title)
    body = [f"<h1>{title}</h1>", *(f'<p class="note">{html.escape(line)}</p>' for line in document.lines)]
    for part in document.parts:
        body += _part(part)
    style = STYLE + "".join(_shade(number) for number in range(SHADES + 1))
    policy = f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(SCRIPT)}'"
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
    head += '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{title}</title><style>{style}</style>"
    end = f'<div id="told" role="status"></div><script>{SCRIPT}</script>'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + f"\n{end}</body></html>\n"
    )


def _part(part: Text | Table | Picture | Choice) -> Iterator[str]:
    if part.name == "headline":
        yield f'<div class="headline">{"".join(f"<p>{html.escape(line)}</p>" for line in part.lines)}</div>'
        return
    yield f"<h2>{html.escape(part.title)}</h2>"
    match part:
        case Text():
            lines = [f"<li>{html.escape(line)}</li>" for line in part.lines]
            yield f"<ul>{''.join(lines[:SHOWN])}</ul>"
            if rest := lines[SHOWN:]:
                yield f"<details><summary>{len(rest)} more</summary><ul>{''.join(rest)}</ul></details>"
        case Table():
            yield _note(part.note) + _table(part)
        case Picture():
            yield _picture(part)
        case Choice():
            yield _choice(part)


def _note(note: str) -> str:
    return f'<p class="note">{html.escape(note)}</p>' if note else ""


def _picture(picture: Picture | Image) -> str:
    if isinstance(picture, Picture):
        return _note(picture.note) + svg.draw(picture.chart)
    source = f"data:image/png;base64,{base64.b64encode(picture.content).decode()}"
    shown = f'<img src="{source}" alt="{html.escape(picture.title)}" loading="lazy">'
    return f'{_note(picture.note)}<div class="wide">{shown}</div>'


def _table(table: Table) -> str:
    """A table that scrolls sideways where the page is narrow."""
    head = [f"<th>{_unbroken(cell)}</th>" for cell in table.head]
    rows = []
    for i, row in enumerate(table.rows):
        cells = [_cell(table, i, j, cell) for j, cell in enumerate(row)]
        said = table.commands[i] if table.commands else ""
        if said:
            shown = f"<details><summary>command</summary><code>{html.escape(said)}</code></details>"
            cells.insert(1, f"<td>{shown}</td>")
        elif any(table.commands):
            cells.insert(1, "<td></td>")
        made = f' data-row="{i}" data-command="{html.escape(said)}"' if said else ""
        rows.append(f"<tr{made}>{''.join(cells)}</tr>")
    if any(table.commands):
        head.insert(1, "<th></th>")
    body = "\n".join(rows)
    return f'<div class="wide"><table><thead><tr>{"".join(head)}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _unbroken(text: str) -> str:
    """A heading that is broken between words only, not at their hyphens."""
    return " ".join(f"<span>{html.escape(word)}</span>" for word in text.split())


def _cell(table: Table, i: int, j: int, cell: str) -> str:
    shade = table.shades.get((i, j))
    kind = "" if shade is None else f' class="s{round(SHADES * shade)}"'
    content = html.escape(cell)
    return f"<td{kind}>{f'<b>{content}</b>' if (i, j) in table.strong else content}</td>"


def _choice(choice: Choice) -> str:
    """Radio buttons, and the pictures of which the style sheet shows the one whose button is on."""
    parts = []
    for i, picture in enumerate(choice.pictures):
        on = "" if i else " checked"
        parts.append(f'<input type="radio" name="{choice.name}" id="{picture.name}"{on}>')
        parts.append(f'<label for="{picture.name}">{html.escape(picture.title)}</label>')
    parts += [f"<section>{_picture(picture)}</section>" for picture in choice.pictures]
    return f'<div class="choice">{"".join(parts)}</div>'


def shade(share: float) -> tuple[str, str]:
    """The colours of a cell between 0 and 1, of its ground and of its text, whose contrast is at least 4.5."""
    ground = [round(light + share * (dark - light)) for light, dark in zip(_LIGHT, _DARK, strict=True)]
    dark = _luminance(ground) < 0.179  # where black and white are equally far
    return "#" + "".join(f"{part:02x}" for part in ground), "#ffffff" if dark else "#000000"


def _luminance(colour: list[int]) -> float:
    """The relative luminance of sRGB, as the Web Content Accessibility Guidelines define it."""
    linear = [(c / 255) / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _shade(number: int) -> str:
    ground, text = shade(number / SHADES)
    return f"td.s{number}{{background:{ground};color:{text}}}\n"


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
