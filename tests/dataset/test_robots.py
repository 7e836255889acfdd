"""Data of another robot whose observations and actions have the same sizes are noticed by replaying a few steps."""

import gymnasium
import h5py
import numpy as np
import pytest
from composed import task

from genpolicy.dataset.hdf5 import HDF5
from genpolicy.dataset.npz import NPZ
from genpolicy.env import replay
from genpolicy.env.gym import Gym
from genpolicy.errors import UserError

ROBOTS = {"HalfCheetah-v4": "halfcheetah-medium-v2", "Walker2d-v4": "walker2d-medium-v2"}


def recorded(simulator, heavier=1.0, steps=150):
    """Random steps of gymnasium's own environment, in D4RL's layout with the states; its bodies may be heavier."""
    env = gymnasium.make(simulator, disable_env_checker=True).unwrapped
    env.model.body_mass[:] *= heavier
    env.action_space.seed(0)
    rows = {"observations": [], "actions": [], "rewards": [], "terminals": [], "timeouts": []}
    rows |= {"infos/qpos": [], "infos/qvel": []}
    observation, _ = env.reset(seed=0)
    for number in range(steps):
        action = 0.3 * env.action_space.sample()
        state = env.data.qpos.copy(), env.data.qvel.copy()
        following, reward, terminated, _, _ = env.step(action)
        for name, value in zip(rows, (observation, action, reward, terminated, number % 50 == 49, *state), strict=True):
            rows[name].append(value)
        observation = env.reset()[0] if terminated or number % 50 == 49 else following
    env.close()
    rows = {name: np.array(values) for name, values in rows.items()}
    rows["timeouts"] &= ~rows["terminals"]
    return rows


def written(folder, simulator, **more):
    path = folder / f"{simulator}.hdf5"
    with h5py.File(path, "w") as file:
        for name, column in recorded(simulator, **more).items():
            file[name] = column
    return path


def load(path, found):
    return HDF5(path=str(path), directory=path.parent).load(found)


@pytest.mark.parametrize("simulator", ROBOTS)
def test_data_of_the_other_robot_are_refused_and_its_own_pass(tmp_path, simulator):
    path = written(tmp_path, simulator)
    for other, name in ROBOTS.items():
        for found in (task(name), Gym(id=other, **GYM)):
            if other == simulator:
                assert load(path, found).size > 100
                continue
            robot = other if isinstance(found, Gym) else other[:-3]
            with pytest.raises(UserError, match=rf"{path}: not recorded in {robot}: \d+ recorded steps, taken again"):
                load(path, found)


GYM = {"name": "gym", "url": None, "reference_min": None, "reference_max": None, "max_episode_steps": None}


def test_a_simulator_that_differs_a_little_passes(tmp_path):
    path = written(tmp_path, "HalfCheetah-v4", heavier=1.03)
    found = task("halfcheetah-medium-v2")
    dataset = HDF5(path=str(path), directory=tmp_path)
    arrays, states = dataset.recorded(found)
    errors = replay.replay(found, arrays, states, np.arange(100)).observation
    assert 0.01 < np.median(errors) < replay.ANOTHER
    assert dataset.load(found).size > 100


def test_a_file_without_states_is_asked_by_its_observations(tmp_path):
    rows = recorded("Walker2d-v4")
    keep = np.flatnonzero(~rows["timeouts"][:-1] & ~rows["terminals"][:-1])
    np.savez(
        tmp_path / "data.npz",
        obs=rows["observations"][keep],
        next_obs=rows["observations"][keep + 1],
        action=rows["actions"][keep],
        reward=rows["rewards"][keep],
        done=np.zeros(len(keep)),
    )
    dataset = NPZ(path=str(tmp_path / "data.npz"), directory=tmp_path)
    assert dataset.load(task("walker2d-medium-v2")).size == len(keep)
    with pytest.raises(UserError, match="not recorded in HalfCheetah: "):
        dataset.load(task("halfcheetah-medium-v2"))
    assert dataset.load(Gym(id="HalfCheetah-v4", **GYM)).size == len(keep)  # where neither tells the state


def test_a_file_is_asked_once_until_it_changes(tmp_path, monkeypatch):
    path, found, asked = written(tmp_path, "HalfCheetah-v4"), task("halfcheetah-medium-v2"), []
    real = replay.replay
    monkeypatch.setattr(replay, "replay", lambda *given: asked.append(1) or real(*given))
    for _ in range(3):
        load(path, found)
    assert len(asked) == 1
    path.unlink()
    path = written(tmp_path, "HalfCheetah-v4", steps=120)
    load(path, found)
    assert len(asked) == 2
    path.unlink()
    written(tmp_path, "Walker2d-v4").rename(path)
    for _ in range(2):  # what was refused is not remembered
        with pytest.raises(UserError, match="not recorded in HalfCheetah"):
            load(path, found)
