"""Choosing among candidates by the critic."""

import json
from pathlib import Path

import pytest
import torch
from command_line import genpolicy
from tiny import only_run, undrawn, words
from torch import nn

from genpolicy.select.selection import Expectile, Greedy, Softmax

OBSERVATION = torch.arange(3.0)[:, None]
ACTION = torch.tensor([[0.1, 0.5, 0.9]]).expand(3, 3)[..., None]  # [B, K, A]


class Known(nn.Module):
    """Q = s a, V = .5 s."""

    expectile = 0.8

    def q_min(self, observation, action):
        return (observation * action)[:, 0]

    def q_target_min(self, observation, action):
        return -self.q_min(observation, action)

    def v(self, observation):
        return 0.5 * observation[:, 0]


def shares(selection, times=20_000) -> torch.Tensor:
    """How often each candidate is chosen, [B, K]."""
    generator = torch.Generator().manual_seed(0)
    observation, action = OBSERVATION.repeat(times, 1), ACTION.repeat(times, 1, 1)
    chosen = selection.choose(Known(), observation, action, generator)
    return (chosen[:, None] == action).all(-1).double().unflatten(0, (times, 3)).mean(0)


def test_greedy_takes_the_best():
    torch.testing.assert_close(shares(Greedy(num_candidates=3))[1:, 2], torch.ones(2).double())


def test_the_target_q_functions_can_judge():
    torch.testing.assert_close(shares(Greedy(num_candidates=3, target=True))[1:, 0], torch.ones(2).double())


def test_softmax_takes_by_the_exponential_of_q():
    expected = torch.softmax(2.0 * OBSERVATION * ACTION[..., 0], -1).double()
    torch.testing.assert_close(shares(Softmax(num_candidates=3, beta=2.0)), expected, atol=0.015, rtol=0)


def test_expectile_takes_by_the_side_of_v():
    # V is not below Q = V: at s = 0 all are alike, else .1 counts .2 and the others .8
    expected = torch.tensor([[1 / 3] * 3, [1 / 9, 4 / 9, 4 / 9], [1 / 9, 4 / 9, 4 / 9]]).double()
    torch.testing.assert_close(shares(Expectile(num_candidates=3)), expected, atol=0.015, rtol=0)


@pytest.mark.parametrize(
    "selection", [Softmax(num_candidates=3, beta=2.0), Softmax(num_candidates=3, num_averaged=2), Expectile()]
)
def test_the_draw_is_torch_s_of_the_same_generator(selection):
    action = torch.rand(200, 3, 1, generator=torch.Generator().manual_seed(1))
    observation = torch.linspace(-2, 2, 200)[:, None]
    chances, count = selection.chances(Known(), observation, action), selection.num_averaged
    index = torch.multinomial(chances, count, generator=torch.Generator().manual_seed(2))
    expected = action.gather(1, index[..., None]).mean(1)
    generator = torch.Generator().manual_seed(2)
    assert torch.equal(selection.choose(Known(), observation, action, generator), expected)
    noise = selection.draw_noise((200, 3), generator.manual_seed(2), action)
    assert torch.equal(selection.choose(Known(), observation, action, noise=noise), expected)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    outputs = tmp_path_factory.mktemp("select")
    with undrawn():
        assert genpolicy(*words(outputs)).code == 0
    return only_run(outputs)


def test_a_run_is_evaluated_again_with_another_selection(directory):
    common = ["mode=eval", "tracking.uri=none", f"checkpoint={directory}", f"paths.data={directory}"]
    common += ["eval.final_episodes=64", "eval.log_prob_actions=20"]
    found = []
    for more in ((), ("select=greedy", "select.num_candidates=16")):
        result = genpolicy(*common, *more)
        assert result.code == 0, result.err
        path = next(line for line in result.out.splitlines() if line.endswith(".json"))
        found.append(json.loads(Path(path).read_text())["metrics"])
    plain, chosen = found
    assert chosen["return_mean"] != plain["return_mean"]
    assert chosen["log_prob"] == plain["log_prob"]  # of the policy that the candidates come from


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("select=best", "select=best: no such option"),
        ("select.num_candidates=1", "no such setting"),
        ("select=greedy select.num_candidates=0", "0 must be >= 1"),
        ("critic=iql", "critic=iql: mode=eval takes no such setting"),
    ],
)
def test_a_wrong_selection_is_one_line(directory, word, reason):
    result = genpolicy("mode=eval", "tracking.uri=none", f"checkpoint={directory}", *word.split())
    assert result.code == 1
    assert reason in result.err
    assert result.err.count("\n") == 1
