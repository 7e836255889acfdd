"""OGBench's files: as the package's own loader and relabelling have them; downloads; bad files."""

import io
import re

import gymnasium
import numpy as np
import ogbench
import pytest
from composed import nodes
from file_server import Server, running
from ogbench.relabel_utils import relabel_dataset

from genpolicy.config import plugins
from genpolicy.config.schema import build
from genpolicy.dataset.ogbench import OGBenchData
from genpolicy.dataset.ogbench_contents import another_data_set
from genpolicy.errors import UserError

MAZE = "ogbench-pointmaze-medium-navigate"


def of(name, **changes):
    return build(nodes(f"env={name}", *(f"env.{key}={value}" for key, value in changes.items()), only=["env"]).env)


def made(task, trajectories=3, steps=40, near=True) -> dict[str, np.ndarray]:
    """Random walks in OGBench's layout; some rows' states are put where parts of tasks are done."""
    env, rng = task.simulate(), np.random.default_rng(0)
    raw = env.unwrapped
    columns = {name: [] for name in ("observations", "actions", "terminals", "qpos", "qvel", "button_states")}
    buttons = getattr(raw, "_num_buttons", 0)
    for trajectory in range(trajectories):
        observation, _ = env.reset(seed=trajectory)
        for step in range(steps + 1):
            action = rng.uniform(-1, 1, task.action_size).astype(np.float32)
            columns["observations"].append(observation.astype(np.float32))
            columns["actions"].append(action)
            columns["terminals"].append(step == steps)
            columns["qpos"].append(raw.data.qpos.copy())
            columns["qvel"].append(raw.data.qvel.copy())
            columns["button_states"].append(rng.integers(2, size=buttons))
            observation, *_ = env.step(action)
    if not buttons:
        del columns["button_states"]
    columns = {name: np.array(column) for name, column in columns.items()}
    if near:  # the goals of all five tasks are among the rows
        goals = goal_positions(raw)
        rows = rng.integers(len(columns["qpos"]), size=(len(goals), 8))
        for (where, values), chosen in zip(goals, rows, strict=True):
            columns["qpos"][chosen[:, None], where] = values
    return columns


def goal_positions(raw) -> list[tuple[list[int], np.ndarray]]:
    infos = raw.task_infos
    if "goal_xy" in infos[0]:
        ball = 15 if "ball_init_xy" in infos[0] else 0
        return [([ball, ball + 1], np.array(info["goal_xy"])) for info in infos]
    if "goal_xyzs" in infos[0]:
        places = [14 + 7 * cube + axis for cube in range(len(infos[0]["goal_xyzs"])) for axis in range(3)]
        return [(places, info["goal_xyzs"].ravel()) for info in infos]
    return []


def placed(task, columns, monkeypatch, tmp_path):
    """The data set of a file in OGBench's cache, whose home is `tmp_path`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    path = task.data_file(tmp_path)
    assert path == tmp_path / ".ogbench" / "data" / task.url.rpartition("/")[2]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **columns)
    return path


def same_as_the_package(name, monkeypatch, tmp_path) -> int:
    """Compares all five tasks of a data set; the number of transitions that are terminated."""
    task = of(name)
    path, terminated = placed(task, made(task), monkeypatch, tmp_path), 0
    theirs = gymnasium.make(f"{task.recorded_in}-singletask-v0", disable_env_checker=True)
    ours = task.simulate()
    monkeypatch.setattr(task, "simulate", lambda: ours)
    for number in (1, 2, 3, 4, 5):
        theirs.unwrapped._reward_task_id = ours.unwrapped._reward_task_id = number
        expected = ogbench.load_dataset(str(path), add_info=True)
        relabel_dataset(task.recorded_in, theirs, expected)
        data = OGBenchData(directory=tmp_path).load(task)
        assert data.size == 120
        for field, column in {
            "observation": "observations",
            "action": "actions",
            "next_observation": "next_observations",
            "reward": "rewards",
        }.items():
            np.testing.assert_array_equal(data[field], expected[column])
        np.testing.assert_array_equal(data.terminated, expected["masks"] == 0)
        sparse = OGBenchData(directory=tmp_path, sparse=True).load(task)
        np.testing.assert_array_equal(sparse.reward, np.where(expected["masks"] == 0, 0, -1))
        terminated += int(data.terminated.sum())
    return terminated


@pytest.mark.parametrize("name", [MAZE, "ogbench-antsoccer-arena-navigate"])
def test_transitions_are_the_packages(name, monkeypatch, tmp_path):
    assert same_as_the_package(name, monkeypatch, tmp_path) >= 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "least"),
    [("ogbench-cube-double-play", 5), ("ogbench-scene-play", 0), ("ogbench-puzzle-3x3-play", 0)],
)
def test_transitions_of_tables_are_the_packages(name, least, monkeypatch, tmp_path):
    assert same_as_the_package(name, monkeypatch, tmp_path) >= least


def test_the_number_is_the_task(monkeypatch, tmp_path):
    first, fifth = (of(MAZE, task=number) for number in (1, 5))
    placed(first, made(first), monkeypatch, tmp_path)
    one, other = (OGBenchData(directory=tmp_path).load(task) for task in (first, fifth))
    assert (one.terminated != other.terminated).any()
    assert one.terminated.any()
    assert not one.followed()[[39, 79, 119]].any()  # where a trajectory ends
    assert not one.terminated[[39, 79]].all()
    assert one.behaviour.episodes == 0
    held = OGBenchData(directory=tmp_path, held_out=0.34).load(first).held_out
    assert held.size == 40


def test_actions_keep_a_margin_to_their_bounds(monkeypatch, tmp_path):
    task = of(MAZE)
    columns = made(task)
    columns["actions"][3] = -1, 1
    placed(task, columns, monkeypatch, tmp_path)
    plain = OGBenchData(directory=tmp_path).load(task).action
    kept = OGBenchData(directory=tmp_path, action_margin=1e-5).load(task).action
    assert plain[3].tolist() == [-1, 1]
    np.testing.assert_allclose(kept[3], [-0.99999, 0.99999], atol=1e-7)
    assert (kept != plain).any(1).sum() == 1
    narrow = np.full(2, 0.4, np.float32)
    monkeypatch.setattr(type(task), "action_low", -narrow)
    monkeypatch.setattr(type(task), "action_high", narrow)
    columns["actions"] *= 0.4
    placed(task, columns, monkeypatch, tmp_path)
    with pytest.raises(UserError, match=r"dataset.action_margin=0.5: leaves nothing .* less than 0.4"):
        OGBenchData(directory=tmp_path, action_margin=0.5).load(task)


@pytest.fixture
def server(monkeypatch):
    content = io.BytesIO()
    np.savez_compressed(content, **made(of(MAZE)))
    server = Server(content.getvalue(), "pointmaze-medium-navigate-v0.npz")
    monkeypatch.setenv(plugins.ADDRESSES, server.url)
    with running(server):
        yield server


def test_a_download_is_gone_on_with_and_a_damaged_file_refused(server, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    task = of(MAZE, url=server.url)
    server.breaks = [1000, 2000]
    assert OGBenchData(directory=tmp_path).load(task).size == 120
    assert server.asked == [None, "bytes=1000-", "bytes=3000-"]
    path = task.data_file(tmp_path)
    assert path.read_bytes() == server.content
    path.unlink()
    damaged = bytearray(server.content)
    damaged[len(damaged) // 2] ^= 255
    for content in (bytes(damaged), b"<html>Down for maintenance</html>", server.content[:-100]):
        server.content, server.length = content, len(content)
        with pytest.raises(UserError, match="what came is not a readable NPZ file") as refusal:
            OGBenchData(directory=tmp_path).load(task)
        assert "\n" not in str(refusal.value)
        assert not list(path.parent.glob("*.npz*[!k]"))


def test_too_small_a_disk(server, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    server.length = 2**60
    with pytest.raises(UserError, match=r"the disk is too small .* MiB are needed, .* MiB are free"):
        OGBenchData(directory=tmp_path).load(of(MAZE, url=server.url))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c.pop("qpos"), "has no qpos, only: observations"),
        (lambda c: c.update(terminals=np.roll(c["terminals"], 1)), "no whole trajectories"),
        (lambda c: c.update(terminals=2 * c["terminals"].astype(int)), "terminals must be 0 or 1"),
        (lambda c: c.update(observations=np.zeros((123, 29))), r"has shape \[123, 29\].*a file of another task"),
        (lambda c: c.update(qpos=np.zeros((123, 15))), r"qpos has shape \[\d+, 15\]"),
        (lambda c: c.update(actions=c["actions"][:5]), "actions has 5 rows but observations has 123"),
        (lambda c: c["actions"].__setitem__(3, 2), "the action in row 3 leaves the action space"),
        (lambda c: c["observations"].__setitem__(4, np.nan), "observations has a NaN or infinite value in row 4"),
        (lambda c: c.update(qpos=np.array(["x"] * 123)), "qpos holds values of type"),
    ],
)
def test_a_bad_file_is_one_line(change, reason, monkeypatch, tmp_path):
    task = of(MAZE)
    columns = made(task)
    change(columns)
    placed(task, columns, monkeypatch, tmp_path)
    with pytest.raises(UserError, match=reason) as refusal:
        OGBenchData(directory=tmp_path).load(task)
    assert "\n" not in str(refusal.value)
    assert "delete it and get it again" in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("ogbench-pointmaze-large-navigate", {}, r"\d+% of its positions are in walls of pointmaze-large"),
        ("ogbench-pointmaze-medium-stitch", {"steps": 1000}, "trajectories have 1,000 transitions, as in .*-navigate"),
        ("ogbench-pointmaze-medium-navigate", {"steps": 200}, "trajectories have 200 transitions, as in .*-stitch"),
        ("ogbench-pointmaze-medium-navigate", {"steps": 1000}, None),
        ("ogbench-cube-single-noisy", {}, "0% of its actions move the gripper .* as in cube-single-play"),
        ("ogbench-cube-single-play", {"grip": 1.0}, "100% of its actions move the gripper .* as in cube-single-noisy"),
        ("ogbench-cube-single-noisy", {"grip": -1.0}, None),
    ],
)
def test_a_file_of_another_data_set_of_the_same_sizes(name, change, reason):
    """Positions are those of the medium maze."""
    task, rng, steps = of(name), np.random.default_rng(0), change.get("steps", 40)
    free = np.argwhere(of(MAZE).simulate().unwrapped.maze_map == 0)[:, ::-1] * 4.0 - 4
    rows = 3 * (steps + 1)
    columns = {
        "actions": rng.uniform(-1, 1, (rows, task.action_size)),
        "terminals": np.arange(1, rows + 1) % (steps + 1) == 0,
        "qpos": free[rng.integers(len(free), size=rows)] + rng.uniform(-1.9, 1.9, (rows, 2)),
    }
    if "grip" in change:
        columns["actions"][:, -1] = change["grip"]
    found = another_data_set(columns, task)
    assert re.search(reason, found) if reason else found == ""


def test_a_file_of_another_data_set_is_refused(monkeypatch, tmp_path):
    task = of("ogbench-pointmaze-large-navigate")
    placed(task, made(of(MAZE)), monkeypatch, tmp_path)
    with pytest.raises(UserError, match=r"is not pointmaze-large-navigate-v0: .* in walls .*; delete it and get it"):
        OGBenchData(directory=tmp_path).load(task)
    task = of(MAZE, url=task.url)
    with pytest.raises(UserError, match=r"env.url: .* is the data set pointmaze-large-navigate-v0, not pointmaze-medi"):
        OGBenchData(directory=tmp_path).load(task)


@pytest.mark.parametrize("env", ["pointmaze-medium-navigate", "antsoccer-arena-stitch", "cube-single-noisy"])
def test_what_is_sparse_is_not_made_so(env):
    with pytest.raises(UserError, match=f"dataset.sparse=true: the tasks of {env} have one part"):
        nodes(f"env=ogbench-{env}", "dataset.sparse=true")
    assert nodes("env=ogbench-cube-double-play", "dataset.sparse=true").dataset.sparse


def test_data_and_tasks_go_together():
    with pytest.raises(UserError, match="dataset=ogbench does not go with env=hopper-medium-v2: it goes with env=ogb"):
        nodes("env=hopper-medium-v2", "dataset=ogbench")
    with pytest.raises(UserError, match="dataset=d4rl does not go with env=ogbench-scene-play"):
        nodes("env=ogbench-scene-play", "dataset=d4rl")
