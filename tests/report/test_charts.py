"""What the charts of a report show, and that both ways to draw them show it."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from reported import document, logged, picture, result

from genpolicy.report import figures, svg
from genpolicy.report.chart import Chart, Mark, Panel, Series
from genpolicy.report.document import Choice, Picture
from genpolicy.report.learning import FINETUNING, ONLINE_STEPS, PRETRAINING, STAR


def points(panel: Panel, *, thin: bool = False) -> dict[str, list[list[float]]]:
    """The points of the series of a panel, those of one name together."""
    found: dict[str, list] = {}
    for series in panel.series:
        if series.thin == thin:
            found.setdefault(series.name, []).extend(
                [float(x), float(y)] for x, y in zip(series.x, series.y, strict=True)
            )
    return found


def test_the_likelihood_chart_colours_pretraining_and_finetuning_apart():
    run = result()
    run.metrics.update({"eval/log_prob": 0.0, "behaviour/updates_per_second": 1.0, "best/update": 400})
    known = {
        "eval/score_mean": logged((100, 1.0), (200, 2.0), (300, 3.0), (400, 4.0)),
        "eval/log_prob": logged((100, -4.0), (200, -3.0), (300, -2.0), (400, -1.0)),
        "behaviour/updates_per_second": logged((50, 9.0), (200, 9.0)),
    }
    made = document(run, history=lambda number, metric: known.get(metric, []))
    (panel,) = picture(made, "likelihood_hopper-medium-v2").chart.panels
    assert points(panel) == {
        PRETRAINING: [[-4.0, 1.0], [-3.0, 2.0]],
        FINETUNING: [[-2.0, 3.0], [-1.0, 4.0]],
        STAR: [[-1.0, 4.0]],
    }


@pytest.mark.parametrize(
    ("name", "places", "label"),
    [
        ("learning_curves", [0.5, 1.0, 1.5, 2.0], "phase"),
        ("learning_curves_time", [2.0, 4.0, 6.0, 8.0], "wall-clock time (minutes)"),
    ],
)
def test_learning_curves_are_drawn_over_the_phase_and_over_time(name, places, label):
    runs = [result(seed=seed) for seed in (0, 1)]
    for run in runs:
        run.metrics.update({"data/episodes": 9.0, "behaviour/updates_per_second": 1.0})
    known = {
        "eval/score_mean": [(100, 1.0), (200, 2.0), (300, 3.0), (400, 4.0)],
        "behaviour/updates_per_second": [(50, 9.0), (200, 9.0)],
        "data/episodes": [(0, 9.0)],
    }

    def history(number, metric):  # the second seed begins an hour later and takes twice as long
        late, every = (3_600_000, 1600) if number == runs[1].number else (0, 800)
        return [(step, value, time + late) for step, value, time in logged(*known.get(metric, []), every=every)]

    made = document(*runs, history=history)
    shown = picture(made, name)
    (panel,) = shown.chart.panels
    assert points(panel) == {"gmpo-gvp": [[place, i + 1] for i, place in enumerate(places)]}
    assert [series.runs[0].text for series in panel.series if series.thin] == [
        f"gmpo-gvp, hopper-medium-v2, seed {seed}" for seed in (0, 1)
    ]
    assert panel.xlabel == label
    assert ("mean of its times" in shown.note) == ("time" in name)
    (choice,) = (part for part in made.parts if isinstance(part, Choice))
    assert [each.title for each in choice.pictures] == ["by phase", "by time"]  # nothing was trained online


@pytest.mark.parametrize("steps", [400, 333])
def test_a_run_that_goes_on_from_a_shorter_one_stands_where_it_was(steps):
    """The second one, of one half as long; the first was trained from its beginning: after a critic, by 200 updates."""
    runs, behind = [result(seed=seed, settings={"eval.per_phase": "4"}) for seed in (0, 1)], 200
    for run in runs:
        run.metrics.update({"critic/updates_per_second": 1.0, "policy/updates_per_second": 1.0})
    whole = [math.ceil(steps * quarter / 4) for quarter in (1, 2, 3, 4)]
    eighths = [math.ceil(whole[1] * quarter / 4) for quarter in (1, 2, 3, 4)]
    evaluated = {runs[0].number: whole, runs[1].number: [*eighths, *whole[2:]]}

    def history(number, metric):
        found = {"critic/updates_per_second": [0], "policy/updates_per_second": [1, steps]}
        return logged(
            *((behind + step, 1.0) for step in (found | {"eval/score_mean": evaluated[number]}).get(metric, []))
        )

    (panel,) = picture(document(*runs, history=history), "learning_curves").chart.panels
    first, second = (series.x for series in panel.series if series.thin)
    assert list(first) == [0.25, 0.5, 0.75, 1.0]
    assert set(first) < set(second)
    assert list(second) == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.75, 1.0], abs=2 / steps)
    assert [x for x, _ in points(panel)["gmpo-gvp"]] == list(first)  # the mean is that of both


def test_learning_curves_over_steps_in_the_simulator_begin_before_the_online_phase():
    run = result()
    run.metrics.update(
        {"policy/updates_per_second": 1.0, "online/updates_per_second": 1.0, "online/environment_steps": 90}
    )
    known = {
        "eval/score_mean": logged((50, 1.0), (100, 2.0), (150, 3.0), (200, 4.0)),
        "policy/updates_per_second": logged((50, 9.0), (100, 9.0)),
        "online/updates_per_second": logged((150, 9.0), (200, 9.0)),
        "online/environment_steps": logged((150, 45), (200, 90)),
    }
    made = document(run, history=lambda number, metric: known.get(metric, []))
    (panel,) = picture(made, "learning_curves_steps").chart.panels
    assert points(panel) == {"gmpo-gvp": [[0, 2.0], [45, 3.0], [90, 4.0]]}
    (panel,) = picture(made, "learning_curves").chart.panels
    assert points(panel) == {"gmpo-gvp": [[0.5, 1.0], [1.0, 2.0], [1.5, 3.0], [2.0, 4.0]]}
    assert panel.xticks == [(0.5, "finetuning"), (1.5, "online")]


@pytest.mark.parametrize("evaluated", [True, False])
def test_steps_in_the_simulator_are_those_before_the_first_update_too(evaluated):
    """The first of them begin the phase, and it may not have been evaluated yet."""
    run = result(settings={"online.start": "900"})
    run.metrics.update({"policy/updates_per_second": 1.0, "online/updates_per_second": 1.0, ONLINE_STEPS: 1900})
    online = [(step, 2.0) for step in (101, 102, 1100)] if evaluated else []
    known = {
        "eval/score_mean": logged((50, 1.0), (100, 1.0), *online),
        "policy/updates_per_second": logged((100, 9.0)),
        ONLINE_STEPS: logged((1100, 1900)),
    }
    made = document(run, history=lambda number, metric: known.get(metric, []))
    if not evaluated:
        assert "learning_curves_steps" not in [each.name for each in made.pictures()]
        return
    (panel,) = picture(made, "learning_curves_steps").chart.panels
    assert [x for x, _ in points(panel)["gmpo-gvp"]] == [0, 901, 902, 1900]


def test_the_chart_of_solver_steps_shows_the_mean_over_seeds():
    runs = [result(seed=seed) for seed in (0, 1)]
    for run in runs:
        run.metrics["steps/ms_per_action"] = 1.0
    known = {"steps/score_mean": [(1, 10.0), (5, 20.0)], "steps/ms_per_action": [(1, 0.5), (5, 2.0)]}

    def history(number, metric):
        more = 10 if number == runs[1].number else 0
        return logged(*((step, value + more) for step, value in known.get(metric, [])))

    steps, time = picture(document(*runs, history=history), "steps_hopper-medium-v2").chart.panels
    assert points(steps) == {"gmpo-gvp": [[1, 15.0], [5, 25.0]]}
    assert points(time) == {"gmpo-gvp": [[5.5, 15.0], [7.0, 25.0]]}


def test_bars_show_each_aggregate_with_its_interval():
    runs = [
        result(algo, seed=seed, score=score + seed) for algo, score in (("bc", 10), ("gmpo", 40)) for seed in range(3)
    ]
    chart = picture(document(*runs), "aggregates").chart
    assert [panel.xlabel for panel in chart.panels] == ["IQM", "mean", "median", "optimality gap"]
    bars = {series.name: (series.x, series.low, series.high) for series in chart.panels[1].series}
    assert bars["gmpo-gvp"] == ([41.0], [40.0], [42.0])
    assert [label for _, label in chart.panels[1].yticks] == ["bc-gvp", "gmpo-gvp"]


EVERY = Chart(
    [
        Panel(
            "a task with <signs> & more",
            "x",
            "y",
            [
                Series("line", [1, 2, 4], [1.0, math.nan, 3.0], [0.5, 1, 2], [1.5, 3, 4]),
                Series("line", [1, 4], [1.0, 2.0], runs=[Mark(3, "the run <3>")], thin=True),
                Series("dots", [1, 2], [2.0, 3.0], style="points", runs=[Mark(0, "first"), Mark(1, "second")]),
                Series("star", [2], [1.0], style="stars", runs=[Mark(1, "second")]),
                Series("stairs", [1, 2, 4], [0.0, 0.5, 1.0], [0, 0.2, 0.8], [0.1, 0.9, 1], style="steps"),
            ],
            log=True,
            borders=[2],
        ),
        Panel("", "bars", "", [Series("line", [5.0], [0.0], [4.0], [6.5], "bars")], yticks=[(0.0, "a long name" * 9)]),
    ],
    ["line", "dots", "star", "stairs"],
)


def test_the_page_draws_every_kind_of_series_within_its_panel():
    drawn = svg.draw(EVERY)
    root = ElementTree.fromstring(f"<div>{drawn}</div>")  # is well formed
    panels = [each for each in root.iter("svg") if each.get("class") == "panel"]
    for panel in panels:
        width, height = (float(panel.get(side)) for side in ("width", "height"))
        assert width < 390  # of a phone
        for way in (each.get("d") for each in panel.iter("path")):
            for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", way):
                assert 0 <= float(x) <= width
                assert 0 <= float(y) <= height
    titles = [each.text for each in root.iter("title")]
    assert {"the run <3>", "first", "second", "line: 5 [4, 6.5]"} <= set(titles)
    assert re.findall(r'data-run="(\d+)"', drawn) == ["3", "0", "1", "1"]  # the thin line lies below
    assert [each.text or each[0].tail for each in root.iter("li")] == ["line", "dots", "star", "stairs"]
    assert "nan" not in drawn


def test_the_files_draw_every_kind_of_series():
    figure = figures.draw(EVERY)
    left, right = figure.axes
    line, thin, stairs = left.lines[0], left.lines[1], left.lines[2]
    assert np.allclose(line.get_xydata(), [[1, 1], [2, math.nan], [4, 3]], equal_nan=True)
    assert thin.get_alpha() < 1
    assert stairs.get_drawstyle() == "steps-post"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["line", "dots", "star", "stairs"]
    assert [bar.get_width() for bar in right.patches] == [5]


def test_the_runs_of_a_method_are_few_artists_however_many_they_are():
    many = [Series("a", [0, 1], [i, i], runs=[Mark(i, "")], thin=True) for i in range(300)]
    figure = figures.draw(Chart([Panel("", "x", "y", many)], ["a"]))
    assert len(figure.axes[0].lines) == 1


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 87), (0.001, 0.0012), (1e5, 3e6), (-1e-9, 1e-9)])
def test_ticks_are_round_numbers_within(low, high):
    found = svg.ticks(low, high)
    assert 2 <= len(found) <= 6
    assert all(low - 1e-12 <= value <= high + 1e-12 for value, _ in found)
    assert len({label for _, label in found}) == len(found)
    assert all(float(label) == pytest.approx(value) for value, label in found)


def test_a_picture_is_two_files():
    files = Picture("a", "A", EVERY).files()
    assert files["png"].startswith(b"\x89PNG")
    assert files["pdf"].startswith(b"%PDF")
