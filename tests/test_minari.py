"""dataset=minari, on data sets recorded here with Minari's own collector."""

import os
import subprocess
import sys
import warnings

import gymnasium
import h5py
import numpy as np
import pytest
from command_line import genpolicy, jobs, tried

from genpolicy.errors import UserError
from genpolicy.settings import build

EPISODES = 4


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def recorded(name, env, steps=40):
    """Records random episodes, and gives what Minari was shown: rows of (obs, action, reward, next_obs, terminated)."""
    import minari

    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collector = minari.DataCollector(gymnasium.wrappers.TimeLimit(gymnasium.make(env).unwrapped, steps))
        for seed in range(EPISODES):
            observation, _ = collector.reset(seed=seed)
            collector.action_space.seed(seed)
            ended = False
            while not ended:
                action = collector.action_space.sample()
                following, reward, terminated, truncated, _ = collector.step(action)
                rows.append((observation, action, reward, following, terminated))
                observation, ended = following, terminated or truncated
        collector.create_dataset(name)
        collector.close()
    return [np.array(column) for column in zip(*rows, strict=True)]


def words(name, env):
    return ["env=gym", f"env.id={env}", "dataset=minari", f"dataset.id={name}"]


def loaded(name, env, **changes):
    [(job, _)] = jobs(*words(name, env), "algo=bc")
    found = build(job.config.env)
    for key, value in changes.items():
        setattr(found, key, value)
    return build(job.config.dataset, directory=".").load(found)


@pytest.mark.parametrize("env", ["Hopper-v5", "Pendulum-v1"])
def test_transitions_are_those_that_were_recorded(env):
    observation, action, reward, following, terminated = recorded("mine/walks-v0", env)
    data = loaded("mine/walks-v0", env)
    np.testing.assert_allclose(data.observation, observation, rtol=1e-6)
    np.testing.assert_allclose(data.next_observation, following, rtol=1e-6)
    np.testing.assert_allclose(data.action, action, rtol=1e-6)
    np.testing.assert_allclose(data.reward, reward, rtol=1e-6)
    np.testing.assert_array_equal(data.terminated, terminated)  # a time limit is not a termination
    assert terminated.any() == (env == "Hopper-v5")
    assert data.behaviour.episodes == terminated.sum()


def test_an_episode_as_long_as_the_tasks_is_finished():
    reward = recorded("mine/walks-v0", "Pendulum-v1", steps=40)[2]
    data = loaded("mine/walks-v0", "Pendulum-v1", max_episode_steps=40)
    assert data.behaviour.episodes == EPISODES
    assert data.behaviour.return_mean == pytest.approx(reward.sum() / EPISODES, rel=1e-5)


def test_a_policy_is_trained_on_one(tmp_path):
    recorded("mine/walks-v0", "Pendulum-v1")
    small = ["algo=bc", "network=mlp", "network.hidden=[8]", "algo.behaviour_steps=5", "algo.behaviour_batch_size=8"]
    small += ["eval.episodes=1", "eval.final_episodes=2", "env.max_episode_steps=5", "tracking.uri=none"]
    result = genpolicy(*words("mine/walks-v0", "Pendulum-v1"), *small, f"paths.outputs={tmp_path}")
    assert result.code == 0, result.err
    assert "trained policy" in result.out


def test_another_environment_is_one_line():
    recorded("mine/walks-v0", "Pendulum-v1")
    with pytest.raises(UserError, match=r"Minari's mine/walks-v0: obs has shape \[160, 3\], but must have \[N,11\]"):
        loaded("mine/walks-v0", "Hopper-v5")


@pytest.mark.parametrize(
    ("name", "env", "legal"),
    [
        ("mujoco/hopper/medium-v0", "hopper-medium-v2", False),
        ("D4RL/door/human-v2", "door-human-v1", True),
    ],
)
def test_d4rls_scores_are_not_given_to_other_data(name, env, legal):
    result, started = tried(f"env={env}", "dataset=minari", f"dataset.id={name}", "algo=bc")
    assert (result.code == 0) == legal == bool(started)
    if not legal:
        assert "new data, not D4RL's, do not go with env=hopper-medium-v2 and its scores" in result.err


@pytest.mark.parametrize("name", ["../../etc/passwd", "x"])
def test_a_name_that_is_none_is_one_line(name):
    with pytest.raises(UserError, match=rf"dataset.id={name}: Minari cannot load it \(.*") as refusal:
        loaded(name, "Pendulum-v1")
    assert "\n" not in str(refusal.value)


def test_what_is_not_there_and_cannot_be_had_is_one_line(tmp_path):
    command = [sys.executable, "-m", "genpolicy.app", *words("nobody/nothing-v0", "Pendulum-v1"), "algo=bc"]
    command += ["tracking.uri=none", f"paths.outputs={tmp_path}"]
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    result = subprocess.run(command, env=offline, capture_output=True, text=True, timeout=100)
    assert result.returncode == 1
    assert result.stderr.startswith("genpolicy: dataset.id=nobody/nothing-v0: Minari cannot load it (")
    assert result.stderr.count("\n") == 1


def test_what_claims_more_than_can_be_loaded_is_one_line(tmp_path, monkeypatch):
    recorded("mine/walks-v0", "Pendulum-v1")
    monkeypatch.setattr("genpolicy.dataset.own_file.LARGEST_FILE", 2000)  # one episode has 1,976 bytes
    with pytest.raises(
        UserError, match=r"^dataset.id=mine/walks-v0: its columns claim .* more than can be loaded here"
    ):
        loaded("mine/walks-v0", "Pendulum-v1")
    (path,) = (tmp_path / "minari").rglob("main_data.hdf5")
    with h5py.File(path, "a") as file:
        del file["episode_1/observations"]
        file.create_dataset("episode_1/observations", (10**12, 3), "f4", chunks=(1000, 3))
    with pytest.raises(UserError, match="Minari cannot load it \\(") as refusal:
        loaded("mine/walks-v0", "Pendulum-v1")
    assert "\n" not in str(refusal.value)
