"""AWR's iterations in a run."""

import pytest
import torch
from tiny import same, whole_and_resumed

from genpolicy.algo.awr import td_returns
from genpolicy.runs import checkpoint

RUN = ["algo=awr", "tuned=none", "env=multi-goal", "dataset.episodes=10", "algo.steps=20", "algo.iteration=6"]
RUN += ["algo.batch_size=16", "eval.per_phase=1", "eval.episodes=2", "eval.final_episodes=3", "tracking.uri=none"]
RUN += ["eval.log_prob_actions=10", "checkpoint_seconds=1000"]


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("calls", [7, 10])  # of updates: before and after a new iteration
def test_a_run_that_is_stopped_within_an_iteration_resumes_to_the_bit(calls, tmp_path, monkeypatch):
    runs = whole_and_resumed(tmp_path, RUN, calls)
    saved = [checkpoint.load(run / "last.pt") for run in runs]
    assert same(saved[0]["algorithm"], saved[1]["algorithm"])


@pytest.mark.parametrize("td_lambda", [0.0, 0.5, 1.0])
def test_returns_are_those_of_the_recursion(td_lambda):
    draw = torch.Generator().manual_seed(0)
    reward, value_next = (torch.randn(50, generator=draw, dtype=torch.float64) for _ in range(2))
    followed = torch.rand(50, generator=draw) > 0.1
    followed[-1] = False
    expected = torch.zeros(50, dtype=torch.float64)
    for i in reversed(range(50)):
        ahead = value_next[i]
        if followed[i]:
            ahead = (1 - td_lambda) * ahead + td_lambda * expected[i + 1]
        expected[i] = reward[i] + 0.9 * ahead
    torch.testing.assert_close(td_returns(reward, value_next, followed, 0.9, td_lambda), expected)
