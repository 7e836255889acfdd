"""What a user sees in a browser: MLflow's pages of a sweep, and the report's page, wide and on a phone.

Not part of `make test`: `make test-browser` installs Debian's Chromium if there is none.
"""

import json
import shlex
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from command_line import genpolicy, jobs
from matplotlib.image import imsave
from mlflow_server import Server
from playwright.sync_api import Page, expect, sync_playwright
from tiny import opened

from genpolicy.runs import records
from genpolicy.runs.run import find_runs
from genpolicy.tracking import sync, trackers

PATIENCE = 60_000  # milliseconds, for a page of MLflow's on a busy machine


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """Two methods on three seeds, with learning curves and a picture, shipped as one sweep."""
    outputs = tmp_path_factory.mktemp("outputs")
    for beta in (1.0, 4.0):
        for seed in range(3):
            run = opened(outputs, f"algo.beta={beta}", f"seed={seed}", "tracking.uri=null", sweep="beta=1,4 (0123abcd)")
            score = 10 * beta + seed
            events = [
                {"time": 10**12 + i, "step": 100 * i, "metrics": {"eval/score_mean": score * i, "eval/log_prob": -i}}
                for i in range(1, 5)
            ]
            events.append({"time": 10**12 + 9, "step": 400, "metrics": {"final/score_mean": 4 * score}})
            with run.recorded(device="cpu"):
                run.path("journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
                run.path("figures").mkdir()
                imsave(run.path("figures/samples.png"), np.random.default_rng(0).random((40, 60)))
            run.close()
    assert sync.sync_all(outputs, None, {}).failures == []
    return outputs


@pytest.fixture(scope="module")
def address(outputs):
    """Of an MLflow server on the store of these runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = Server(free.getsockname()[1], outputs)
    server.start()
    server.wait()
    yield server.uri
    server.stop()


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium")
    assert chromium, "no chromium here: run this by `make test-browser`"
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-quic"])


@pytest.fixture
def page(browser) -> Page:
    page = browser.new_page(viewport={"width": 1600, "height": 1200})
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    return page


def shipped(outputs: Path) -> list[dict]:
    """What MLflow's store calls each run: its ids."""
    uri = trackers.store_uri(None, outputs)
    return [records.read(directory / "tracking.json", records.TRACKING)[uri] for directory in find_runs(outputs)]


def test_the_dashboard_shows_the_sweep_and_its_curves(page, outputs, address):
    experiment = shipped(outputs)[0]["experiment"]
    page.goto(trackers.dashboard(address, outputs, experiment))
    expect(page.get_by_text("sweep beta=1,4")).to_be_visible()
    page.locator(".ag-row").first.get_by_role("button").first.click()  # opens the sweep
    for seed in range(3):
        expect(page.get_by_text(f"gmpo-gvp swiss-roll s{seed}")).to_have_count(2)
    page.goto(f"{page.url}&compareRunsMode=CHART")
    chart = page.locator("[data-testid='experiment-view-compare-runs-card']", has_text="eval/score_mean")
    chart.scroll_into_view_if_needed()
    expect(chart.locator(".js-line").nth(5)).to_be_visible()
    ways = chart.locator(".js-line").evaluate_all("lines => lines.map(line => line.getAttribute('d'))")
    assert len(set(ways)) == 6  # each run's curve, some drawn twice


def test_the_parent_describes_the_sweep(page, outputs, address):
    experiment = shipped(outputs)[0]["experiment"]
    page.goto(trackers.dashboard(address, outputs, experiment))
    page.get_by_text("sweep beta=1,4").click()
    expect(page.get_by_text("6 runs: 6 finished")).to_be_visible()
    expect(page.get_by_role("cell", name="164.0 ± 4.0")).to_be_visible()


def test_two_runs_compared(page, outputs, address):
    known = shipped(outputs)
    runs = json.dumps([known[0]["run"], known[3]["run"]])
    page.goto(f"{address}/#/compare-runs?runs={runs}&experiments={json.dumps([known[0]['experiment']])}")
    for text in ("algo.beta", "final/score_mean"):
        expect(page.get_by_text(text, exact=True).first).to_be_visible()


def test_a_figure_is_displayed(page, outputs, address):
    known = shipped(outputs)[0]
    page.goto(f"{address}/#/experiments/{known['experiment']}/runs/{known['run']}/artifacts/figures/samples.png")
    image = page.locator("img[src*='samples.png'], .image-outer-container img, img[src^='blob:']").first
    expect(image).to_be_visible()
    assert image.evaluate("image => image.naturalWidth") == 60


@pytest.fixture(scope="module")
def report(outputs) -> str:
    """The address of the report's page."""
    assert genpolicy("mode=report", f"paths.outputs={outputs}").code == 0
    return (outputs / "default" / "report" / "report.html").as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_reports_page(browser, report, width, scheme):
    """It needs no network, obeys its own security policy, shows every chart, and is no wider than a phone."""
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(report)
    assert asked == [report]
    assert said == []
    expect(page.get_by_text("The 95 % interval of the difference excludes 0.")).to_be_visible()
    expect(page.get_by_role("heading", name="Last checkpoint")).to_be_visible()
    expect(page.get_by_role("cell", name="164.0 ± 4.0").first).to_be_visible()
    charts = page.locator("svg.panel:visible")
    assert charts.count() >= 6
    for chart in charts.all():
        box = chart.bounding_box()
        assert box["width"] > 300
        assert box["x"] + box["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(", "))) < 200) == (scheme == "dark")
    page.close()


def test_a_click_on_a_run_copies_the_command_that_makes_it(browser, report, outputs):
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(report)
    row = page.locator("tr[data-command]").nth(4)
    run = page.locator(".choice section").first.locator("[data-run='4']").first
    assert run.locator("title").text_content() == "gmpo-gvp algo.beta=4.0, swiss-roll, seed 1"
    run.dispatch_event("click")
    expect(page.get_by_role("status")).to_contain_text("Copied: genpolicy env=swiss-roll")
    command = page.evaluate("navigator.clipboard.readText()")
    assert command == row.get_attribute("data-command")
    ((job, _),) = jobs(*shlex.split(command)[1:], f"paths.outputs={outputs}")
    assert (job.directories[0] / "config.yaml").exists()
    assert job.config.seed == 1
    context.close()


def test_without_scripts_the_curves_are_chosen_and_the_commands_are_read(browser, report):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report)
    shown = page.locator(".choice section:visible")
    expect(shown).to_have_count(1)
    expect(shown.get_by_text("share of the phase")).to_be_visible()
    page.get_by_text("by time").click()
    expect(shown).to_have_count(1)
    expect(shown.get_by_text("wall-clock time")).to_be_visible()
    command = page.locator("tr[data-command] code").first
    expect(command).to_be_hidden()
    page.locator("tr[data-command] summary").first.click()
    expect(command).to_be_visible()
    expect(command).to_contain_text("genpolicy env=swiss-roll")
    context.close()
