"""The units that algorithms compute in, and that those of the data make no difference to what is learned."""

import math

import numpy as np
import pytest
import torch
from command_line import jobs
from small import begun, shrink

from genpolicy.algo.actor import Actor
from genpolicy.algo.algorithm import assemble
from genpolicy.dataset.scaling import Scaling, moments
from genpolicy.dataset.transitions import Transitions
from genpolicy.export.parity import action_range
from genpolicy.select.selection import NoSelection

UNITS = {  # observation: factor and shift; action: the same
    "as they are": ((1.0, 0.0), (1.0, 0.0)),
    "small actions": ((1.0, 0.0), (1e-3, 0.0)),
    "large actions far away": ((1.0, 0.0), (0.5, 300.0)),
    "observations far away": ((1.0, 1000.0), (1.0, 0.0)),
    "small observations": ((1e-4, 0.0), (1.0, 0.0)),
}


def transitions(units: str = "as they are", size: int = 64, reach: float = 1.0) -> Transitions:
    draw = np.random.default_rng(0)
    (a, b), (c, d) = UNITS[units]
    observation, following = draw.standard_normal((2, size, 2))
    action = reach * draw.uniform(-1, 1, (size, 2))
    columns = {"observation": a * observation + b, "action": c * action + d}
    columns |= {"reward": -(action**2).sum(-1), "next_observation": a * following + b}
    return Transitions.of(columns | {"terminated": draw.uniform(size=size) < 0.2})


def bounds(units: str) -> tuple[torch.Tensor, torch.Tensor]:
    _, (c, d) = UNITS[units]
    return torch.full((2,), d - c), torch.full((2,), d + c)


@pytest.mark.parametrize("words", ["algo=iql", "algo=qc chunk.length=2"])
def test_what_acts_is_all_on_the_device(words):
    """Of which 'meta' knows the shapes alone."""
    [(job, _)] = jobs("env=multi-goal", *words.split())
    ends = torch.ones(2)
    actor = assemble(job.config, 2, -ends, ends).to("meta").actor()
    assert {tensor.device.type for tensor in (*actor.parameters(), *actor.buffers(), *actor.scaling.bounds)} == {"meta"}
    noise, choice = (None if draw is None else draw.to("meta") for draw in (actor.draw_noise(3), actor.draw_choice(3)))
    assert actor.act(torch.zeros(3, 2, device="meta"), noise=noise, choice=choice).device.type == "meta"


def test_moments_are_numpy_s_in_float64():
    data = np.random.default_rng(0).normal([0, 1000, -3e4], [1, 0.5, 1e-3], (200_000, 3)).astype(np.float32)
    mean, std = moments(torch.from_numpy(data))
    np.testing.assert_allclose(mean, data.mean(0, dtype=np.float64), rtol=1e-7)
    np.testing.assert_allclose(std, data.std(0, dtype=np.float64), rtol=1e-6)


def test_an_end_beside_an_infinite_one_is_no_bound_in_other_units():
    low, high, infinite = torch.tensor([0.0, -2.0]), torch.tensor([torch.inf, 4.0]), torch.inf
    for action, expected in {
        "none": ([0.0, -2.0], [infinite, 4.0]),
        "space": ([-infinite, -1.0], [infinite, 1.0]),
        "data": ([-1.0, -1.0], [1.0, 1.0]),
    }.items():
        found = Scaling(0, low, high, action=action).bounds
        assert [end.tolist() for end in found] == list(expected)


def test_data_become_standard_and_the_digest_stays():
    data, raw = transitions("observations far away"), transitions("observations far away")
    scaling = Scaling(2, *bounds("as they are"), observation="standardize", action="space")
    scaling.fit(data)
    scaled = scaling.scale(data)
    torch.testing.assert_close(scaled.observation.mean(0), torch.zeros(2), rtol=0, atol=1e-4)
    torch.testing.assert_close(scaled.observation.std(0, correction=0), torch.ones(2), rtol=1e-4, atol=0)
    torch.testing.assert_close(scaling.unscale_observation(scaled.next_observation), raw.next_observation)
    assert torch.equal(scaled.action, raw.action)  # they are in [-1, 1] already
    assert scaled.digest() == raw.digest()
    assert torch.equal(scaled.reward, raw.reward)


def test_a_constant_observation_is_left_at_its_scale():
    columns = {name: np.full((10, 1), 7.0) for name in ("observation", "next_observation", "action")}
    data = Transitions.of(columns | {"reward": np.zeros(10), "terminated": np.zeros(10)})
    scaling = Scaling(1, -torch.ones(1), torch.ones(1), observation="standardize", action="data")
    scaling.fit(data)
    assert (scaling.mean.item(), scaling.std.item(), scaling.centre.item(), scaling.reach.item()) == (7, 1, 7, 1)


def test_epsilon_is_added_to_the_std():
    """As in TD3+BC's code."""
    data = transitions()
    scaling = Scaling(2, *bounds("as they are"), observation="standardize", epsilon=1e-3)
    scaling.fit(data)
    torch.testing.assert_close(scaling.std, data.observation.std(0, correction=0) + 1e-3)


def test_what_becomes_minus_one_to_one():
    low, high = torch.tensor([-2.0, -torch.inf]), torch.tensor([4.0, torch.inf])
    data = transitions(reach=0.25)
    ends = data.action.amin(0), data.action.amax(0)
    for how, (centre, reach, inside) in {
        "none": ([0.0, 0.0], [1.0, 1.0], [4.0, math.inf]),
        "space": ([1.0, None], [3.0, None], [1.0, math.inf]),
        "data": ([None, None], [None, None], [1.0, 1.0]),
    }.items():
        scaling = Scaling(2, low, high, action=how)
        scaling.fit(data)
        for dimension in range(2):
            half = ((ends[1] - ends[0]) / 2)[dimension].item(), ((ends[1] + ends[0]) / 2)[dimension].item()
            wanted = reach[dimension] or half[0], half[1] if centre[dimension] is None else centre[dimension]
            assert (scaling.reach[dimension].item(), scaling.centre[dimension].item()) == pytest.approx(wanted)
        assert scaling.bounds[1].tolist() == inside
        torch.testing.assert_close(scaling.unscale_action(scaling.scale_action(data.action)), data.action)
        assert scaling.log_volume().item() == pytest.approx(scaling.reach.log().sum().item())


def test_a_part_of_an_action_that_is_fixed_stays_what_it_is():
    """An action space may be a point there: no range to divide by."""
    low, high = torch.tensor([-2.0, 0.5]), torch.tensor([4.0, 0.5])
    scaling = Scaling(2, low, high, action="space")
    action = torch.tensor([[-2.0, 0.5], [4.0, 0.5]])
    assert scaling.scale_action(action).tolist() == [[-1, 0], [1, 0]]
    assert torch.equal(scaling.unscale_action(torch.tensor([[-1.0, 0.7], [1.0, -3.0]])), action)
    assert scaling.log_volume().item() == pytest.approx(math.log(3))
    actor = Actor(None, None, NoSelection(), scaling)
    assert action_range(actor).tolist() == [6, 2]


def trained(algo: str, units: str):
    """An algorithm after a few updates of each phase, and what it knows: sample actions and log-densities."""
    [(job, _)] = jobs(f"algo={algo}", "tuned=none", "network=mlp", "env=multi-goal")
    shrink(job.config)
    torch.manual_seed(0)
    algorithm = assemble(job.config, 2, *bounds(units))
    algorithm.scaling.fit(data := transitions(units))
    data, generator = algorithm.scaling.scale(data), torch.Generator().manual_seed(0)
    for phase in algorithm.phases:
        source = begun(phase, data)
        for step in range(4):
            phase.update(source.sample(16, generator), generator, step)
    return algorithm


@pytest.mark.parametrize("algo", ["bc", "gmpo", "gmpg", "iql", "td3_bc", "fql", "gtp"])
def test_units_make_no_difference(algo):
    """Actions are those of the same data in other units, and densities differ by the size of the unit."""
    found = {}
    for units, ((a, b), (c, d)) in UNITS.items():
        algorithm = trained(algo, units)
        observation = a * torch.tensor([[0.0, 0.5], [-1.0, 1.0], [2.0, 0.0]]) + b
        action = (algorithm.act(observation, torch.Generator().manual_seed(1)) - d) / c
        log_prob = None
        if algorithm.policy.has_density:
            given = c * torch.tensor([[0.1, -0.2], [0.0, 0.0], [0.3, 0.1]]) + d
            log_prob = algorithm.log_prob(observation, given) + 2 * math.log(c)
        found[units] = action, log_prob
    action, log_prob = found.pop("as they are")
    for units, (other, density) in found.items():
        torch.testing.assert_close(other, action, rtol=0, atol=0.01, msg=lambda m, u=units: f"{u}: {m}")
        if log_prob is not None:
            torch.testing.assert_close(density, log_prob, rtol=0, atol=0.02, msg=lambda m, u=units: f"{u}: {m}")


def test_densities_differ_by_exactly_the_log_of_the_scale():
    algorithm = trained("bc", "as they are")
    observation, action = torch.randn(5, 2), torch.rand(5, 2)
    before = algorithm.log_prob(observation, action)
    algorithm.scaling.reach.copy_(torch.tensor([0.5, 4.0]))
    algorithm.scaling.centre.copy_(torch.tensor([10.0, -3.0]))
    after = algorithm.log_prob(observation, torch.tensor([10.0, -3.0]) + torch.tensor([0.5, 4.0]) * action)
    torch.testing.assert_close(after, before - math.log(2.0), rtol=1e-4, atol=1e-4)


def test_weights_of_before_are_of_unscaled_data():
    algorithm = trained("bc", "observations far away")
    state = {name: value for name, value in algorithm.actor().state_dict().items() if not name.startswith("scaling")}
    fresh = Scaling(2, *bounds("as they are"))
    fresh.load_state_dict({})
    assert torch.equal(fresh.mean, torch.zeros(2))
    assert torch.equal(fresh.reach, torch.ones(2))
    algorithm.actor().load_state_dict(state)  # not refused for what it lacks
