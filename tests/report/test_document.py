"""The files of a report: Markdown, LaTeX, CSV, figures and one page."""

import base64
import csv
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.image import imread

from genpolicy.errors import UserError
from genpolicy.report import page
from genpolicy.report.chart import Chart, Mark, Panel, Series
from genpolicy.report.document import Choice, Document, Picture, Table, Text, file_name


class Page(HTMLParser):
    """The cells and the attributes of a page, and whether all tags are closed."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.cells, self.attributes = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag not in ("img", "meta", "input"):
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.cells[-1] += data


AWKWARD = "50 % & a_b <i> | 1 ± 2"
COMMAND = "genpolicy env=gym 'dataset.path=\"a & <b>.npz\"'"


def picture(name: str, title: str) -> Picture:
    series = [Series("a", [0, 1], [0, 1]), Series("a", [0, 1], [1, 0], runs=[Mark(0, "</svg><run>")], thin=True)]
    return Picture(name, title, Chart([Panel("p", "x", "y", series)], ["a"]))


@pytest.fixture
def written(tmp_path) -> Path:
    odd = Table("odd", "Odd_signs", ["", "x"], [[AWKWARD, "1"], ["b", "2"]], "50 %", frozenset({(1, 1)}), {(0, 1): 0.5})
    runs = Table("runs", "Runs", ["", "y"], [["c", "3"], ["d", "4"]], commands=[COMMAND, ""])
    choice = Choice("curves", "Curves", [picture("one", "by one"), picture("two", "by two")])
    parts = [Text("headline", "In one sentence", ["e > f"]), Text("notes", "Notes", ["a < b"]), odd, runs]
    made = Document("<title>", ["line & line"], [*parts, picture("line", "A line"), choice])
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "old.csv").write_text("of an earlier report")
    made.write(tmp_path)
    return tmp_path


def test_tables_survive_signs_that_mean_something_in_the_format(written):
    assert list(csv.reader((written / "tables" / "odd.csv").open())) == [["", "x"], [AWKWARD, "1"], ["b", "2"]]
    rows = [["", "y", "command"], ["c", "3", COMMAND], ["d", "4", ""]]
    assert list(csv.reader((written / "tables" / "runs.csv").open())) == rows
    assert r"50 \% \& a\_b $<$i$>$ | 1 $\pm$ 2 & 1 \\" in (written / "tables" / "odd.tex").read_text()
    assert r"b & \textbf{2} \\" in (written / "tables" / "odd.tex").read_text()
    lines = (written / "report.md").read_text().splitlines()
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines if line.startswith("|")] == [3] * 8
    assert any(line.endswith("**2** |") for line in lines)
    assert [line for line in lines if line.startswith("![")] == [
        "![A line](figures/line.png)",
        "![by one](figures/one.png)",
        "![by two](figures/two.png)",
    ]


def test_the_page_needs_nothing_else_and_lets_nothing_else_in(written):
    text = (written / "report.html").read_text()
    found = Page(text)
    assert found.open == []
    assert found.cells == ["", "x", AWKWARD, "1", "b", "2", "", "", "y", "c", f"command{COMMAND}", "3", "d", "", "4"]
    assert "<b>2</b>" in text
    assert not re.search(r"https?://|url\(|@import", text)
    assert not {"src", "href", "style", "onclick"} & {name for name, _ in found.attributes}
    (policy,) = (value for name, value in found.attributes if name == "content" and "default-src" in value)
    allowed = [
        f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
        for kind in ("style", "script")
        for content in re.findall(f"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
    ]
    assert policy == f"default-src 'none'; img-src data:; style-src {allowed[0]}; script-src {allowed[1]}"


def test_a_run_says_which_row_has_its_command(written):
    attributes = Page((written / "report.html").read_text()).attributes
    assert [value for name, value in attributes if name == "data-run"] == ["0"] * 3
    assert ("data-row", "0") in attributes
    assert ("data-command", COMMAND) in attributes


def test_a_shaded_cell_is_legible_on_every_shade():
    """By the definitions of the Web Content Accessibility Guidelines: a contrast of at least 4.5."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    before = 1.0
    for number in range(page.SHADES + 1):
        ground, text = map(luminance, page.shade(number / page.SHADES))
        low, high = sorted((ground, text))
        assert (high + 0.05) / (low + 0.05) >= 4.5
        assert ground < before
        before = ground


def test_every_colour_of_the_page_is_legible_in_light_and_dark():
    """Lines have a contrast of at least 3 against the ground, text of at least 4.5."""

    def luminance(colour: str) -> float:
        colour = "#" + "".join(2 * sign for sign in colour[1:]) if len(colour) == 4 else colour
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    themes = [dict(re.findall(r"--(\w+): (#\w+)", block)) for block in re.findall(r":root \{([^}]*)\}", page.STYLE)]
    assert len(themes) == 2
    for theme in themes:
        for name, colour in theme.items():
            wanted = 4.5 if name in ("text", "note") else 3 if re.fullmatch(r"c\d", name) else 0
            low, high = sorted((luminance(colour), luminance(theme["page"])))
            assert (high + 0.05) / (low + 0.05) >= wanted, name


def test_figures_are_files_too_and_what_is_old_goes(written):
    names = ["line.pdf", "line.png", "one.pdf", "one.png", "two.pdf", "two.png"]
    assert sorted(path.name for path in (written / "figures").iterdir()) == names
    assert imread(written / "figures" / "line.png").std() > 0
    assert sorted(path.name for path in (written / "tables").iterdir()) == [
        "odd.csv",
        "odd.tex",
        "runs.csv",
        "runs.tex",
    ]


@pytest.mark.parametrize("link", ["report", "report/figures"])
def test_nothing_behind_a_link_is_deleted(tmp_path, link):
    own = [tmp_path / "paper" / name for name in ("tables/own.tex", "figures/own.png", "own.png")]
    for path in own:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("by hand")
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(tmp_path / "paper")
    with pytest.raises(UserError, match="a link"):
        Document("title", [], []).write(tmp_path / "report")
    assert all(path.exists() for path in own)


@pytest.mark.parametrize(
    "cell", ["-", "-1.0 [-2.0, 0.5]", "-1.0 ± 4.5 (2 of 3)", "+2.1", "-1,000.5", "-inf", "-2.0 ± nan"]
)
def test_numbers_are_no_formulas(cell):
    for content, written in ((cell, cell), (f"={cell}", f"'={cell}"), (f"{cell}+A1", f"'{cell}+A1")):
        assert next(csv.reader([Table("a", "A", [content], []).csv()])) == [written]


def test_tasks_of_two_names_have_files_of_two_names():
    assert len({file_name(task) for task in ("my-task", "my_task")}) == 2
