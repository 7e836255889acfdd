"""What data tell of their order: which rows follow one another, where episodes end, and what follows from that."""

import gymnasium
import h5py
import numpy as np
import pytest

from genpolicy.dataset.follow import follows
from genpolicy.dataset.hdf5 import HDF5
from genpolicy.dataset.npz import NPZ
from genpolicy.dataset.transition_table import transitions
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


@pytest.mark.parametrize("format", ["npz", "hdf5"])
@pytest.mark.parametrize("length", [LIMIT, LIMIT - 1])
def test_a_time_limit_that_is_flagged_as_a_termination_is_said(tmp_path, capfd, format, length):
    columns = steps(length=length)
    columns["done"] = np.arange(1, len(columns["done"]) + 1) % length == 0
    if format == "npz":
        data = npz(tmp_path, columns)
    else:
        names = {"observations": "obs", "actions": "action", "rewards": "reward", "terminals": "done"}
        with h5py.File(tmp_path / "data.hdf5", "w") as file:
            file.update({name: columns[other] for name, other in names.items()})
            file["timeouts"] = np.zeros(len(columns["done"]), bool)
        data = HDF5(path=str(tmp_path / "data.hdf5"), directory=tmp_path).load(walk())
    assert data.terminated.sum() == 30
    said = capfd.readouterr().err
    assert ("all 30 episodes of env.max_episode_steps=20 steps terminate" in said) == (length == LIMIT)


@pytest.mark.parametrize("format", ["npz", "hdf5"])
@pytest.mark.parametrize("short", [1, 2, 20])
def test_a_return_of_few_episodes_is_said(tmp_path, capfd, format, short):
    """As of files that d4rl's `qlearning_dataset` was written to, in which only what terminates has all its rows."""
    columns = {name: column.reshape(30, LIMIT, -1) for name, column in steps().items()}
    columns["done"][short:, 10] = 1.0
    kept = np.arange(LIMIT) < np.where(np.arange(30) < short, LIMIT - 1, 11)[:, None]
    columns = {name: column[kept].squeeze() for name, column in columns.items()}
    columns["action"] = columns["action"][:, None]
    data = hdf5(tmp_path, columns) if format == "hdf5" else npz(tmp_path, columns)
    assert data.behaviour.episodes == 30 - short
    said = (
        f"{short} of 30 episodes neither terminate nor have env.max_episode_steps=20 steps: the data's return is that"
    )
    assert (said in capfd.readouterr().err) == (short > 1)


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
    "each twice": lambda rows: np.repeat(np.arange(rows), 2),
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
    assert said.startswith(f"{tmp_path / 'data.npz'}: ")
    assert "rows are followed by no other of their episode, as if they were shuffled: episodes and" in said
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
    arrays, behaviour = transitions(columns, "rows", walk(), np.arange(1, 601) % LIMIT == 0)
    np.testing.assert_array_equal(arrays["episode"], np.repeat(np.arange(30), LIMIT))
    assert behaviour.episodes == 30
    assert behaviour.return_mean == pytest.approx(returns(columns).mean(), rel=1e-5)
    columns["next_obs"] = -columns["next_obs"]
    assert transitions(columns, "rows", walk(), np.arange(1, 601) % LIMIT == 0)[1] == behaviour


def hdf5(folder, columns, found=None, **settings):
    names = {"obs": "observations", "action": "actions", "reward": "rewards", "done": "terminals"}
    names |= {"next_obs": "next_observations", "timeouts": "timeouts"}
    with h5py.File(folder / "data.hdf5", "w") as file:
        for name, column in columns.items():
            file[names[name]] = column
    return HDF5(path=str(folder / "data.hdf5"), directory=folder, **settings).load(found or walk())


def flagged(**more) -> dict[str, np.ndarray]:
    """30 episodes that a time limit ended, every third of them terminated before."""
    columns = steps(**more)
    columns["timeouts"] = np.arange(1, len(columns["done"]) + 1) % LIMIT == 0
    for episode in range(0, 30, 3):
        columns["done"][episode * LIMIT + LIMIT - 1], columns["timeouts"][episode * LIMIT + LIMIT - 1] = True, False
    return columns


def rows(data, columns=("observation", "action", "reward", "next_observation", "terminated")) -> set[bytes]:
    """The rows of transitions, in no order; next observations only where something follows."""
    table = {name: data[name].reshape(data.size, -1).numpy().copy() for name in columns}
    table["next_observation"][data.terminated.numpy()] = 0
    return {row.tobytes() for row in np.hstack([column.astype(np.float32) for column in table.values()])}


@pytest.mark.parametrize("order", ORDERS)
def test_hdf5_rows_in_another_order_lead_where_next_observations_say(tmp_path, capfd, order):
    columns = flagged()
    truth = rows(hdf5(tmp_path, columns))
    assert len(truth) == 600 - 20  # a row at a time limit is left out
    assert capfd.readouterr().err == ""
    mixed = {name: column[ORDERS[order](600)] for name, column in columns.items()}
    data = hdf5(tmp_path, mixed)
    assert rows(data) == truth
    assert data.behaviour.episodes == 0
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "going by next_observations, so that the rows are in another order: episodes and the data's return" in said
    for setting, value in [("reward", "iql_locomotion"), ("held_out", 0.5)]:
        with pytest.raises(
            UserError, match=rf"dataset.{setting}={value}: needs the episodes .*another order"
        ) as refusal:
            hdf5(tmp_path, mixed, **{setting: value})
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("without", [[], ["timeouts"]])
@pytest.mark.parametrize("rounded", ROUNDED.values(), ids=ROUNDED)
def test_next_observations_that_agree_change_nothing(tmp_path, capfd, rounded, without):
    columns = {name: column for name, column in flagged().items() if name not in without}
    plain = hdf5(tmp_path, {name: column for name, column in columns.items() if name != "next_obs"})
    guessed = (
        "neither timeouts nor next_observations: an episode that does not terminate is taken to end every 20 steps"
    )
    assert (guessed in capfd.readouterr().err) == bool(without)
    data = hdf5(tmp_path, columns | {"next_obs": rounded(columns["next_obs"])})
    assert (data.digest(), data.behaviour) == (plain.digest(), plain.behaviour)
    assert data.behaviour.episodes == 30
    assert data.behaviour.return_mean == pytest.approx(returns(columns).mean(), rel=1e-5)
    assert capfd.readouterr().err == ""


def test_few_unflagged_ends_are_ends_and_said(tmp_path, capfd):
    columns = steps()
    columns["timeouts"] = np.zeros(600, bool)  # 29 ends are not flagged, nor is the last
    data = hdf5(tmp_path, columns, reward="iql_locomotion", held_out=0.1)
    kept = np.arange(1, 601) % LIMIT != 0
    every = hdf5(tmp_path, columns)
    np.testing.assert_allclose(every.next_observation, columns["next_obs"][kept], rtol=1e-6)
    assert data.held_out.size == 3 * (LIMIT - 1)
    assert every.behaviour.episodes == 29  # nothing says that the last has ended
    assert every.behaviour.return_mean == pytest.approx(returns(columns)[:-1].mean(), rel=1e-5)
    (said,) = capfd.readouterr().err.splitlines()  # once, though the file was read twice
    assert said.startswith(f"{tmp_path / 'data.hdf5'}: 29 of 599 rows inside of episodes are followed by a row that")


def test_an_early_end_that_is_not_flagged(tmp_path, capfd):
    """Without timeouts steps are counted anew from there."""
    columns = steps(episodes=31)
    kept = np.delete(np.arange(620), np.arange(7, LIMIT))  # the first episode breaks off after 7 steps
    data = hdf5(tmp_path, {name: column[kept] for name, column in columns.items()})
    last = np.append(6, 6 + LIMIT * np.arange(1, 31))
    np.testing.assert_allclose(data.next_observation, np.delete(columns["next_obs"][kept], last, 0), rtol=1e-6)
    assert data.behaviour.episodes == 30
    assert capfd.readouterr().err == ""  # the file claims to flag nothing


def test_episodes_longer_than_the_tasks_are_refused(tmp_path):
    columns = steps()
    del columns["next_obs"]
    columns["timeouts"] = np.zeros(600, bool)
    with pytest.raises(
        UserError, match=r"data.hdf5: 600 rows follow one another .* of walk has at most 20 steps"
    ) as said:
        hdf5(tmp_path, columns)
    assert "\n" not in str(said.value)
    columns["timeouts"][[99, 119]] = True
    with pytest.raises(UserError, match=r"480 rows follow one another"):
        hdf5(tmp_path, columns)


def test_a_row_for_the_last_observation_is_no_longer_episode(tmp_path):
    columns = steps(length=LIMIT + 1)
    columns["timeouts"] = np.arange(1, 631) % (LIMIT + 1) == 0
    assert hdf5(tmp_path, columns).size == 600


def test_where_recordings_are_longer_than_episodes_only_flags_end_them(tmp_path):
    """As in D4RL's demonstrations, whose tasks end sooner, and its walks through mazes."""
    found = walk()
    found.data_within_limit = False
    columns = steps(episodes=10, length=60)
    columns["timeouts"] = np.arange(1, 601) % 60 == 0
    assert hdf5(tmp_path, columns, found).size == 590
    with pytest.raises(UserError, match="600 rows follow one another without an end"):
        hdf5(tmp_path, steps(1, 600) | {"timeouts": np.zeros(600)}, found)


def test_next_observations_that_are_the_observations_are_refused(tmp_path):
    columns = flagged()
    with pytest.raises(UserError, match=r"data.hdf5: next_observations is the same as observations in every row"):
        hdf5(tmp_path, columns | {"next_obs": columns["obs"]})
    del columns["timeouts"]
    with pytest.raises(UserError, match=r"data.npz: next_obs is the same as obs in every row"):
        npz(tmp_path, columns | {"next_obs": columns["obs"]})


def test_rows_that_cannot_be_steps_without_next_observations_are_refused(tmp_path):
    class Room(WalkTask):
        def impossible(self, observation, next_observation):
            return np.abs(next_observation - observation)[:, 0] > 0.8

    columns = flagged()
    columns.pop("next_obs")
    found = Room(name="room", max_episode_steps=LIMIT, reference_min=None, reference_max=None, url=None)
    assert hdf5(tmp_path, columns, found).size == 580
    mixed = {name: column[ORDERS["shuffled"](600)] for name, column in columns.items()}
    with pytest.raises(UserError, match="in another order, and there is no column next_observations"):
        hdf5(tmp_path, mixed, found)


@pytest.mark.parametrize("following", [True, False])
def test_a_termination_is_kept_at_a_time_limit_and_in_the_last_row(tmp_path, capfd, following):
    columns = flagged()
    columns["done"][LIMIT - 1 :: LIMIT] = True
    columns["timeouts"][LIMIT - 1 :: LIMIT] = True
    if not following:
        del columns["next_obs"]
    data = hdf5(tmp_path, columns)
    assert data.size == 600
    np.testing.assert_array_equal(data.terminated, columns["done"])
    np.testing.assert_allclose(data.reward, columns["reward"], rtol=1e-6)
    assert data.next_observation.isfinite().all()
    assert data.behaviour.episodes == 30
    assert capfd.readouterr().err.count("as if the time limit were a termination") == 1


def test_recorded_states_stay_beside_their_rows(tmp_path):
    columns = flagged()
    for order in (np.arange(600), ORDERS["shuffled"](600)):
        mixed = {name: column[order] for name, column in columns.items()}
        hdf5(tmp_path, mixed)
        with h5py.File(tmp_path / "data.hdf5", "a") as file:
            file["infos/qpos"], file["infos/qvel"] = mixed["obs"][:, :2], mixed["obs"][:, 2:]
            file["infos/button_states"] = np.sign(mixed["obs"]).astype(np.int64)
        arrays, states = HDF5(path=str(tmp_path / "data.hdf5"), directory=tmp_path).recorded(walk())
        assert len(arrays["reward"]) == 580
        found = np.hstack([states["qpos"], states["qvel"]])
        np.testing.assert_allclose(found, arrays["observation"], rtol=1e-6)
        np.testing.assert_array_equal(states["button_states"], np.sign(arrays["observation"]))
