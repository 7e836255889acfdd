"""The Swiss-roll toy: scikit-learn's points, the paper's values, and a task of one step."""

import numpy as np
import pytest
from composed import nodes, task
from sklearn.datasets import make_swiss_roll

from genpolicy.config.schema import build
from genpolicy.env.swiss_roll import roll, swiss_roll
from genpolicy.evaluation.rollout import rollout, summary


@pytest.fixture(scope="module")
def transitions(tmp_path_factory):
    dataset = build(nodes("env=swiss-roll").dataset, directory=tmp_path_factory.mktemp("data"))
    return dataset.load(task("swiss-roll"))


@pytest.mark.parametrize("seed", [0, 7])
def test_points_are_scikit_learns(seed):
    points, place = swiss_roll(500, 0.6, np.random.RandomState(seed))
    theirs, their_place = make_swiss_roll(500, noise=0.6, random_state=seed)
    np.testing.assert_allclose(points, theirs, atol=1e-12)
    np.testing.assert_allclose(place, their_place, atol=1e-12)


def test_data_are_those_of_the_paper(transitions):
    points, place = make_swiss_roll(10_000, noise=0.6, random_state=0)
    flat = points[:, [0, 2]]
    flat = flat / np.abs(flat).max(axis=0)
    flat = (flat - flat.min()) / (flat.max() - flat.min()) * 4 - 2
    value = ((place - place.min()) / (place.max() - place.min()) - 0.5) * 5 - 1
    np.testing.assert_allclose(transitions.action, flat, atol=1e-6)
    np.testing.assert_allclose(transitions.reward, value, atol=1e-6)
    assert (transitions.size, transitions.observation_size, transitions.action_size) == (10_000, 0, 2)
    assert transitions.terminated.all()
    assert transitions.reward.min() == -3.5
    assert transitions.reward.max() == 1.5
    assert transitions.action.abs().max() <= 2


def test_an_action_is_worth_what_the_nearest_branch_is_worth():
    toy = roll()
    np.testing.assert_allclose(toy.value_at(toy.spiral[[0, 2000, 4095]]), toy.value_at(toy.spiral)[[0, 2000, 4095]])
    assert (np.diff(toy.value_at(toy.spiral)) >= 0).all()
    assert toy.value_at(toy.spiral[0]) == pytest.approx(-3.5, abs=0.01)
    assert toy.value_at(toy.spiral[-1]) == pytest.approx(1.5, abs=0.01)
    error = np.abs(toy.value_at(toy.action) - toy.value)
    assert np.median(error) < 0.1  # the noise moves a point along its branch a little
    rng = np.random.default_rng(0)
    for action in rng.uniform(-2, 2, size=(50, 2)):
        nearest = np.argmin(np.linalg.norm(toy.spiral - action, axis=1))
        assert toy.value_at(action) == pytest.approx(toy.value_at(toy.spiral[nearest]))


def test_episodes_are_single_actions():
    toy = task("swiss-roll")
    action = np.random.default_rng(0).uniform(-3, 3, size=(64, 2))

    def act(observation):
        assert observation.shape == (64, 0)
        return observation.new_tensor(action)

    result = rollout(toy, act, 64, seed=0)
    np.testing.assert_array_equal(result.lengths, 1)
    np.testing.assert_allclose(result.returns, roll().value_at(np.clip(action.astype(np.float32), -2, 2)))
    assert set(summary(result, toy)) == {
        "return_mean",
        "return_std",
        "return_min",
        "return_max",
        "episode_length",
    }


def test_the_exact_density_is_that_of_many_points():
    middles = 2.5 * (2 * (np.arange(160) + 0.5) / 160 - 1)
    log_p, q = roll().exact(np.stack(np.meshgrid(middles, middles, indexing="ij"), -1).reshape(-1, 2))
    share = np.exp(log_p) * (5 / 160) ** 2
    assert share.sum() == pytest.approx(1, abs=1e-6)
    assert share @ q == pytest.approx(-1, abs=1e-3)  # the middle of the values

    # scikit-learn's points, scaled as those of the data are.
    known, known_place = make_swiss_roll(10_000, noise=0.6, random_state=0)
    many, place = make_swiss_roll(10**6, noise=0.6, random_state=3)
    scaled = [
        np.polyval(np.polyfit(known[:, axis], roll().action[:, column], 1), many[:, axis])
        for column, axis in enumerate((0, 2))
    ]
    value = np.interp(place, [known_place.min(), known_place.max()], [-3.5, 1.5])
    edges = [np.linspace(-2.5, 2.5, 41)] * 2
    count, total = (np.histogram2d(*scaled, bins=edges, weights=weights)[0] for weights in (None, value))
    expected, expected_value = (part.reshape(40, 4, 40, 4).sum((1, 3)) for part in (share, share * q))
    assert 0.5 * np.abs(count / 10**6 - expected).sum() < 0.012  # 0.008 is chance
    full = count > 1000
    assert full.sum() > 200
    np.testing.assert_allclose(total[full] / count[full], expected_value[full] / expected[full], atol=0.03)


def test_the_exact_density_is_finite_far_from_the_data():
    log_p, q = roll().exact(np.array([[-30.0, 30.0]]))
    assert np.isfinite(log_p).all()
    assert -3.5 <= q[0] <= 1.5
