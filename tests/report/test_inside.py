"""What mode=inspect has drawn, in a report."""

import base64

import pytest
from reported import document, result

from genpolicy.report.inside import SHOWN
from genpolicy.report.page import page

PNG = b"\x89PNG\r\n\x1a\n and more"


@pytest.fixture
def drawn(tmp_path):
    """What finds the figures of runs with these seeds, by their kinds."""

    def by_seed(figures: dict[int, dict[str, bytes]]):
        def of(run):
            paths = []
            for kind, content in figures.get(run.seed, {}).items():
                paths.append(tmp_path / f"{run.seed}" / f"inspect-{kind}.png")
                paths[-1].parent.mkdir(exist_ok=True)
                paths[-1].write_bytes(content)
            return paths

        return of

    return by_seed


def test_figures_are_on_the_page_and_beside_it(drawn, tmp_path):
    figures = {0: {"values": PNG + b"v", "samples": PNG + b"s", "best-30-samples": PNG, "density": b"<script>"}, 1: {}}
    made = document(*(result(seed=seed) for seed in range(3)), drawn=drawn(figures))
    assert [picture.title for picture in made.pictures() if picture.name.startswith("inside")] == ["samples", "values"]
    shown = page(made)
    assert shown.count("Inside the policy") == 1
    assert "Inside the policy: gmpo-gvp hopper-medium-v2 s0" in shown
    for last in (b"s", b"v"):
        assert f'src="data:image/png;base64,{base64.b64encode(PNG + last).decode()}"' in shown
    made.write(tmp_path / "report")
    assert {path.read_bytes() for path in (tmp_path / "report" / "figures").glob("inside*")} == {PNG + b"s", PNG + b"v"}


def test_of_many_runs_the_first_are_shown_and_the_others_named(drawn):
    count = SHOWN + 2
    made = document(
        *(result(seed=seed) for seed in range(count)),
        result(seed=0, evaluation="evaluation-0/", settings={"eval.final_episodes": "9"}),
        drawn=drawn({seed: {"samples": PNG} for seed in range(count)}),
    )
    assert sum(part.title.startswith("Inside the policy") for part in made.parts) == SHOWN
    (left,) = (part for part in made.parts if part.title.startswith("More figures"))
    assert [line.split()[-1] for line in left.lines] == [f"s{seed}" for seed in range(SHOWN, count)]
