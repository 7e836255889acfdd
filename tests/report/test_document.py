"""The files of a report: Markdown, LaTeX, CSV, figures and one page."""

import csv
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from genpolicy.report.document import Document, Picture, Table, Text


class Page(HTMLParser):
    """The cells and the sources of the pictures of a page, and whether all tags are closed."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.cells, self.sources = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.sources.append(dict(attrs)["src"])
        if tag not in ("img", "meta"):
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.cells[-1] += data


AWKWARD = "50 % & a_b <i> | 1 ± 2"


@pytest.fixture
def written(tmp_path) -> Path:
    figure = Figure()
    figure.subplots().plot([0, 1])
    odd = Table("odd", "Odd_signs", ["", "x"], [[AWKWARD, "1"], ["b", "2"]], "50 %", frozenset({(1, 1)}))
    made = Document(
        "<title>", ["line & line"], [Text("notes", "Notes", ["a < b"]), odd, Picture("line", "A line", figure)]
    )
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "old.csv").write_text("of an earlier report")
    made.write(tmp_path)
    return tmp_path


def test_tables_survive_signs_that_mean_something_in_the_format(written):
    assert list(csv.reader((written / "tables" / "odd.csv").open())) == [["", "x"], [AWKWARD, "1"], ["b", "2"]]
    assert r"50 \% \& a\_b $<$i$>$ | 1 $\pm$ 2 & 1 \\" in (written / "tables" / "odd.tex").read_text()
    assert r"b & \textbf{2} \\" in (written / "tables" / "odd.tex").read_text()
    lines = (written / "report.md").read_text().splitlines()
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines if line.startswith("|")] == [3] * 4
    assert any(line.endswith("**2** |") for line in lines)


def test_the_page_needs_nothing_else(written):
    text = (written / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert page.cells == ["", "x", AWKWARD, "1", "b", "2"]
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "<b>2</b>" in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)


def test_figures_are_files_too_and_what_is_old_goes(written):
    assert sorted(path.name for path in (written / "figures").iterdir()) == ["line.pdf", "line.png"]
    assert imread(written / "figures" / "line.png").std() > 0
    assert sorted(path.name for path in (written / "tables").iterdir()) == ["odd.csv", "odd.tex"]
