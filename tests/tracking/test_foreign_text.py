"""Names and reasons from stores and folders of other people: shown as they are, and nothing comes of them."""

import csv
import io
import json
import re
import sqlite3
from contextlib import closing
from html.parser import HTMLParser

import pytest
from command_line import genpolicy
from rich.console import Console
from store import SQLITE
from tiny import ended, only_run

from genpolicy.errors import printable
from genpolicy.evaluation import figures
from genpolicy.report import figures as report_figures
from genpolicy.report.chart import Chart, Mark, Panel, Series
from genpolicy.report.document import Choice, Document, Picture, Table, Text
from genpolicy.report.page import page
from genpolicy.system.console import plain
from genpolicy.system.files import last_line

NAMES = [r"$\frac{$", "a$b", "<script>alert(1)</script>", "[link=http://x]y[/link]", "![x](http://x/y.png)", "`x`"]
NAMES += ["a|b", "**x**", "=1+1", "&lt;", '"><img src=x onerror=y>', r"\input{/etc/passwd}", "~^_#%{}", "é±≥"]
STEERING = "\x1b[31mred\x1b]0;title\x07 \x9b2J \u202egnol\u202c\r\n\u2028\ud800"


def test_what_steers_a_terminal_is_written_out():
    shown = printable(STEERING + "plain, ä ± 日本")
    assert shown.isprintable() or re.fullmatch(r"[ -~ä±日本]*", shown)
    assert shown.startswith(r"\x1b[31mred\x1b]0;title\x07 \x9b2J \u202egnol\u202c\r\n\u2028\ud800plain, ä ± 日本")


def test_a_cell_is_no_markup(capsys):
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    console.print(plain("[bold red]x[/] [link=http://x]y[/link]" + STEERING))
    written = console.file.getvalue()
    assert "[bold red]x[/] [link=http://x]y[/link]" in written
    assert "\x1b" not in written


def chart(names) -> Chart:
    """A chart in which everything has these names."""
    panels = []
    for name in names:
        run = {"runs": [Mark(0, name)]}
        series = [Series(name, [1, 2], [1, 2], [0, 1], [2, 3]), Series(name, [1, 2], [2, 1], thin=True, **run)]
        series += [Series(name, [1], [1], style="points", **run), Series(name, [1], [1], style="stars", **run)]
        panels.append(Panel(name, name, name, series, xticks=[(1, name)], yticks=[(1, name)]))
        panels.append(Panel(name, name, name, [Series(name, [1], [0], [0], [2], "bars")], yticks=[(0, name)]))
    return Chart(panels, names)


def test_names_are_no_formulas(tmp_path):
    figure = report_figures.draw(chart([name for name in NAMES if "$" in name]))
    for kind in ("png", "pdf"):
        figure.savefig(io.BytesIO(), format=kind)
    figures.draw_trade_off({1: {"return_mean": 1.0, "return_std": 0.1, "ms_per_action": 1.0}}, tmp_path / "x.png")


def test_no_latex_runs_because_a_working_folder_says_so(tmp_path, monkeypatch):
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "text.usetex", True)  # as a matplotlibrc there would
    figure = report_figures.draw(chart(["x"]))
    with matplotlib.rc_context({"text.usetex": False}):
        figure.savefig(io.BytesIO(), format="png")
    assert not any(text.get_usetex() for axis in figure.axes for text in (axis.title, axis.xaxis.label))


ROW = [["task", *NAMES]]
TABLE = Table("names", "Names <b> of $x$", ["", *NAMES], ROW, "A note <i>", frozenset({(0, 2)}))
RUNS = Table("runs", "Runs", ["", *NAMES], ROW, commands=[" ".join(NAMES)])
PICTURES = [Picture(f"picture{i}", "A picture <b>", chart(NAMES), "A note <i>") for i in (1, 2)]
PARTS = [Text("headline", "Text <h1>", NAMES), Text("t", "Text <h1>", NAMES), TABLE]
DOCUMENT = Document("Study <u>", ["a line <s>"], PARTS)
DRAWN = Document("Study <u>", ["a line <s>"], [*PARTS, RUNS, Choice("c", "Choice <b>", PICTURES)])


class Tags(HTMLParser):
    """The elements of a page and its texts."""

    def __init__(self):
        super().__init__()
        self.seen, self.text = set(), []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_has_no_elements_but_its_own():
    found = Tags()
    found.feed(page(DRAWN))
    own = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "ul", "li", "div", "table", "script"}
    own |= {"thead", "tbody", "tr", "th", "td", "b", "span", "details", "summary", "code", "input", "label", "section"}
    assert found.seen <= own | {"svg", "g", "path", "text", "rect", "circle"}
    shown = "".join(found.text)
    for name in NAMES:
        assert shown.count(name) > 6  # two lines, two headings, two cells, a command, and charts
    assert page(DRAWN).count("<script>") == 1


def test_markdown_passes_no_html_and_no_links():
    text = DOCUMENT.markdown()
    assert not re.search(r"<[a-z!/]", text)
    assert not re.search(r"(?<!\\)\[", text)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert "**a$b**" in rows[-1]


def test_latex_has_no_commands_but_its_own():
    commands = set(re.findall(r"\\([a-zA-Z]+)", TABLE.latex()))
    own = {"begin", "end", "centering", "caption", "label", "toprule", "midrule", "bottomrule", "textbf"}
    assert commands <= own | {"textbackslash", "textasciitilde", "textasciicircum", "pm"}
    assert r"\textbackslash{}input\{/etc/passwd\}" in TABLE.latex()


def test_spreadsheets_find_no_formulas():
    cells = ["=1+1", "+1+cmd|' /C calc'!A0", "-1+1", "@SUM(1)", "\t=1", "-1.5 ± 0.2", "+3.2", "-7", "-1e-05", "x=1"]
    written = Table("x", "x", ["", *cells], [["task", *cells]]).csv()
    for row in csv.reader(io.StringIO(written)):
        assert row[1:] == ["'=1+1", "'+1+cmd|' /C calc'!A0", "'-1+1", "'@SUM(1)", "'\t=1", *cells[5:]]


@pytest.fixture
def shown(outputs):
    """Two finished runs in a store, one of which a stranger has tagged."""
    for seed in (0, 1):
        run = ended(outputs, SQLITE, f"seed={seed}")
        event = {"time": 10**12, "step": 9, "metrics": {"final/score_mean": 10.0 + seed, "best/score_mean": 12.0}}
        run.path("journal.jsonl").write_text(json.dumps(event) + "\n")
    assert genpolicy("mode=sync", f"paths.outputs={outputs}").code == 0

    def tag(**changed):
        with closing(sqlite3.connect(outputs / "mlflow.db")) as database, database:
            ask = "SELECT run_uuid FROM tags WHERE key = 'genpolicy.seed' AND value = '1'"
            ((number,),) = database.execute(ask).fetchall()
            for name, value in changed.items():
                where = "WHERE run_uuid = ? AND key = ?"
                if value is None:
                    database.execute(f"DELETE FROM tags {where}", (number, f"genpolicy.{name}"))
                else:
                    database.execute(f"UPDATE tags SET value = ? {where}", (value, number, f"genpolicy.{name}"))

    return outputs, tag


@pytest.mark.parametrize("changed", [{"seed": "no number"}, {"seed": "9" * 5000}, {"algo": None}, {"run_dir": None}])
def test_a_run_that_a_report_cannot_read_is_named_and_the_others_are_reported(shown, changed):
    outputs, tag = shown
    tag(**changed)
    result = genpolicy("mode=report", f"paths.outputs={outputs}")
    assert result.code == 0, result.err
    assert "not as genpolicy tags its runs" in result.out
    assert "10.0" in result.out


def test_a_report_shows_names_as_they_are(shown):
    outputs, tag = shown
    tag(algo=r"$\frac{$<script>[bold]" + "\x1b[31m", reason="=1+1\x1b]0;x\x07")
    result = genpolicy("mode=report", f"paths.outputs={outputs}")
    assert result.code == 0, result.err
    assert "\x1b" not in result.out
    folder = outputs / "default" / "report"
    assert "<script>" not in (folder / "report.md").read_text()
    assert (folder / "report.html").read_text().count("<script>") == 1  # its own
    for path in folder.rglob("*.*"):
        assert path.suffix in (".png", ".pdf") or "\x1b" not in path.read_text()


def test_what_runs_say_does_not_steer_the_terminal(outputs):
    run = only_run(ended(outputs, "seed=0").outputs)
    known = json.loads((run / "status.json").read_text())
    known |= {"state": "failed", "reason": f"[bold]{STEERING[:-1]}", "result": {}}
    (run / "status.json").write_text(json.dumps(known))
    (run / "log.txt").write_bytes(b"\x1b[2J\x1b]0;title\x07last words\n")
    (outputs / "default" / "\x1b[31menv" / "a" / "seed0").mkdir(parents=True)
    (outputs / "default" / "\x1b[31menv" / "a" / "seed0" / "config.yaml").write_text("\x1b")
    result = genpolicy("mode=status", f"paths.outputs={outputs}")
    assert result.code == 0, result.err
    assert "[bold]" in result.out
    assert last_line(run / "log.txt") == r"\x1b[2J\x1b]0;title\x07last words"
    synced = genpolicy("mode=sync", f"paths.outputs={outputs}")
    assert synced.code == 1
    for text in (result.out, synced.err, synced.out):
        assert "\x1b" not in text
