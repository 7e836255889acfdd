"""OGBench's data sets made here: the package reads them, and they do not depend on how they were made."""

import shutil
from collections import namedtuple

import gymnasium
import numpy as np
import ogbench
import pytest
from command_line import genpolicy
from composed import nodes
from ogbench.relabel_utils import relabel_dataset

from genpolicy.config.schema import build
from genpolicy.dataset import ogbench_made
from genpolicy.dataset.ogbench import read
from genpolicy.dataset.ogbench_contents import another_data_set, parts_done
from genpolicy.dataset.ogbench_made import OGBenchMade
from genpolicy.dataset.ogbench_oracle import Recorder, cells_at_distance, published_size
from genpolicy.errors import UserError

MAZE = "pointmaze-medium-navigate"


def of(data):
    return build(nodes(f"env=ogbench-{data}", only=["env"]).env)


def same(first, second) -> bool:
    return first.keys() == second.keys() and all((first[name] == second[name]).all() for name in first)


@pytest.fixture
def file(tmp_path):
    """Five episodes of 60 transitions, made in one go."""
    return OGBenchMade(directory=tmp_path / "whole", episodes=5, steps=60).file(of(MAZE))


def test_the_package_reads_what_is_made(file):
    task = of(MAZE)
    theirs = ogbench.load_dataset(str(file), add_info=True)
    relabel_dataset(task.recorded_in, gymnasium.make("pointmaze-medium-singletask-v0"), theirs)
    data = OGBenchMade(directory=file.parent, episodes=5, steps=60).load(task)
    assert data.size == 300
    for field, column in {"observation": "observations", "action": "actions", "reward": "rewards"}.items():
        np.testing.assert_array_equal(data[field], theirs[column])
    assert str(data.source).startswith("genpolicy.dataset.ogbench_made.OGBenchMade(")
    assert not list(file.parent.glob("*part*"))


def test_many_processes_make_the_same(file, tmp_path, monkeypatch):
    monkeypatch.setattr(ogbench_made, "PART_ROWS", 1)
    monkeypatch.setattr(ogbench_made, "ALONE_SECONDS", 0)
    monkeypatch.setattr(ogbench_made, "cores", lambda: 3)
    used = []
    monkeypatch.setattr(ogbench_made, "forked", lambda work, count: used.append(count) or FORKED(work, count))
    other = OGBenchMade(directory=tmp_path / "beside", episodes=5, steps=60).file(of(MAZE))
    assert other.name == file.name
    assert used == [3]
    assert same(np.load(other), np.load(file))


FORKED = ogbench_made.forked


def test_what_was_stopped_goes_on(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ogbench_made, "PART_ROWS", 122)
    played, episode = [], Recorder.episode

    def noted(recorder, seed):
        if len(played) == 3:
            raise KeyboardInterrupt
        played.append(seed)
        return episode(recorder, seed)

    monkeypatch.setattr(Recorder, "episode", noted)
    broken = OGBenchMade(directory=tmp_path / "broken", episodes=5, steps=60)
    with pytest.raises(KeyboardInterrupt):
        broken.file(of(MAZE))
    assert not broken.location(of(MAZE)).exists()
    assert ".parts: has what was made; the same command goes on with it" in capsys.readouterr().err
    monkeypatch.setattr(Recorder, "episode", lambda recorder, seed: played.append(seed) or episode(recorder, seed))
    path = broken.file(of(MAZE))
    assert len(played) == 6  # of three, two were kept
    assert same(np.load(path), np.load(file))
    assert [each.name for each in sorted(path.parent.iterdir())] == [path.name, f"{path.name}.lock"]


def test_a_damaged_part_is_one_line(tmp_path, monkeypatch):
    data = OGBenchMade(directory=tmp_path, episodes=2, steps=10)
    folder = data.location(of(MAZE)).with_suffix(".parts")
    folder.mkdir()
    (folder / "0000000.npz").write_bytes(b"PK\3\4 torn")
    with pytest.raises(UserError, match=r"0000000\.npz: damaged; delete it, and it is made again"):
        data.file(of(MAZE))


def test_too_small_a_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: namedtuple("usage", "free")(2**20))
    with pytest.raises(UserError, match=r"the disk is too small for genpolicy-made-.*: 63 MiB are needed, 1 MiB are f"):
        OGBenchMade(directory=tmp_path).file(of(MAZE))


def test_seeds_sizes_and_versions_are_of_the_name(tmp_path):
    names = {
        OGBenchMade(directory=tmp_path, **settings).location(of(MAZE)).name
        for settings in ({}, {"seed": 1}, {"episodes": 3}, {"steps": 3})
    }
    assert len(names) == 4
    assert any(name.startswith("genpolicy-made-ogbench-pointmaze-medium-navigate-1000x1000-seed0-") for name in names)
    assert published_size("puzzle-4x6-noisy") == (5000, 1000)
    assert published_size("pointmaze-giant-stitch") == (5000, 200)
    assert published_size("humanoidmaze-medium-navigate") == (1000, 2000)


@pytest.mark.parametrize("kind", ["navigate", "stitch"])
def test_walks_are_in_the_maze_and_to_their_goals(kind):
    recorder, walls = (
        Recorder(f"pointmaze-large-{kind}", 300),
        of(f"pointmaze-large-{kind}").simulate().unwrapped.maze_map,
    )
    for seed in range(2):
        columns = recorder.episode(seed)
        cells = [tuple(cell) for cell in np.rint((columns["qpos"][:, ::-1] + 4) / 4).astype(int).tolist()]
        assert not any(walls[cell] for cell in cells)
        assert np.flatnonzero(columns["terminals"]).tolist() == [300]
        assert np.abs(columns["actions"]).max() == 1
        if kind == "stitch":
            assert cells[-1] in cells_at_distance(walls, cells[0], 4)
            assert len(set(cells[-100:])) <= 2
        else:
            assert len(set(cells)) > 8


def test_ants_need_experts():
    for name in ("antmaze-large-navigate", "humanoidmaze-medium-stitch", "antsoccer-arena-navigate"):
        with pytest.raises(UserError, match=f"dataset=ogbench_made does not go with env=ogbench-{name}: .* experts"):
            nodes(f"env=ogbench-{name}", "dataset=ogbench_made")
    with pytest.raises(UserError, match="dataset=ogbench_made does not go with env=hopper-medium-v2"):
        nodes("env=hopper-medium-v2", "dataset=ogbench_made")


def test_check_says_what_the_data_are_and_the_simulator_repeats_them(tmp_path):
    words = [f"env=ogbench-{MAZE}", "dataset=ogbench_made", "dataset.episodes=3", "dataset.steps=50"]
    result = genpolicy("mode=check", *words, f"paths.data={tmp_path}", "check.rows=20")
    assert result.code == 0, result.err
    assert "episodes: 3 of 50 transitions" in result.out
    assert "actions, mean ± standard deviation of each part: " in result.out
    assert "done, of all steps: goal " in result.out
    assert "All within 0.001: the simulator repeats the data" in result.out


@pytest.mark.slow
@pytest.mark.parametrize("data", ["cube-single-noisy", "scene-noisy"])
def test_an_arms_episode_is_fixed_by_its_seed_alone(data, tmp_path, monkeypatch):
    """Whatever was played before; its parts' rewards are the package's, and it is told from the other kind."""
    task, recorder = of(data), Recorder(data, 30)
    first = recorder.episode(1)
    recorder.episode(2)
    assert same(recorder.episode(1), first)
    made = OGBenchMade(directory=tmp_path, episodes=2, steps=30)
    env = task.simulate()
    monkeypatch.setattr(task, "simulate", lambda: env)
    arrays, states = made.recorded(task)
    done = parts_done(env.unwrapped, states)
    np.testing.assert_array_equal(sum(part.astype(int) for part in done.values()) - len(done), arrays["reward"])
    assert another_data_set(read(made.location(task), task), task) == ""
    assert another_data_set(first, of(data.replace("noisy", "play")))


@pytest.mark.slow
def test_an_arm_repeats_recorded_steps(tmp_path):
    words = ["env=ogbench-cube-single-play", "dataset=ogbench_made", "dataset.episodes=1", "dataset.steps=100"]
    result = genpolicy("mode=check", *words, f"paths.data={tmp_path}", "check.rows=100")
    assert "All within 0.001: the simulator repeats the data" in result.out
