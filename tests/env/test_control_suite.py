"""The control suite's tasks, and RL Unplugged's files."""

import os
import pickle

import numpy as np
import pytest
from command_line import jobs
from composed import names, nodes, task

from genpolicy.dataset.rl_unplugged import RLUnplugged, columns
from genpolicy.errors import UserError

# Of the data in RL Unplugged: sizes of observations (all parts together) and actions.
SIZES = {"cartpole-swingup": (5, 1), "cheetah-run": (17, 6), "humanoid-run": (67, 21), "fish-swim": (24, 5)}
SIZES |= {"walker-stand": (24, 6), "walker-walk": (24, 6), "finger-turn-hard": (12, 2)}
SIZES |= {"manipulator-insert-ball": (44, 5), "manipulator-insert-peg": (44, 5)}


def suite():
    os.environ.setdefault("MUJOCO_GL", "disable")
    from dm_control import suite

    return suite


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_a_task_is_dm_controls(name):
    """Sizes, and the same observations, rewards and ends as the suite's own environment, over a whole episode."""
    found = task(f"dmc-{name}")
    for algo in ("gmpo", "gmpg"):
        [(job, _)] = jobs(f"algo={algo}", f"env=dmc-{name}", f"dataset.path={__file__}")
        plain = name in ("cartpole-swingup", "cheetah-run")
        assert job.config.observation_parts == ([] if plain else list(found.layout.values()))
    assert (found.observation_size, found.action_size) == SIZES[name]
    (env,) = found.make(1)
    observation, _ = env.reset(seed=3)
    own = suite().load(found.domain, found.task, {"random": np.random.RandomState(3)})
    step, rng = own.reset(), np.random.default_rng(0)
    for number in range(1000):
        parts = np.concatenate([np.ravel(step.observation[part]) for part in found.layout])
        np.testing.assert_array_equal(observation, parts)
        action = rng.uniform(-1, 1, found.action_size).astype(np.float32)
        observation, reward, terminated, truncated, _ = env.step(action)
        step = own.step(action.astype(np.float64))
        assert reward == step.reward
        assert 0 <= reward <= 1
        assert not terminated
        assert truncated == step.last() == (number == 999)
        assert step.discount == 1
    found.close()


def test_the_nine_tasks_are_there():
    assert {f"dmc-{name}" for name in SIZES} == {name for name in names("env") if name.startswith("dmc-")}


def test_a_task_that_the_suite_does_not_have():
    with pytest.raises(UserError, match=r"no cheetah/walk in the suite; legal: .*cheetah/run, "):
        task_of(domain="cheetah", task="walk").simulate()


def task_of(**changes):
    found = task("dmc-cheetah-run")
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def recorded(found, rows=12, reward=np.float32) -> list[dict]:
    """Transitions as RL Unplugged has them: the parts of each observation by name, in any order."""
    env, rng = found.simulate(), np.random.default_rng(0)
    parts = np.cumsum(list(found.layout.values()))[:-1]

    def split(vector):
        cut = dict(zip(found.layout, np.split(vector.astype(np.float32), parts), strict=True))
        return dict(reversed(cut.items()))

    records, (observation, _) = [], env.reset(seed=0)
    for _ in range(rows):
        action = rng.uniform(-1, 1, found.action_size).astype(np.float32)
        after, gained, *_ = env.step(action)
        records.append({"s": split(observation), "a": action, "r": reward(gained), "s_": split(after)})
        observation = after
    return records


def loaded(folder, records, found, protocol=None):
    path = folder / "data.npy"
    if protocol is None:
        np.save(path, records, allow_pickle=True)
    else:
        with open(path, "wb") as file:
            array = np.array(records)
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
            pickle.dump(array, file, protocol=protocol)
    return RLUnplugged(path=str(path), directory=folder).load(found)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [None, 3, 4, 5])
@pytest.mark.parametrize("reward", [np.float32, np.float64, float, lambda value: np.array([value], np.float32)])
def test_a_file_is_read_as_it_is(tmp_path, protocol, reward):
    found = task("dmc-finger-turn-hard")
    records = recorded(found, reward=reward)
    data = loaded(tmp_path, records, found, protocol)
    for name, key in {"observation": "s", "next_observation": "s_"}.items():
        expected = [np.concatenate([np.ravel(record[key][part]) for part in found.layout]) for record in records]
        np.testing.assert_array_equal(data[name], np.array(expected, np.float32))
    np.testing.assert_array_equal(data.action, [record["a"] for record in records])
    np.testing.assert_allclose(data.reward, [np.ravel(record["r"])[0] for record in records], rtol=1e-6)
    assert not data.terminated.any()


@pytest.mark.parametrize("protocol", [3, 5])
def test_a_part_in_fortran_order_is_what_numpy_reads(tmp_path, protocol):
    """As the manipulator's `arm_pos`, [8,2]."""
    part = np.arange(12.0).reshape(2, 3, 2)
    rows = [{"s": {"p": seen.T}, "a": np.zeros(1), "r": 0.0, "s_": {"p": seen}} for seen in part]
    with open(tmp_path / "data.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(np.array(rows)))
        pickle.dump(np.array(rows), file, protocol=protocol)
    found = columns(tmp_path / "data.npy", {"p": 6})
    np.testing.assert_array_equal(found["obs"], [np.ravel(seen.T) for seen in part])
    np.testing.assert_array_equal(found["next_obs"], part.reshape(2, 6))


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_file_is_carried_out(tmp_path):
    found = task("dmc-cheetah-run")
    records = recorded(found)
    for place in ({"r": Evil(tmp_path / "made")}, {"s": Evil(tmp_path / "made")}):
        with pytest.raises(UserError, match=r"data.npy: not a readable file .*it names posix.mkdir, which no data"):
            loaded(tmp_path, [*records, records[0] | place], found)
    assert not (tmp_path / "made").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: r[3].pop("a"), r"no 'a'"),
        (lambda r: r[0]["s"].pop("position"), "an observation has the parts velocity, but the task's has position"),
        (lambda r: r[3]["s"].pop("velocity"), "no 'velocity'"),
        (lambda r: r[3].update(a=np.zeros(5, np.float32)), "its rows have different shapes"),
        (lambda r: [row.update(a=np.zeros(5, np.float32)) for row in r], r"action has shape \[12, 5\]"),
        (lambda r: r[3].update(a=np.full(6, 3, np.float32)), "action in row 3 leaves the action space of dmc-cheetah"),
        (lambda r: r[3].update(r=np.float32("nan")), "reward has a NaN or infinite value in row 3"),
        (lambda r: r[3].update(r="much"), "could not convert string to float"),
        (lambda r: r[3].update(a=np.array(["x"] * 6)), "it holds values of type U1"),
        (lambda r: r.clear(), "not a list of transitions"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(tmp_path, change, reason):
    found = task("dmc-cheetah-run")
    records = recorded(found)
    change(records)
    with pytest.raises(UserError, match=reason) as refusal:
        loaded(tmp_path, records, found)
    assert "\n" not in str(refusal.value)


def test_another_task_is_refused(tmp_path):
    (tmp_path / "x.npy").touch()
    with pytest.raises(UserError, match="dataset=rl_unplugged does not go with env=hopper-medium-v2"):
        nodes("env=hopper-medium-v2", "dataset=rl_unplugged", f"dataset.path={tmp_path}/x.npy")
