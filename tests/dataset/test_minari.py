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
from composed import task

from genpolicy.config.schema import build
from genpolicy.dataset.minari import Minari
from genpolicy.errors import UserError

EPISODES = 4


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def recorded(name, env, steps=40, **more):
    """Records random episodes, and gives what Minari was shown: rows of (obs, action, reward, next_obs, terminated)."""
    import minari

    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collector = minari.DataCollector(gymnasium.wrappers.TimeLimit(gymnasium.make(env).unwrapped, steps), **more)
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
    return build(job.config.dataset, directory=os.environ["MINARI_DATASETS_PATH"]).load(found)


@pytest.mark.parametrize(("env", "format"), [("Hopper-v5", "hdf5"), ("Pendulum-v1", "hdf5"), ("Hopper-v5", "arrow")])
def test_transitions_are_those_that_were_recorded(env, format):
    observation, action, reward, following, terminated = recorded("mine/walks-v0", env, data_format=format)
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


def test_recorded_episodes_that_continue_one_another_stay_apart():
    import minari

    steps, total = 20, np.random.default_rng(0).uniform(-1, 1, (3, 20))
    walk = np.linspace(-1, 1, 3 * steps + 1, dtype=np.float32)[:, None].repeat(3, 1)
    episodes = [
        minari.data_collector.EpisodeBuffer(
            id=number,
            observations=list(walk[steps * number : steps * (number + 1) + 1]),
            actions=list(np.zeros((steps, 1), np.float32)),
            rewards=list(total[number]),
            terminations=[False] * steps,
            truncations=[False] * (steps - 1) + [True],
            infos={},
        )
        for number in range(3)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers("mine/parts-v0", episodes, env="Pendulum-v1")
    data = loaded("mine/parts-v0", "Pendulum-v1", max_episode_steps=steps)
    assert data.behaviour.episodes == 3
    assert data.behaviour.return_mean == pytest.approx(total.sum(1).mean(), rel=1e-5)
    assert data.behaviour.return_std == pytest.approx(total.sum(1).std(), rel=1e-5)


@pytest.mark.parametrize(
    ("recorded_in", "env", "refusal"),
    [
        ("HalfCheetah-v5", "Walker2d-v5", "recorded in HalfCheetah-v5, not in Walker2d-v5; give env.id=HalfCheetah-v5"),
        ("HalfCheetah-v5", "HalfCheetah-v5", ""),
        ("HalfCheetah-v4", "HalfCheetah-v5", "recorded in HalfCheetah-v4, not in HalfCheetah-v5; give env.id="),
    ],
)
def test_the_environment_of_the_data_is_held_against_the_tasks(recorded_in, env, refusal):
    recorded("mine/walks-v0", recorded_in, steps=5)
    if not refusal:
        assert loaded("mine/walks-v0", env).size == 5 * EPISODES
        return
    with pytest.raises(UserError, match=f"dataset.id=mine/walks-v0: {refusal}") as error:
        loaded("mine/walks-v0", env)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("recorded_in", "name", "legal"),
    [
        ("AdroitHandDoor-v1", "door-human-v1", True),
        ("AdroitHandPen-v1", "door-human-v1", False),
        ("PointMaze_UMaze-v3", "maze2d-umaze-v1", True),
        ("PointMaze_UMazeDense-v3", "maze2d-umaze-v1", False),
        ("PointMaze_Large-v3", "maze2d-umaze-v1", False),
        ("AntMaze_Medium_Diverse_GR-v4", "antmaze-medium-diverse-v0", True),
        ("AntMaze_Large-v4", "antmaze-medium-diverse-v0", False),
        ("FrankaKitchen-v1", "kitchen-mixed-v0", True),
        ("HalfCheetah-v5", "walker2d-medium-v2", False),
        (None, "walker2d-medium-v2", True),
    ],
)
def test_d4rls_tasks_know_what_their_data_are_recorded_in(recorded_in, name, legal):
    data = Minari(id="D4RL/x-v0", directory=".")
    if legal:
        data._check_environment(task(name), recorded_in)
    else:
        with pytest.raises(UserError, match=f"recorded in {recorded_in}, not in .* env=gym env.id={recorded_in}"):
            data._check_environment(task(name), recorded_in)


def test_the_rewards_of_hands_are_said_not_to_be_d4rls(capsys):
    """Minari's are of other states and by gymnasium-robotics' rules, which pay for the distance that D4RL charges."""
    Minari(id="D4RL/door/said-v2", directory=".")._check_environment(task("door-human-v1"), "AdroitHandDoor-v1")
    said = capsys.readouterr().err
    assert "rewards and ends are that one's, not D4RL's, by which env=door-human-v1 is scored" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("format", ["hdf5", "arrow"])
def test_data_that_change_have_another_stamp(tmp_path, format):
    data = Minari(id="mine/walks-v0", directory=tmp_path)
    stamps = [data.stamp(None)]
    recorded("mine/walks-v0", "Pendulum-v1", steps=5, data_format=format)
    stamps.append(data.stamp(None))
    assert data.stamp(None) == stamps[-1]
    changed = min(path for path in (tmp_path / "minari/mine/walks-v0/data").rglob("*") if path.is_file())
    os.utime(changed, ns=(2 * 10**18, 2 * 10**18))
    stamps.append(data.stamp(None))
    assert stamps[0] is None
    assert stamps[2] == [*stamps[1][:2], 2 * 10**18]


def test_a_policy_is_trained_on_one(tmp_path):
    recorded("mine/walks-v0", "Pendulum-v1")
    small = ["algo=bc", "network=mlp", "network.hidden=[8]", "algo.behaviour_steps=5", "algo.behaviour_batch_size=8"]
    small += ["eval.episodes=1", "eval.final_episodes=2", "env.max_episode_steps=5", "tracking.uri=none"]
    result = genpolicy(*words("mine/walks-v0", "Pendulum-v1"), *small, f"paths.outputs={tmp_path}")
    assert result.code == 0, result.err
    assert "trained policy" in result.out


def test_another_environment_is_one_line():
    recorded("mine/walks-v0", "Pendulum-v1")
    with pytest.raises(UserError, match=r"recorded in Pendulum-v1, not in Hopper-v5; give env\.id=Pendulum-v1"):
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


def test_a_name_that_is_none_is_one_line():
    with pytest.raises(UserError, match=r"dataset.id=x: Minari cannot load it \(.*") as refusal:
        loaded("x", "Pendulum-v1")
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_what_is_not_there_and_cannot_be_had_is_one_line(tmp_path):
    command = [sys.executable, "-m", "genpolicy.app", *words("nobody/nothing-v0", "Pendulum-v1"), "algo=bc"]
    command += ["tracking.uri=none", f"paths.outputs={tmp_path}"]
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    result = subprocess.run(command, env=offline, capture_output=True, text=True, timeout=100)
    assert result.returncode == 1
    assert result.stderr.startswith("genpolicy: dataset.id=nobody/nothing-v0: not in Minari's cache, and ")
    assert result.stderr.count("\n") == 1


def test_what_claims_more_than_can_be_loaded_is_one_line(tmp_path, monkeypatch):
    recorded("mine/walks-v0", "Pendulum-v1")
    monkeypatch.setattr("genpolicy.dataset.user_file.LARGEST_FILE", 2000)  # one episode has 1,976 bytes
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
