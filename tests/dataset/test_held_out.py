"""Episodes kept out of training: which they are, and what is measured on them."""

import json
import math

import gymnasium
import h5py
import numpy as np
import pytest
import torch
from command_line import genpolicy
from composed import task
from tiny import only_run, records, same

from genpolicy.dataset.dataset import chosen_episodes
from genpolicy.dataset.hdf5 import HDF5
from genpolicy.dataset.multi_goal import MultiGoalData
from genpolicy.dataset.npz import NPZ
from genpolicy.dataset.transitions import Transitions
from genpolicy.dataset.waypoint import Waypoint
from genpolicy.env.multi_goal import demonstrations
from genpolicy.env.task import Task
from genpolicy.errors import UserError
from genpolicy.runs import checkpoint

LENGTHS = [4, 7, 2, 5, 3, 6, 8, 2, 4, 5]  # of the episodes in files


class Plain(gymnasium.Env):
    """Sizes only: observation [3], action [2]."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)


class PlainTask(Task):
    def simulate(self):
        return Plain()


def plain() -> Task:
    return PlainTask(name="plain", max_episode_steps=9, reference_min=None, reference_max=None, url=None)


def rows() -> dict[str, np.ndarray]:
    """Rows of episodes that end by truncation; an observation is [episode, step, random]."""
    episode = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    step = np.concatenate([np.arange(length) for length in LENGTHS])
    rng = np.random.default_rng(0)
    return {
        "observation": np.stack([episode, step, rng.normal(size=len(step))], 1).astype(np.float32),
        "action": rng.uniform(-1, 1, (len(step), 2)).astype(np.float32),
        "reward": rng.normal(size=len(step)).astype(np.float32),
        "last": np.append(np.diff(episode) > 0, True),
    }


def hdf5(folder, **settings):
    content = rows()
    with h5py.File(folder / "data.hdf5", "w") as file:
        for name in ("observation", "action", "reward"):
            file[f"{name}s"] = content[name]
        file["terminals"], file["timeouts"] = np.zeros(len(content["last"]), bool), content["last"]
    return HDF5(path=str(folder / "data.hdf5"), directory=folder, **settings).load(plain())


def npz(folder, **settings):
    content = rows()
    following = np.roll(content["observation"], -1, 0)
    following[content["last"]] = -1.0
    columns = {"obs": content["observation"], "next_obs": following, "done": np.zeros(len(following))}
    np.savez(folder / "data.npz", action=content["action"], reward=content["reward"], **columns)
    return NPZ(path=str(folder / "data.npz"), directory=folder, **settings).load(plain())


def multi_goal(folder, **settings):
    return MultiGoalData(episodes=12, directory=folder, **settings).load(task("multi-goal"))


def waypoint(folder, **settings):
    return Waypoint(episodes=6, directory=folder, **settings).load(task("maze2d-umaze-v1"))


def by_number(everything: Transitions) -> list[int]:
    return everything.observation[:, 0].int().tolist()


def by_walk(everything: Transitions) -> list[int]:
    walks = torch.from_numpy(demonstrations(12, task("multi-goal").max_episode_steps)[0]).float()
    there = (walks[None] == everything.observation[:, None, None]).all(-1).any(1)  # [rows, episodes]
    assert (there.sum(1) == 1).all()
    return there.int().argmax(1).tolist()


def by_length(everything: Transitions) -> list[int]:
    return np.repeat(np.arange(6), task("maze2d-umaze-v1").max_episode_steps - 1).tolist()


@pytest.mark.parametrize(
    ("load", "episode_of", "count"),
    [(hdf5, by_number, 10), (npz, by_number, 10), (multi_goal, by_walk, 12), (waypoint, by_length, 6)],
)
def test_whole_episodes_are_apart_and_the_rest_is_all_that_is_left(load, episode_of, count, tmp_path):
    everything, split = load(tmp_path, reward="antmaze"), load(tmp_path, reward="antmaze", held_out=0.3)
    assert everything.held_out is None
    number = {row.tobytes(): number for number, row in enumerate(everything.table.numpy())}
    assert len(number) == everything.size
    kept, apart = ([number[row.tobytes()] for row in part.table.numpy()] for part in (split, split.held_out))
    assert sorted(kept + apart) == list(range(everything.size))
    assert kept == sorted(kept)  # in the data's order
    assert apart == sorted(apart)
    episode = np.array(episode_of(everything))
    assert len(set(episode[apart])) == round(0.3 * count)
    assert set(episode[kept]) == set(range(count)) - set(episode[apart])
    assert split.behaviour == everything.behaviour
    assert split.reward_transform == everything.reward_transform
    again = load(tmp_path, reward="antmaze", held_out=0.3).to("cpu")
    assert torch.equal(again.table, split.table)
    assert torch.equal(again.held_out.table, split.held_out.table)


def test_constants_of_the_rewards_are_those_of_all_episodes(tmp_path):
    split = hdf5(tmp_path, reward="standardize", held_out=0.5)
    used = np.delete(rows()["reward"], np.flatnonzero(rows()["last"]))  # a timeout's row is no transition
    assert split.reward_transform["mean"] == pytest.approx(used.mean(), rel=1e-5)
    assert split.reward_transform["std"] == pytest.approx(used.std(), rel=1e-5)


def test_more_episodes_include_fewer():
    episode = np.repeat(np.arange(20), 3)
    parts = [set(chosen_episodes(episode, share).tolist()) for share in (0.1, 0.25, 0.5, 0.95)]
    assert [len(part) for part in parts] == [6, 15, 30, 57]
    assert parts[0] < parts[1] < parts[2] < parts[3]


@pytest.mark.parametrize(("share", "count"), [(0.04, 0), (0.96, 10)])
def test_an_episode_must_be_left_on_either_side(tmp_path, share, count):
    with pytest.raises(UserError, match=rf"held_out={share}: holds {count} of the data's 10 episodes out") as refusal:
        hdf5(tmp_path, held_out=share)
    assert "\n" not in str(refusal.value)


def test_shuffled_rows_have_no_episodes_to_split_by(tmp_path):
    npz(tmp_path)
    with np.load(tmp_path / "data.npz") as file:
        order = np.random.default_rng(0).permutation(len(file["obs"]))
        np.savez(tmp_path / "shuffled.npz", **{name: column[order] for name, column in file.items()})
    with pytest.raises(UserError, match=r"as if they were shuffled.*give dataset.held_out=0"):
        NPZ(path=str(tmp_path / "shuffled.npz"), directory=tmp_path, held_out=0.5).load(plain())


@pytest.mark.parametrize("value", ["1", "-0.1"])
def test_a_share_is_less_than_all(value):
    result = genpolicy(f"dataset.held_out={value}")
    assert result.code == 1
    assert result.err.startswith("genpolicy: dataset.held_out: ")


def memorable(path) -> None:
    """Pendulum data in which every episode stands at one place and does one thing, unlike any other's."""
    episodes, steps = 16, 10
    rng = np.random.default_rng(0)
    angle, action = rng.uniform(-np.pi, np.pi, episodes), rng.choice([-1.8, 1.8], episodes)
    place = np.stack([np.cos(angle), np.sin(angle), rng.uniform(-8, 8, episodes)], 1)
    done = np.tile(np.arange(steps) == steps - 1, episodes)
    columns = {"obs": np.repeat(place, steps, 0), "action": np.repeat(action, steps)[:, None], "done": done}
    np.savez(path, next_obs=columns["obs"], reward=rng.normal(size=episodes * steps), **columns)


def train(folder, *more: str):
    """The result of a run on the data of a folder, and what it logged."""
    words = ["env=gym", "env.id=Pendulum-v1", "env.max_episode_steps=10", f"dataset.path={folder / 'data.npz'}"]
    words += ["dataset=npz", "network=mlp", "algo=bc", "model=gaussian", "algo.behaviour_steps=800", "eval.per_phase=2"]
    words += ["network.hidden=[64,64]", "algo.behaviour_batch_size=64", "algo.behaviour_lr=0.003", "tracking.uri=none"]
    words += ["eval.episodes=1", "eval.final_episodes=1", f"paths.outputs={folder}"]
    result = genpolicy(*words, *more)
    assert result.code == 0, result.err
    return result, {name: value for name, _, value in records(only_run(folder))}


@pytest.mark.slow
def test_what_was_learned_by_heart_is_likelier_than_what_was_held_out(tmp_path):
    memorable(tmp_path / "data.npz")
    result, logged = train(tmp_path, "dataset.held_out=0.25", "eval.log_prob_actions=500")
    for kind in ("eval", "final", "best"):
        assert logged[f"{kind}/held_out_log_prob"] < logged[f"{kind}/log_prob"] - 1
        in_bits = -logged[f"{kind}/held_out_log_prob"] / math.log(2)
        assert logged[f"{kind}/held_out_bits_per_dim"] == pytest.approx(in_bits)
        assert logged[f"{kind}/held_out_log_prob_stderr"] > 0
    shown = f"{logged['final/held_out_log_prob']:.3f}"
    assert "held-" in result.out
    assert shown in result.out
    told = genpolicy("mode=eval", f"checkpoint={only_run(tmp_path)}", "eval.final_episodes=1")
    assert told.code == 0, told.err
    assert shown in told.out
    (kept,) = only_run(tmp_path).glob("evaluation-*.json")
    metrics = json.loads(kept.read_text())["metrics"]
    assert metrics["held_out_log_prob"] == pytest.approx(logged["final/held_out_log_prob"], abs=1e-3)


@pytest.mark.slow
def test_training_depends_on_nothing_that_is_held_out(tmp_path):
    logged, weights = [], []
    for name in ("data", "changed"):
        folder = tmp_path / name
        folder.mkdir()
        memorable(folder / "data.npz")
        if name == "changed":
            with np.load(folder / "data.npz") as file:
                columns = dict(file)
            columns["action"][chosen_episodes(np.repeat(np.arange(16), 10), 0.25)] = 0.0
            np.savez(folder / "data.npz", **columns)
        logged.append(train(folder, "dataset.held_out=0.25")[1])
        weights.append(checkpoint.load(only_run(folder) / "last.pt")["algorithm"])
    assert same(*weights)
    assert logged[0]["final/log_prob"] == logged[1]["final/log_prob"]
    assert logged[0]["final/held_out_log_prob"] != logged[1]["final/held_out_log_prob"]


@pytest.mark.slow
def test_nothing_is_held_out_unless_asked_for(tmp_path):
    memorable(tmp_path / "data.npz")
    result, logged = train(tmp_path)
    assert not any("held_out" in name for name in logged)
    assert not any("hutchinson" in name for name in logged)  # a closed form
    assert "held-" not in result.out
