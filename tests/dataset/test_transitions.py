"""Transitions: what they hold, how they are drawn, and how rewards are transformed for training."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from composed import CONF, nodes

from genpolicy.config.schema import build
from genpolicy.dataset.dataset import Dataset
from genpolicy.dataset.transitions import Behaviour, Transitions, too_large
from genpolicy.errors import UserError


def make(size: int = 50) -> Transitions:
    """Transitions whose every field tells their number."""
    number = np.arange(size, dtype=np.float64)
    return Transitions.of(
        {
            "observation": np.stack([number, -number], axis=1),
            "action": np.stack([number, number, number], axis=1),
            "reward": number,
            "next_observation": np.stack([number + 1, -number - 1], axis=1),
            "terminated": number % 7 == 6,
        }
    )


def make_on_host(size: int = 50) -> Transitions:
    """The same ones, sampled as if their table were too large for its device."""
    return replace(make(size), target=torch.device("cpu"))


anywhere = pytest.mark.parametrize("make", [make, make_on_host])


@anywhere
def test_sizes_types_and_access(make):
    transitions = make()
    assert (transitions.size, transitions.observation_size, transitions.action_size) == (50, 2, 3)
    for name in ("observation", "action", "reward", "next_observation"):
        assert transitions[name].dtype == torch.float32
        assert torch.equal(transitions[name], getattr(transitions, name))
    assert transitions.terminated.dtype == torch.bool
    moved = transitions.to("cpu")
    assert moved.behaviour == transitions.behaviour
    torch.testing.assert_close(moved.reward, transitions.reward)


@anywhere
def test_a_batch_keeps_rows_together_and_follows_its_generator(make):
    transitions = make()
    batch = transitions.sample(400, torch.Generator().manual_seed(3))
    number = batch.reward
    assert batch.size == 400
    torch.testing.assert_close(batch.observation, torch.stack([number, -number], 1))
    torch.testing.assert_close(batch.action, number[:, None].expand(-1, 3))
    torch.testing.assert_close(batch.next_observation, torch.stack([number + 1, -number - 1], 1))
    assert torch.equal(batch.terminated, number % 7 == 6)
    again = transitions.sample(400, torch.Generator().manual_seed(3))
    assert torch.equal(again.reward, number)
    generator = torch.Generator().manual_seed(3)
    expected = torch.randint(50, (400,), generator=torch.Generator().manual_seed(3))
    assert torch.equal(transitions.sample(400, generator).reward, expected.float())
    assert not torch.equal(transitions.sample(400, generator).reward, number)


@anywhere
def test_rows(make):
    transitions = make()
    assert torch.equal(transitions.rows(slice(3, 5)).reward, torch.tensor([3.0, 4.0]))
    picked = transitions.rows(torch.tensor([7, 7, 0]))
    assert torch.equal(picked.reward, torch.tensor([7.0, 7.0, 0.0]))
    assert picked.size == 3


def test_the_digest_is_of_every_bit():
    transitions = make(3)
    rows = [[0, 0, 0, 0, 0, 0, 1, -1, 0], [1, -1, 1, 1, 1, 1, 2, -2, 0], [2, -2, 2, 2, 2, 2, 3, -3, 0]]
    layout = '{"observation": [2], "action": [3], "reward": [], "next_observation": [2], "terminated": []}'
    table = np.array(rows, dtype="<f4")
    table[0, 1] = -0.0
    assert transitions.digest() == hashlib.sha256(layout.encode() + table.tobytes()).hexdigest()[:8]
    assert make(3).digest() == transitions.digest() != make(4).digest()
    transitions.table[2, 3] = 2.0000002  # the next float32
    assert transitions.digest() != make(3).digest()
    shapes = {"observation": torch.Size([3]), "action": torch.Size([2])}
    assert Transitions(make(3).table, make(3).shapes | shapes).digest() != make(3).digest()


@anywhere
def test_further_fields_are_sampled_along(make):
    transitions = make()
    extended = transitions.extended(behaviour_action=transitions.reward[:, None, None].expand(-1, 4, 3))
    assert extended.behaviour is transitions.behaviour
    batch = extended.sample(20, torch.Generator().manual_seed(0))
    torch.testing.assert_close(batch["behaviour_action"], batch.reward[:, None, None].expand(-1, 4, 3))
    with pytest.raises(KeyError):
        transitions["behaviour_action"]
    with pytest.raises(RuntimeError):
        transitions.extended(behaviour_action=torch.zeros(3))


@anywhere
def test_batches_are_uniform(make):
    reward = make(10).sample(100_000, torch.Generator().manual_seed(0)).reward
    counts = torch.bincount(reward.long(), minlength=10).double()
    assert ((counts - 10_000).abs() < 4.5 * (10_000 * 0.9) ** 0.5).all()


@pytest.mark.parametrize("device", ["cpu"] + ["cuda"] * torch.cuda.is_available())
def test_batches_from_the_host_are_those_from_the_device(device):
    columns = {name: np.random.default_rng(0).normal(size=(10_000, 3)) for name in ("observation", "action")}
    there = Transitions.of(columns).to(device)
    here = replace(there, table=there.table.cpu(), target=torch.device(device))
    drawn = []
    for transitions in (there, here):
        generator, weight = torch.Generator(device).manual_seed(0), torch.eye(3, device=device)
        for _ in range(50):
            batch = transitions.sample(500, generator)
            assert batch.device.type == device
            # What an update does: it draws, too, and is long on its way when the next batch is drawn.
            noise = torch.randn(500, 3, generator=generator, device=device)
            for _ in range(20):
                weight = weight + (batch.action + noise).T @ batch.observation / 1e4
        drawn.append((weight, generator.get_state(), transitions.rows(torch.tensor([7, 2], device=device)).table))
    assert all(map(torch.equal, *drawn))


def test_a_table_that_is_too_large_stays_on_the_host(monkeypatch):
    asked, size = torch.device("cuda"), 10 * 9 * 4  # bytes of ten rows of nine numbers
    transitions = make(13).split_held_out(torch.tensor([1, 5, 6]))

    def free(amount):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: {asked: (amount, 10**12)}[device])

    free(4 * size)
    assert not too_large(size, asked)
    assert too_large(size + 1, asked)
    assert not too_large(10**15, torch.device("cpu"))
    wide = replace(transitions, held_out=None).to("cuda", extra_columns=1)
    assert (wide.device, wide.table.device.type) == (asked, "cpu")
    free(0)
    placed = transitions.to("cuda")
    for left, right in ((placed, transitions), (placed.held_out, transitions.held_out)):
        assert left.device == asked
        assert torch.equal(left.table, right.table)
    assert placed.observation.device.type == "cpu"
    assert placed.digest() == transitions.digest()
    extended = placed.extended(more=torch.zeros(10, 2))
    assert (extended.device, extended.table.device.type, extended["more"].shape) == (asked, "cpu", (10, 2))
    back = placed.to("cpu")
    assert back.device.type == back.held_out.device.type == "cpu"
    assert back.target is back.held_out.target is None


class Recorded(Dataset):
    """Three finished episodes, one of a single step, and an unfinished one."""

    def arrays(self, task):
        length = np.array([4, 1, 3, 2])
        reward = np.array([1, 2, 3, 4, 20, 5, 5, 5, 0, 1], np.float32)
        observation = np.concatenate([np.arange(n) + 100 * i for i, n in enumerate(length)])[:, None]
        terminated = np.zeros(10, bool)
        terminated[4] = True
        arrays = {
            "observation": observation,
            "action": np.zeros((10, 1)),
            "reward": reward,
            "next_observation": observation + 1,
            "terminated": terminated,
            "episode": np.repeat([0, 1, 5, 6], length),
        }
        return arrays, Behaviour.of(np.array([10.0, 20.0, 15.0]))


def iql_range(arrays) -> tuple[float, float]:
    """IQL's own rule: a trajectory ends at a terminal or where the next observation is not the next row's."""
    returns, total = [], 0.0
    for i in range(len(arrays["reward"])):
        total += float(arrays["reward"][i])
        last = i == len(arrays["reward"]) - 1
        if last or arrays["terminated"][i] or abs(arrays["next_observation"][i] - arrays["observation"][i + 1]) > 1e-6:
            returns.append(total)
            total = 0.0
    return min(returns), max(returns)


def test_reward_transforms(tmp_path):
    raw, behaviour = Recorded(directory=tmp_path).arrays(None)
    none = Recorded(reward="none", directory=tmp_path).load(None)
    assert none.behaviour == behaviour
    np.testing.assert_array_equal(none.reward, raw["reward"])
    assert none.reward_transform == {"name": "none", "scale": 1.0, "shift": 0.0}

    antmaze = Recorded(reward="antmaze", directory=tmp_path).load(None)
    np.testing.assert_array_equal(antmaze.reward, raw["reward"] - 1)
    assert antmaze.behaviour == behaviour  # of raw rewards

    doubled = Recorded(reward="cql_antmaze", directory=tmp_path).load(None)
    np.testing.assert_allclose(doubled.reward, 4 * (raw["reward"] - 0.5), rtol=1e-6)

    hundredfold = Recorded(reward="rebrac_antmaze", directory=tmp_path).load(None)
    np.testing.assert_array_equal(hundredfold.reward, 100 * raw["reward"])

    standard = Recorded(reward="standardize", directory=tmp_path).load(None)
    np.testing.assert_allclose(standard.reward.mean(), 0, atol=1e-6)
    np.testing.assert_allclose(standard.reward.numpy().std(), 1, rtol=1e-6)
    assert standard.reward_transform["mean"] == pytest.approx(raw["reward"].mean())

    low, high = iql_range(raw)
    assert (low, high) == (1.0, 20.0)
    scaled = Recorded(reward="iql_locomotion", directory=tmp_path).load(None)
    np.testing.assert_allclose(scaled.reward, raw["reward"] * 1000 / (high - low), rtol=1e-6)
    assert scaled.reward_transform == {
        "name": "iql_locomotion",
        "scale": 1000 / (high - low),
        "shift": 0.0,
        "return_min": low,
        "return_max": high,
    }


def test_scaling_needs_different_returns(tmp_path):
    class Constant(Recorded):
        def arrays(self, task):
            arrays, behaviour = super().arrays(task)
            return arrays | {"reward": np.zeros(10, np.float32)}, behaviour

    with pytest.raises(UserError, match=r"episodes of different returns, but all have 0; give dataset.reward=none"):
        Constant(reward="iql_locomotion", directory=tmp_path).load(None)
    with pytest.raises(UserError, match=r"different rewards, but all are 0; give dataset.reward=none"):
        Constant(reward="standardize", directory=tmp_path).load(None)


def test_what_is_too_large_is_one_line(tmp_path):
    class Large(Recorded):
        def arrays(self, task):
            arrays, behaviour = super().arrays(task)
            return arrays | {"reward": np.linspace(-3e38, 3e38, 10, dtype=np.float32)}, behaviour

    class Endless(Recorded):
        def arrays(self, task):
            raise MemoryError

        def source(self, task):
            return "the data"

    with pytest.raises(UserError, match=r"standardize: rewards up to 3e\+38 are too large; give dataset.reward=none"):
        Large(reward="standardize", directory=tmp_path).load(None)
    with pytest.raises(UserError, match=r"rebrac_antmaze: 100 r \+ 0 is too large a number; give dataset.reward=none"):
        Large(reward="rebrac_antmaze", directory=tmp_path).load(None)
    with pytest.raises(UserError, match=r"^the data: takes more memory than there is$"):
        Endless(directory=tmp_path).load(None)


def test_behaviour_without_finished_episodes():
    assert Behaviour.of(np.array([])).episodes == 0
    assert np.isnan(Behaviour.of(np.array([])).return_mean)


def test_where_data_come_from(tmp_path, monkeypatch):
    def source(*words: str) -> str:
        config = nodes(*words)
        return build(config.dataset, directory=tmp_path).source(build(config.env))

    url = yaml.safe_load((CONF / "env" / "hopper-medium-v2.yaml").read_text())["url"]
    assert source("env=hopper-medium-v2") == url
    assert source("env=maze2d-umaze-v1") == (
        "genpolicy.dataset.waypoint.Waypoint(reward='antmaze', held_out=0.0, action_margin=0.0, "
        "episodes=400, noise=0.5, seed=0)"
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.hdf5").touch()
    assert source("env=hopper-medium-v2", "dataset=hdf5", "dataset.path=mine.hdf5") == str(tmp_path / "mine.hdf5")


def test_next_actions_are_those_of_the_rows_that_follow():
    observation = np.arange(6.0)[:, None]
    after = observation + 1
    after[3] = 9.0  # a time limit cuts here
    arrays = {"observation": observation, "action": 10 * observation, "reward": np.zeros(6), "next_observation": after}
    data = Transitions.of(arrays | {"terminated": np.arange(6) == 1}).with_next_actions()
    followed = data["followed"] != 0
    assert followed.tolist() == [True, False, True, False, True, False]
    assert data["next_action"][followed][:, 0].tolist() == [10.0, 30.0, 50.0]
    assert data.observation[:, 0].tolist() == list(range(6))
