"""The figures of two-dimensional policies: what is in them, read back from the files, and what is measured for them."""

import numpy as np
import pytest
import torch
from gaussian import PATHS, GaussianNetwork, make_policy
from matplotlib.image import imread
from scipy.stats import norm
from torch import nn

from genpolicy.algo.actor import Actor
from genpolicy.dataset.scaling import Scaling
from genpolicy.evaluation.figures import _Plane, draw_plane
from genpolicy.model.policy import Policy
from genpolicy.select.selection import Greedy, NoSelection
from genpolicy.solver.fixed import RK4
from genpolicy.system.signals import Interrupted

STD, BETA = 0.4, 5.0


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.ones(()))

    def q_min(self, observation, action):
        return self.slope * action[:, 0]


class Toy:
    """Data of N((-.5, 0), STD^2), valued by the first coordinate: its optimum is N((-.5 + BETA STD^2, 0), STD^2)."""

    mean, extent = np.array([-0.5, 0.0]), 2.5

    def __init__(self):
        self.action = self.mean + STD * np.random.default_rng(0).standard_normal((500, 2))
        self.value = self.value_at(self.action)

    def value_at(self, action):
        return action[..., 0]

    def exact(self, action):
        return norm.logpdf(action, self.mean, STD).sum(-1), action[:, 0]


def gaussian(x: float) -> Policy:
    """N((x, 0), STD^2) as a flow."""
    path = PATHS["gvp"]()
    network = GaussianNetwork(path, torch.tensor([x, 0.0]), STD**2 * torch.eye(2))
    network.register_parameter("unused", nn.Parameter(torch.zeros(())))
    return make_policy(path, network, solver=RK4(steps=4), likelihood=RK4(steps=4))


class Algorithm:
    def __init__(self, policy: float, behaviour: float | None = None, beta=BETA, selection=None):
        self.policy, self.behaviour = gaussian(policy), None if behaviour is None else gaussian(behaviour)
        self.inverse_temperature, self.selection = beta, selection or NoSelection()
        self.critic, self.action_low = Critic(), torch.zeros(2)

    def actor(self, policy):
        anywhere = torch.full((2,), torch.inf)
        return Actor(policy, None, NoSelection(), Scaling(0, -anywhere, anywhere))

    def q(self, observation, action):
        return self.critic.q_min(observation, action).detach()


def between(gap: float) -> float:
    """The total variation distance of two Gaussians of the same STD, so far apart."""
    return 2 * norm.cdf(gap / (2 * STD)) - 1


def drawn(algorithm, folder, **units: float) -> tuple[dict[str, float], np.ndarray]:
    """What is measured, and the brightness [height, width] of the density's figure without the white paper."""
    measured = draw_plane(algorithm, Toy(), Toy.extent, folder, **units)
    assert {path.name for path in folder.iterdir()} == {"samples.png", "trajectories.png", "density.png", "value.png"}
    density = imread(folder / "density.png")[..., :3].sum(-1)
    return measured, np.where(density > 2.99, 0, density)


@pytest.mark.slow
def test_the_figures_show_each_policy_where_it_is(tmp_path):
    measured, density = drawn(Algorithm(policy=0.3, behaviour=-0.5), tmp_path)
    assert measured["behaviour_total_variation"] == pytest.approx(0, abs=1e-3)
    assert measured["total_variation"] == pytest.approx(0, abs=1e-3)
    # Two rows of two panels, left of the colour bar, all light where there is mass: the lower ones, of the policy, have
    # it to the right of the upper ones' by .8 of 5 units, a panel being over a third of the figure wide.
    width = density.shape[1]
    upper, lower = (
        np.average(np.arange(part.shape[1]), weights=part.sum(0))
        for part in np.array_split(density[:, : int(0.84 * width)], 2)
    )
    assert 0.8 / 5 * 0.33 < (lower - upper) / width < 0.8 / 5 * 0.4


@pytest.mark.slow
def test_distances_are_those_of_gaussians(tmp_path):
    measured, _ = drawn(Algorithm(policy=0.1, behaviour=-0.9), tmp_path)
    assert measured["behaviour_total_variation"] == pytest.approx(between(0.4), abs=2e-3)
    assert measured["total_variation"] == pytest.approx(between(0.2), abs=2e-3)


def test_beta_is_in_the_units_of_the_rewards_that_were_learned_from(tmp_path):
    measured, _ = drawn(Algorithm(policy=0.3, beta=BETA / 4), tmp_path, scale=4.0, shift=-2.0)
    assert measured["total_variation"] == pytest.approx(0, abs=1e-3)


def plane() -> _Plane:
    return _Plane(Toy(), Toy.extent, scale=1.0, shift=0.0, check=lambda: None)


@pytest.mark.parametrize("beta", [5.0, 5e3, 1e6])
def test_an_optimum_is_a_density_at_any_temperature(beta):
    density = np.exp(plane()._optimum(beta))
    assert density.sum() * plane().cell == pytest.approx(1.0)


def test_what_has_no_density_is_measured_and_drawn_as_nothing(monkeypatch):
    """A uniform density on the right half of the grid, whose distance is that of the exact one's left half and more."""
    here = plane()
    values = np.where(here.grid[:, 0] > 0, -np.log(2 * Toy.extent**2), -np.inf)
    monkeypatch.setattr(_Plane, "_log_prob", lambda *_: values.astype(np.float32))
    figure, measured = here.density(Algorithm(policy=0.3, behaviour=-0.5))
    left = norm.cdf(0.5 / STD)
    assert left < measured["behaviour_total_variation"] < 1
    images = [image for axis in figure.axes[:4] for image in axis.images]
    assert len(images) == 4
    for image in images:
        assert np.isfinite(np.ma.filled(image.get_array(), np.nan)).all()


def test_densities_are_broken_off_by_a_signal(tmp_path):
    def check():
        raise Interrupted(15)

    with pytest.raises(Interrupted):
        draw_plane(Algorithm(policy=0.3), Toy(), Toy.extent, tmp_path, check=check)


def test_mass_outside_of_the_grid_counts(tmp_path):
    measured, _ = drawn(Algorithm(policy=10.0), tmp_path)
    assert measured == {"total_variation": pytest.approx(1.0, abs=1e-3)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "algorithm",
    [Algorithm(policy=0.3, beta=None), Algorithm(policy=0.3, selection=Greedy(num_candidates=4))],
    ids=["no optimum", "several candidates"],
)
def test_nothing_is_measured_without_an_optimum(algorithm, tmp_path):
    algorithm.act = algorithm.policy.act
    measured, _ = drawn(algorithm, tmp_path)
    assert measured == {}
