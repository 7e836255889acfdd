"""What a person sees: lines where there is no terminal, bars where there is one, and the table at the end."""

import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from genpolicy.dataset.transitions import Behaviour
from genpolicy.evaluation.table import behaviour_metrics, print_table
from genpolicy.system import progress
from genpolicy.system.forecast import shown_left, time_left
from genpolicy.system.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def shown(terminal: bool, clock, width: int = 120) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=width)
    with Progress(console) as display:
        display.begin("critic", steps=1000, done=200)
        for step in range(201, 601):
            clock.seconds += 0.125
            display.metrics({"loss": 0.12345, "q": float(step)})
            display.advance(step)
        clock.seconds += 1000.0  # an evaluation
        display.pause()
        for step in range(601, 1001):
            clock.seconds += 0.125
            display.advance(step)
    return out.getvalue()


def test_lines_every_ten_seconds_with_rate_and_time_left(clock):
    lines = shown(False, clock).splitlines()
    assert lines[0] == "critic 280/1,000  8/s  0:01:30 left  loss 0.123  q 280"
    assert lines[2].startswith("critic 440/1,000  8/s  0:01:10 left")
    assert lines[-1] == "critic 1,000/1,000  8/s  0:00:00 left  loss 0.123  q 600"
    assert all("  8/s  " in line for line in lines)  # the evaluation does not count
    assert 9 <= len(lines) <= 12


def test_a_bar_on_a_terminal(clock):
    text = shown(True, clock)
    assert "critic" in text
    assert "1000/1000" in text
    assert "8/s" in text
    assert "━" in text


def evaluated(terminal: bool, clock, seconds: float) -> str:
    """What is shown of a phase with an evaluation of 100 steps, of so many seconds each."""
    out = io.StringIO()
    with Progress(Console(file=out, force_terminal=terminal, width=100)) as display:
        display.begin("critic", steps=10, done=0)
        with display.work("5 episodes, steps", 100) as advance:
            for step in range(81):
                advance(step)
                clock.seconds += seconds
        display.pause()
        for step in range(1, 11):
            clock.seconds += 0.125
            display.advance(step)
    return out.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_work_beside_the_phases_is_shown_if_it_takes_long(clock, terminal):
    assert "episodes" not in evaluated(terminal, clock, seconds=0.001)
    text = evaluated(terminal, clock, seconds=0.5)
    if terminal:
        assert re.search(r"5 episodes, steps.*━.*/100", text)
        assert "episodes" not in text[text.rindex("critic") :]  # the bar goes with it
    else:
        lines = text.splitlines()
        assert lines[:4] == [f"5 episodes, steps {20 * n}/100  2/s  0:00:{50 - 10 * n} left" for n in (1, 2, 3, 4)]
        assert lines[-1] == "critic 10/10  8/s  0:00:00 left"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_narrow_terminal_costs_metrics_and_nothing_else(clock, width):
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown(True, clock, width))
    (last, *_) = [line for line in reversed(re.split(r"[\r\n]+", text)) if "1000/1000" in line]
    assert re.match(r"critic +━{4,} 1000/1000 8/s  0:00:00 left", last), last
    assert len(last) <= width
    assert ("q 600" in last) == (width > 60)


def test_when_all_jobs_will_have_ended():
    assert time_left([], [], 5) is None
    assert time_left([10.0, 20.0], [], 4) == 60.0
    assert time_left([10.0], [], 0) == 0.0
    assert time_left([10.0], [4.0, 12.0], 0, at_once=2) == 6.0  # the second is overdue
    assert time_left([10.0], [4.0, 9.0, 1.0], 4, at_once=3) == 21.0  # they end after 1, 6, 9 and 11, 16, 19 and 21
    assert (shown_left(None), shown_left(0.2), shown_left(3725.0)) == ("", "", ", about 1:02:05 left")


TASK = SimpleNamespace(reference_min=10.0, score_scale=2.0, score=lambda returns: (returns - 10.0) * 2.0)


def test_the_data_s_own_returns():
    data = Behaviour(return_mean=30.0, return_std=5.0, episodes=7)
    expected = {"return_mean": 30.0, "return_std": 5.0, "episodes": 7.0, "score_mean": 40.0, "score_std": 10.0}
    assert behaviour_metrics(data, TASK) == expected
    unscored = behaviour_metrics(data, SimpleNamespace(reference_min=None))
    assert unscored == {"return_mean": 30.0, "return_std": 5.0, "episodes": 7.0}
    assert behaviour_metrics(Behaviour(), TASK) == {}


def test_the_table_fits_eighty_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    evaluated = {"return_mean": 12345.6, "return_std": 1234.5, "score_mean": -123.4, "score_std": 12.3}
    final = evaluated | {"log_prob": -12.3456, "bits_per_dim": 10.123}
    results = {"behaviour data": evaluated, "final_behaviour": final, "final": {"return_mean": 1.0, "return_std": 0.0}}
    results["other"] = results["final"] | {"episode_length": 5.0}
    print_table("gmpg-gvp hopper-medium-v2 s0", results)
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    rows = {line.split("  ")[1]: line.split() for line in text.splitlines() if "±" in line}
    assert rows["behaviour data"][-2:] == ["-", "-"]
    assert rows["BC (behaviour)"][2:] == ["12345.6", "±", "1234.5", "-123.4", "±", "12.3", "-12.346", "nats", "-"]
    assert rows["trained policy"][2:] == ["1.0", "±", "0.0", "-", "-", "-"]
    assert rows["other"][1:] == ["1.0", "±", "0.0", "-", "no", "density", "-"]
    assert "half the steps" not in text
    exact, coarse = final | {"log_prob_halved": -12.3457}, final | {"log_prob_halved": -12.4}
    print_table("solvers", {"final_behaviour": exact, "final": coarse})
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("trained policy: with half the steps of `likelihood` its log-likelihood changes by 0.054")
    print_table("the same", results | {"10 steps": final | {"ms_per_action": 1.2345}})
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    rows = {line.split("  ")[1]: line.split() for line in text.splitlines() if "±" in line}
    assert rows["10 steps"][2:] == ["12345.6", "±", "1234.5", "-123.4", "±", "12.3", "-12.346", "nats", "1.23", "ms"]
    assert rows["BC (behaviour)"][-1] == "-"
    print_table("data without returns", {"behaviour data": {}, "final": final})
    assert "behaviour data" not in capsys.readouterr().out
    print_table("no data", {"behaviour data": {}, "final": results["other"]}, recorded=False)
    assert "no density" not in capsys.readouterr().out


def test_the_table_with_held_out_actions_fits_eighty_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    evaluated = {"return_mean": 12345.6, "return_std": 1234.5, "score_mean": -123.4, "score_std": 12.3}
    final = evaluated | {"log_prob": -12.3456, "held_out_log_prob": -13.4567, "ms_per_action": 1.2345}
    results = {"behaviour data": evaluated, "final": final, "one step": evaluated | {"episode_length": 5.0}}
    print_table("gmpg-gvp hopper-medium-v2 s0", results)
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    rows = {line.strip().split("  ")[0]: line.split() for line in text.splitlines() if "±" in line}
    assert rows["trained policy"][-4:] == ["-12.346", "-13.457", "1.23", "ms"]
    assert rows["behaviour data"][-3:] == ["-", "-", "-"]
    assert rows["one step"][-4:] == ["no", "density", "-", "-"]
