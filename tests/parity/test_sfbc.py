"""SfBC beside its authors' code: behaviour model, two rounds of planning and regression, and what acts."""

from unittest import mock

import pytest
import torch
from parity import made, put
from parity_thu import RESIDUAL, frequencies, residual
from parity_torch import assert_moved, choosing, doubles, ensemble
from torch import Tensor

from genpolicy.dataset.transitions import Transitions
from genpolicy.select.selection import Softmax

WORDS = ("algo=sfbc", "critic.hidden=[12,12]", "algo.num_actions=4", *RESIDUAL)


def critic(arrays, prefix):
    return ensemble(arrays, [f"{prefix}/q/sort"], [0, 2, 4], "critic.q_network")


def begun():
    """The algorithm as the reference began, the values of its parameters, and the fixture's arrays."""
    about, arrays = doubles("sfbc")
    assert {name: about["settings"][name] for name in ("alpha", "K", "lr", "critic_lr")} == {
        "alpha": 20.0,
        "K": 2,
        "lr": 1e-4,
        "critic_lr": 1e-3,
    }
    algorithm = made(*WORDS)
    start = residual(arrays, "0") | critic(arrays, "0")
    put(algorithm, start)
    algorithm.critic.initial.load_state_dict(algorithm.critic.q_network.state_dict())
    frequencies(algorithm.behaviour.network, arrays["0/behaviour/embed.0.W"])
    return algorithm, start, arrays


def transitions(arrays: dict[str, Tensor]) -> Transitions:
    """Their data: an episode goes on where the next observation is the next row's."""
    observation, ends = arrays["data/observations"], arrays["data/terminals"] | arrays["data/timeouts"]
    following = observation.roll(-1, 0) + 10 * ends.double()[:, None]
    following[-1] += 10
    columns = {"observation": observation, "action": arrays["data/actions"], "reward": arrays["data/rewards"][:, None]}
    columns |= {"next_observation": following, "terminated": arrays["data/terminals"].double()[:, None]}
    shapes = {name: column.shape[1:] for name, column in columns.items()}
    shapes |= {"reward": torch.Size([]), "terminated": torch.Size([])}
    return Transitions(torch.cat(list(columns.values()), 1), shapes)


def test_two_rounds_of_planning_and_regression():
    algorithm, start, arrays = begun()
    data = transitions(arrays)
    algorithm.behaviour.sample = mock.Mock(return_value=arrays["data/behaviour_action"])
    for number, phase in enumerate(algorithm.phases[1:]):
        if phase.start is not None:
            phase.start()
        source = phase.prepare(data)
        mean, std = algorithm.critic.moments[1]
        torch.testing.assert_close(source["planned"] * std + mean, arrays[f"returns/{number}"][:, 0])
        [update] = phase.updates.values()
        for step, index in enumerate(arrays["index"][number].long(), 1):
            update.step(source.rows(index), {})
            if step in (1, 10):
                assert_moved(algorithm, start, critic(arrays, f"round{number}/{step}"))
    torch.testing.assert_close(source["planned"], arrays["targets/1"])


def test_ten_updates_of_the_behaviour_model():
    algorithm, start, arrays = begun()
    [update] = algorithm.phases[0].updates.values()
    for step, index in enumerate(arrays["index"][0].long()):
        t = (1 - 1e-5) * arrays["draw/behaviour_t"][step] + 1e-5
        update.step(transitions(arrays).rows(index), {"t": t, "noise": arrays["draw/behaviour_noise"][step]})
        if step in (0, 9):
            assert_moved(algorithm, start, residual(arrays, str(step + 1)))


@pytest.mark.parametrize(("name", "beta", "count"), [("1", 100, 1), ("4", 100, 4), ("limited", 10000, 2)])
def test_the_chances_of_the_candidates(name, beta, count):
    """limited: the best is so far ahead that the second would have no chance."""
    algorithm, _, arrays = begun()
    assert isinstance(algorithm.selection, Softmax)
    assert algorithm.selection.beta == 100
    algorithm.selection.beta, algorithm.selection.num_averaged = beta, count
    action = arrays["data/behaviour_action"][:1]
    with choosing(*range(count)) as chosen:
        found = algorithm.selection.choose(algorithm.critic, arrays["data/observations"][:1], action)
    torch.testing.assert_close(chosen[0][0], arrays[f"select/{name}"], rtol=1e-5, atol=0.0)
    torch.testing.assert_close(found, action[:, :count].mean(1))


def test_candidates():
    """Theirs are x at the last time, of which the data are 1 / alpha, and start from 1 / sigma of our noise."""
    algorithm, _, arrays = begun()
    observation, noise = arrays["data/observations"][:16], arrays["draw/sample"]
    with torch.no_grad():
        action = algorithm.policy.sample(observation, noise=noise)
    torch.testing.assert_close(action, arrays["sample/actions"], rtol=2e-4, atol=1e-5)
