"""What data tell of their order: which rows follow one another, where episodes end, and what follows from that."""

import gymnasium
import numpy as np
import pytest

from genpolicy.dataset.follow import follows
from genpolicy.dataset.npz import NPZ
from genpolicy.dataset.table import transitions
from genpolicy.env.task import Task
from genpolicy.errors import UserError

LIMIT = 20


class Walk(gymnasium.Env):
    """Sizes only: observation [4], action [1]."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)


class WalkTask(Task):
    def simulate(self):
        return Walk()


def walk(limit=LIMIT) -> Task:
    return WalkTask(name="walk", max_episode_steps=limit, reference_min=None, reference_max=None, url=None)


def steps(episodes=30, length=LIMIT, seed=0) -> dict[str, np.ndarray]:
    """Episodes of a random walk on four scales, one of them far from zero; rewards are those of a cost."""
    random = np.random.default_rng(seed)
    scale, place = np.array([1.0, 30.0, 0.2, 1.0]), np.array([0.0, 0.0, 0.0, 500.0])
    position = place + scale * (0.1 * random.normal(size=(episodes, length + 1, 4)).cumsum(1))
    position += scale * random.normal(size=(episodes, 1, 4))
    rows = episodes * length
    return {
        "obs": position[:, :-1].reshape(rows, 4),
        "action": random.uniform(-1, 1, (rows, 1)),
        "next_obs": position[:, 1:].reshape(rows, 4),
        "reward": -random.random(rows),
        "done": np.zeros(rows),
    }


def npz(folder, columns, limit=LIMIT, **settings):
    np.savez(folder / "data.npz", **columns)
    return NPZ(path=str(folder / "data.npz"), directory=folder, **settings).load(walk(limit))


def returns(columns, length=LIMIT) -> np.ndarray:
    return columns["reward"].reshape(-1, length).sum(1)


ROUNDED = {
    "five decimals": lambda x: np.round(x, 5),
    "float32": lambda x: x.astype(np.float32),
    "five digits": lambda x: np.array([float(f"{value:.5g}") for value in x.flat]).reshape(x.shape),
}


@pytest.mark.parametrize("rounded", ROUNDED)
@pytest.mark.parametrize("name", ["obs", "next_obs"])
def test_a_rounded_column_does_not_end_episodes(tmp_path, capfd, name, rounded):
    columns = steps()
    columns[name] = ROUNDED[rounded](columns[name])
    data = npz(tmp_path, columns, reward="iql_locomotion")
    truth = returns(columns)
    assert data.behaviour.episodes == 30
    assert data.behaviour.return_mean == pytest.approx(truth.mean(), rel=1e-5)
    assert data.reward_transform["scale"] == pytest.approx(1000 / (truth.max() - truth.min()), rel=1e-5)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_what_is_the_same_is_a_question_of_the_datas_scale(unit):
    columns = {name: steps()[name] * unit for name in ("obs", "next_obs")}
    ends = np.arange(1, 600) % LIMIT == 0
    np.testing.assert_array_equal(follows(columns["obs"], columns["next_obs"]), ~ends)
    spread = columns["obs"].std(0)
    for part in range(4):
        moved = columns["next_obs"].copy()
        moved[:, part] += 0.05 * spread[part]
        assert not follows(columns["obs"], moved).any()


def test_a_few_values_beyond_all_others_do_not_make_all_rows_alike():
    columns = steps()
    columns["obs"][7], columns["next_obs"][300] = 1e30, -1e30
    found = follows(columns["obs"].astype(np.float32), columns["next_obs"].astype(np.float32))
    ends = np.arange(1, 600) % LIMIT == 0
    ends[[6, 300]] = True
    np.testing.assert_array_equal(found, ~ends)


def test_parts_that_never_change_say_nothing():
    columns = steps()
    still = np.tile([0.0123456, -700.0, 0.0], (600, 1))
    obs, next_obs = (np.hstack([columns[name], still]) for name in ("obs", "next_obs"))
    ends = np.arange(1, 600) % LIMIT == 0
    np.testing.assert_array_equal(follows(obs, np.round(next_obs, 5)), ~ends)
    assert follows(np.zeros((5, 0)), np.zeros((5, 0))).all()


ORDERS = {
    "shuffled": lambda rows: np.random.default_rng(0).permutation(rows),
    "side by side": lambda rows: np.arange(rows).reshape(10, -1).T.reshape(-1),
    "backwards": lambda rows: np.arange(rows)[::-1],
}


@pytest.mark.parametrize("order", ORDERS)
def test_rows_in_no_order_are_transitions_without_episodes(tmp_path, capfd, order):
    columns = steps()
    columns["done"][LIMIT - 1 :: LIMIT] = 1
    columns = {name: column[ORDERS[order](600)] for name, column in columns.items()}
    data = npz(tmp_path, columns)
    np.testing.assert_allclose(data.next_observation, columns["next_obs"], rtol=1e-6)
    assert data.behaviour.episodes == 0
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"{tmp_path / 'data.npz'}: most rows are followed by no other of their episode")
    for setting, value, without in [("reward", "iql_locomotion", "none"), ("held_out", 0.5, "0")]:
        with pytest.raises(UserError, match=rf"dataset.{setting}={value}: needs the episodes .*={without}$") as refusal:
            npz(tmp_path, columns, **{setting: value})
        assert "\n" not in str(refusal.value)


def test_one_step_is_an_episode_where_the_task_has_one_step(tmp_path, capfd):
    columns = steps(episodes=50, length=1)
    data = npz(tmp_path, columns, limit=1, held_out=0.2)
    assert (data.behaviour.episodes, data.held_out.size) == (50, 10)
    assert data.behaviour.return_mean == pytest.approx(columns["reward"].mean(), rel=1e-5)
    assert capfd.readouterr().err == ""


def test_known_ends_are_not_guessed():
    columns = {name: column.astype(np.float32) for name, column in steps(episodes=1, length=600).items()}
    columns["done"] = columns["done"].astype(bool)
    arrays, behaviour = transitions(columns, walk(), np.arange(1, 601) % LIMIT == 0)
    np.testing.assert_array_equal(arrays["episode"], np.repeat(np.arange(30), LIMIT))
    assert behaviour.episodes == 30
    assert behaviour.return_mean == pytest.approx(returns(columns).mean(), rel=1e-5)
    columns["next_obs"] = -columns["next_obs"]
    assert transitions(columns, walk(), np.arange(1, 601) % LIMIT == 0)[1] == behaviour
