"""mode=collect, and mode=check on what it and others have recorded."""

import os
import shlex
import signal

import h5py
import numpy as np
import pytest
import torch
from command_line import genpolicy, jobs, tried
from composed import task
from tiny import only_run, words

from genpolicy.dataset.hdf5 import HDF5
from genpolicy.dataset.waypoint import walk
from genpolicy.env.replay import replay
from genpolicy.evaluation.rollout import evaluation_seed, start_seeds
from genpolicy.modes import collect
from genpolicy.modes.collect import BATCHES, play
from genpolicy.runs.run import load_run
from genpolicy.training.setup import fresh_algorithm, restore

TASKS = ["hopper-medium-v2", "halfcheetah-medium-v2", "antmaze-umaze-v0", "maze2d-umaze-v1", "dmc-cheetah-run"]
TASKS += [f"{robot}-human-v1" for robot in ("pen", "door", "hammer", "relocate")]


def recorded(path, *more, env="hopper-medium-v2", steps=600):
    result = genpolicy("mode=collect", f"env={env}", f"collect.path={path}", f"collect.steps={steps}", *more)
    assert result.code == 0, result.err
    return read(path)


def read(path) -> dict[str, np.ndarray]:
    columns = {}
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, item: columns.update({name: item[:]}) if isinstance(item, h5py.Dataset) else None)
    return columns


def checked(path, *more, env="hopper-medium-v2"):
    return genpolicy("mode=check", f"env={env}", "dataset=hdf5", f"dataset.path={path}", *more)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_what_is_collected_is_d4rls_layout_and_replays(tmp_path, name):
    columns = recorded(tmp_path / "mine.hdf5", "collect.at_once=3", env=name)
    found = task(name)
    assert columns["observations"].shape == (600, found.observation_size)
    assert columns["actions"].shape == (600, found.action_size)
    assert {len(column) for column in columns.values()} == {600}
    ends = columns["terminals"] | columns["timeouts"]
    assert not (columns["terminals"] & columns["timeouts"]).any()
    lengths = np.diff(np.flatnonzero(ends), prepend=-1)
    assert (lengths <= found.max_episode_steps).all()
    assert (lengths[columns["timeouts"][ends]] == found.max_episode_steps).all()
    low, high = columns["actions"].min(0), columns["actions"].max(0)
    assert (low < found.action_low + 0.1).all()
    assert (high > found.action_high - 0.1).all()
    result = checked(tmp_path / "mine.hdf5", env=name)
    assert result.code == 0, result.err
    assert "All within 0.001: the simulator repeats the data" in result.out


@pytest.mark.parametrize("given", [["env=gym", "env.id=Pendulum-v1"], []])
def test_the_command_that_it_prints_trains_on_the_file(tmp_path, given):
    result = genpolicy("mode=collect", *given, f"collect.path={tmp_path}/of mine.hdf5", "collect.steps=20")
    command, *printed = shlex.split(result.out.splitlines()[-1])
    assert command == "genpolicy"
    assert tried(*printed)[0].code == 0
    ((job, _),) = jobs(*printed)
    assert (job.config.dataset.path, job.choices["env"]) == (
        f"{tmp_path}/of mine.hdf5",
        given[0][4:] if given else "maze2d-umaze-v1",
    )


def test_a_stopped_collection_goes_on_to_the_same_file(tmp_path, monkeypatch):
    whole = recorded(tmp_path / "whole.hdf5", "collect.at_once=4")
    batches = []

    def interrupted(*arguments):
        batches.append(1)
        if len(batches) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return play(*arguments)

    command = ["mode=collect", "env=hopper-medium-v2", f"collect.path={tmp_path / 'parts.hdf5'}", "collect.at_once=4"]
    with monkeypatch.context() as patch:
        patch.setattr(collect, "play", interrupted)
        assert genpolicy(*command, "collect.steps=600").code == 130
    assert not (tmp_path / "parts.hdf5").exists()
    with h5py.File(tmp_path / "parts.hdf5.part") as file:
        assert 0 < len(file["rewards"]) < 600
    assert genpolicy(*command, "collect.steps=600", "seed=1").err.count("was begun with other settings") == 1
    parts = recorded(tmp_path / "parts.hdf5", "collect.at_once=4")
    assert sorted(parts) == sorted(whole)
    for name, column in whole.items():
        np.testing.assert_array_equal(parts[name], column)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts.hdf5", "whole.hdf5"]


def test_no_evaluation_begins_where_recorded_episodes_do(tmp_path):
    columns = recorded(tmp_path / "mine.hdf5", "collect.at_once=2", env="maze2d-umaze-v1", steps=400)
    maze = task("maze2d-umaze-v1").simulate()
    seeds = [seed for index in range(5) for seed in start_seeds(evaluation_seed(0, index), 2)]
    starts = {maze.reset(seed=seed)[0].astype(np.float32).tobytes() for seed in seeds}
    assert len(starts) == 10
    assert not starts & {columns["observations"][row].tobytes() for row in (0, 300)}


@pytest.mark.slow
def test_the_policy_of_a_run(tmp_path):
    assert genpolicy(*words(tmp_path / "runs")).code == 0
    run = only_run(tmp_path / "runs")
    more = [f"collect.policy={run}", "collect.at_once=200"]
    columns = recorded(tmp_path / "mine.hdf5", *more, env="swiss-roll", steps=500)
    assert columns["terminals"].all()
    config = load_run(run).config
    algorithm = fresh_algorithm(config, task("swiss-roll"), torch.device("cpu"))
    restore(algorithm, run / "last.pt")
    drawn = [
        algorithm.act(torch.zeros(200, 0), torch.Generator().manual_seed(evaluation_seed(0, BATCHES + batch)))
        for batch in range(3)
    ]
    np.testing.assert_array_equal(columns["actions"], torch.cat(drawn)[:500].clamp(-2, 2).numpy())
    result = genpolicy("mode=collect", "env=hopper-medium-v2", f"collect.policy={run}", f"collect.path={tmp_path}/x")
    assert result.code == 1
    assert "was trained for swiss-roll, whose sizes are not those of hopper-medium-v2" in result.err


def test_the_waypoint_controller_wanders_as_in_the_embedded_data(tmp_path):
    columns = recorded(tmp_path / "mine.hdf5", "collect.policy=waypoint", env="maze2d-umaze-v1", steps=6000)
    maze = task("maze2d-umaze-v1").simulate()
    theirs = walk(maze, 20, 300, 0.5, 0)
    for name in ("observations", "actions"):
        levels = np.linspace(0.1, 0.9, 5)
        one, other = (np.quantile(each[name], levels, axis=0) for each in (columns, theirs))
        np.testing.assert_allclose(one, other, atol=0.35)
    visited = {maze.cell(position) for position in columns["observations"][:, :2]}
    assert visited == {tuple(cell) for cell in maze.free_cells.tolist()}
    assert columns["timeouts"].sum() == 20


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["collect.policy=waypoint"], "steers the ball of maze2d, not env=hopper-medium-v2"),
        (["collect.path={there}"], "is there already; name another one, or delete it"),
        (["collect.path={there}/below"], "cannot be written"),
        (["collect.policy=nothing"], "collect.policy: nothing is no run directory, checkpoint or MLflow run id"),
        (["algo=bc"], "mode=collect takes no such setting"),
        (["env=gym", "env.id=CartPole-v1"], "only a Box of vectors will do"),
    ],
)
def test_what_cannot_be_collected_is_one_line(tmp_path, given, reason):
    (tmp_path / "there").write_text("mine")
    given = [word.format(there=tmp_path / "there") for word in given]
    result = genpolicy("mode=collect", "env=hopper-medium-v2", f"collect.path={tmp_path}/new.hdf5", *given)
    assert result.code == 1
    assert reason in result.err
    assert result.err.count("\n") == 1
    assert (tmp_path / "there").read_text() == "mine"


def test_a_part_longer_than_wanted_is_cut(tmp_path):
    recorded(tmp_path / "mine.hdf5", steps=300)
    long = read(tmp_path / "mine.hdf5")
    (tmp_path / "mine.hdf5").rename(tmp_path / "mine.hdf5.part")
    short = recorded(tmp_path / "mine.hdf5", steps=200)
    assert {len(column) for column in short.values()} == {200}
    np.testing.assert_array_equal(short["observations"], long["observations"][:200])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.hdf5"]


@pytest.mark.parametrize("place", ["_cut", "os.replace"])
@pytest.mark.parametrize("steps", [(130, 50, 130), (50, 130)])
def test_one_that_is_killed_at_its_end_goes_on_with_whole_episodes(tmp_path, monkeypatch, place, steps):
    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    def collected(name, number):
        words = ("env=hopper-medium-v2", f"collect.path={tmp_path}/{name}", f"collect.steps={number}")
        ((job, _),) = jobs("mode=collect", "collect.at_once=2", *words)
        collect.run(job)
        return read(tmp_path / name)

    with monkeypatch.context() as patch:
        patch.setattr(f"genpolicy.modes.collect.{place}", killed)
        for number in steps[:-1]:
            with pytest.raises(Killed):
                collected("killed", number)
    killed, whole = (collected(name, steps[-1]) for name in ("killed", "whole"))
    for name, column in whole.items():
        np.testing.assert_array_equal(killed[name], column)


def test_a_damaged_part_is_one_line(tmp_path):
    (tmp_path / "mine.hdf5.part").write_bytes(b"torn" * 100)
    result = genpolicy("mode=collect", "env=hopper-medium-v2", f"collect.path={tmp_path}/mine.hdf5")
    assert result.code == 1
    assert "is damaged; delete it to start again" in result.err


@pytest.fixture(scope="module")
def hopper(tmp_path_factory):
    path = tmp_path_factory.mktemp("hopper") / "mine.hdf5"
    recorded(path, steps=800)
    return path


def test_states_that_only_the_observations_tell(hopper, tmp_path):
    columns = read(hopper)
    with h5py.File(tmp_path / "bare.hdf5", "w") as file:
        for name in ("observations", "actions", "rewards", "terminals", "timeouts"):
            file[name] = columns[name]
    assert "All within 0.001" in checked(tmp_path / "bare.hdf5").out


def test_another_version_of_the_simulator_is_told_by_its_rule(hopper):
    said = checked(hopper, "env.simulator=Hopper-v5").out
    assert "that go on" in said
    assert "0 (0.00%)" in said
    assert "(100.00%)" in said
    assert (
        "half of the transitions that terminate get at least 1 less in the simulator: its rule is another one" in said
    )


def test_errors_are_measured_against_known_ones(hopper, tmp_path):
    """Every third reward is moved by .5, one observation's part by a standard deviation, one end is not recorded."""
    columns = read(hopper)
    spread = columns["observations"].std(0)
    first = np.flatnonzero(~columns["terminals"])[10]
    columns["rewards"][::3] += 0.5
    columns["observations"][first + 1, 4] += spread[4]
    ended = np.flatnonzero(columns["terminals"])[0]
    columns["terminals"][ended] = False
    path = tmp_path / "moved.hdf5"
    with h5py.File(path, "w") as file:
        for name, column in columns.items():
            file[name] = column
    found = task("hopper-medium-v2")
    arrays, states = HDF5(path=str(path), directory=tmp_path).recorded(found)
    replayed = replay(found, arrays, states, np.arange(len(arrays["reward"])))
    np.testing.assert_allclose(replayed.reward[::3], -0.5, atol=1e-5)
    np.testing.assert_allclose(np.delete(replayed.reward, np.s_[::3]), 0, atol=1e-5)
    assert replayed.observation[first] == pytest.approx(1, rel=0.02)
    assert replayed.replayed_end[ended]
    assert not replayed.recorded_end[ended]
    said = checked(path, "check.rows=1000000").out
    assert "Terminations: 1 only in the simulator, 0 only in the data." in said


def test_rows_are_spread_over_the_data(hopper):
    said = checked(hopper, "check.rows=50").out
    assert "50 of 799 transitions" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ("kitchen-complete-v0", "the state of kitchen-complete-v0 does not follow from its observations"),
        ("dmc-finger-turn-hard", "the state of dmc-finger-turn-hard does not follow from its observations"),
    ],
)
def test_unknown_states_are_one_line(tmp_path, env, reason):
    recorded(tmp_path / "mine.hdf5", "collect.at_once=1", env=env, steps=20)
    result = checked(tmp_path / "mine.hdf5", env=env)
    assert result.code == 1
    assert reason in result.err
    assert result.err.splitlines()[-1].startswith("genpolicy: mode=check: ")


def test_states_of_another_simulator_are_one_line(hopper, tmp_path):
    columns = read(hopper)
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        for name, column in columns.items():
            file[name] = column if name != "infos/qpos" else column[:, :4]
    result = checked(tmp_path / "other.hdf5")
    assert result.code == 1
    assert "the data's states, qpos [4], qvel [6], are none of hopper-medium-v2" in result.err


@pytest.mark.slow
def test_actions_of_a_random_policy_are_uniform(tmp_path):
    actions = recorded(tmp_path / "mine.hdf5", "collect.at_once=1000", env="swiss-roll", steps=20_000)["actions"]
    levels = np.quantile(actions, [0.0, 0.25, 0.5, 0.75, 1.0], axis=0)
    np.testing.assert_allclose(levels, np.outer([-2, -1, 0, 1, 2], [1, 1]), atol=0.06)
