"""mode=inspect: what is drawn is right by other libraries and closed forms, and the files are there."""

import math
import struct
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from command_line import genpolicy, jobs
from scipy.spatial import KDTree
from tiny import only_run, plain_words

from genpolicy.api import restored
from genpolicy.config.schema import build
from genpolicy.dataset.sequences import Sequences
from genpolicy.evaluation import inspection
from genpolicy.evaluation.inspection import Inspection
from genpolicy.runs.run import Run
from genpolicy.training import setup

SHORT = ("algo.critic_steps=3", "algo.policy_steps=3", "eval.final_episodes=1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The directory of a run of GMPO on random data of one action dimension, in episodes of four steps."""
    outputs = tmp_path_factory.mktemp("inspected")
    result = genpolicy(*plain_words(outputs, *SHORT))
    assert result.code == 0, result.err
    return only_run(outputs)


@pytest.fixture
def inspected(trained) -> Inspection:
    config = Run(trained).config
    task = build(config.env)
    algorithm = setup.fresh_algorithm(config, task, torch.device("cpu"))
    setup.restore(algorithm, trained / "last.pt")
    return Inspection.of(algorithm.eval(), setup.load(config, task, torch.device("cpu")), [7, 123], 4, [], 3)


def raw(trained) -> dict[str, np.ndarray]:
    """The columns of the data's file."""
    with np.load(Run(trained).config.dataset.path) as data:
        return dict(data)


def test_the_files_of_a_run(trained):
    result = genpolicy("mode=inspect", f"checkpoint={trained}", "inspect.count=2")
    assert result.code == 0, result.err
    names = [f"inspect-{name}.png" for name in ("samples", "density", "trajectories", "values")]
    assert result.out.split() == [str(trained / "figures" / name) for name in names]
    for name in names:
        content = (trained / "figures" / name).read_bytes()
        width, height = struct.unpack(">II", content[16:24])
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        assert min(width, height) > 300


def test_neighbours_are_those_of_a_tree(trained, inspected, monkeypatch):
    monkeypatch.setattr(inspection, "NEIGHBOURS", 20)
    data = raw(trained)
    scaled = data["obs"] / data["obs"].std(0, ddof=1)
    distance, index = KDTree(scaled).query(scaled[123], 20)
    found, farthest = inspected._neighbours(torch.as_tensor(data["obs"][123], dtype=torch.float32))
    np.testing.assert_allclose(found, data["action"][index], atol=1e-5)
    assert farthest == pytest.approx(distance[-1] / np.sqrt(3), rel=1e-4)


def test_a_slice_is_the_density_that_the_policy_gives(trained, inspected):
    data, points = raw(trained), np.linspace(-0.9, 0.9, 7)[:, None]
    observation, action = inspected._here
    np.testing.assert_allclose(observation, data["obs"][[7, 123]], atol=1e-5)
    np.testing.assert_allclose(action, data["action"][[7, 123]], atol=1e-5)
    expected = restored(Run(trained).config, trained / "last.pt").log_prob(
        np.tile(data["obs"][7], (7, 1)).astype(np.float32), points.astype(np.float32)
    )
    np.testing.assert_allclose(inspected._slice(observation[0], action[0], points), expected, rtol=1e-5)


def test_a_density_is_drawn_where_it_was_taken(inspected, monkeypatch):
    inspected = replace(inspected, dimensions=[0, 1])
    inspected.__dict__["_here"] = torch.zeros(2, 3), torch.zeros(2, 2)
    monkeypatch.setattr(Inspection, "_reach", lambda *_: (np.array([-1.0, 2.0]), np.array([3.0, 8.0])))
    monkeypatch.setattr(Inspection, "_slice", lambda _, observation, action, shown: 10 * shown[:, 0] + shown[:, 1])
    image = inspected.density().axes[0].images[0]
    left, right, bottom, top = image.get_extent()
    values = image.get_array()
    for row, column in ((0, 0), (0, -1), (-1, 0)):
        x = left + (np.arange(31)[column] + 0.5) * (right - left) / 31
        y = bottom + (np.arange(31)[row] + 0.5) * (top - bottom) / 31
        assert values[row, column] == pytest.approx(10 * x + y)


@pytest.mark.parametrize("where", [0.0, math.inf])
def test_what_has_no_density_is_drawn_at_the_floor(inspected, monkeypatch, where):
    inspected = replace(inspected, dimensions=[0, 1])
    inspected.__dict__["_here"] = torch.zeros(2, 3), torch.zeros(2, 2)
    monkeypatch.setattr(Inspection, "_reach", lambda *_: (np.array([-1.0, 2.0]), np.array([3.0, 8.0])))
    monkeypatch.setattr(
        Inspection, "_slice", lambda _, observation, action, shown: np.where(shown[:, 0] > where, 1.0, -np.inf)
    )
    image = inspected.density().axes[0].images[0]
    floor, top = image.get_clim()
    assert floor == top - inspection.DENSITY_FLOOR
    assert {*np.ma.filled(image.get_array(), np.nan).flat} == ({floor, top} if where == 0 else {floor})


def test_the_episode_and_what_it_earned(trained, inspected):
    assert inspected._episode.tolist() == [12, 13, 14, 15]
    chunks = replace(inspected, data=Sequences.of_transitions(inspected.data, 3, 3, 0.9, masked=True).whole())
    assert chunks._episode.tolist() == [12, 13]
    np.testing.assert_allclose(chunks._earned(), inspected._earned()[:2])  # to the episode's end, where no chunk begins
    rewards = raw(trained)["reward"][12:16]
    polynomial = [np.polyval(rewards[begin:][::-1], 0.9) for begin in range(4)]
    rewards, terminated = torch.as_tensor(rewards), torch.zeros(4, dtype=torch.bool)
    np.testing.assert_allclose(inspection._returns(rewards, terminated, 0.9), polynomial, rtol=1e-6)
    parts = [inspection._returns(part, torch.zeros(len(part)), 0.9) for part in (rewards[:2], rewards[2:])]
    terminated[1] = True  # as on OGBench, whose recorded episodes go on
    np.testing.assert_allclose(inspection._returns(rewards, terminated, 0.9), np.concatenate(parts), rtol=1e-6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["inspect.rows=[500]"], "inspect.rows=[500]: this run's are 0 to 499"),
        (["inspect.dimensions=[1]"], "inspect.dimensions=[1]: this run's are 0 to 0"),
        (["inspect.dimensions=[0,0]"], "inspect.dimensions=[0, 0]: one or two different ones"),
        (["inspect.episode=125"], "inspect.episode=125: the data have 0 to 124"),
    ],
)
def test_what_a_run_does_not_have_is_one_line(trained, words, said):
    result = genpolicy("mode=inspect", f"checkpoint={trained}", *words)
    assert (result.code, result.out) == (1, "")
    assert result.err == f"genpolicy: {said}\n"


@pytest.mark.slow
def test_what_a_policy_has_not_is_said_and_chunks_are_drawn(tmp_path):
    words = ("algo=fql", "chunk.length=3", "algo.steps=3")
    words = plain_words(tmp_path, "eval.final_episodes=1", *words)
    words = [word for word in words if not word.startswith(("algo.critic", "algo.policy"))]
    assert (result := genpolicy(*words)).code == 0, result.err
    result = genpolicy(
        "mode=inspect", f"checkpoint={only_run(tmp_path)}", "inspect.dimensions=[0,2]", "inspect.count=1"
    )
    assert result.code == 0, result.err
    assert result.out.splitlines()[1:3] == ["density: this policy has none", "trajectories: this policy solves no ODE"]
    assert result.out.splitlines()[3].endswith("inspect-values.png")


def test_a_problem_without_observations_is_drawn(tmp_path):
    [(job, _)] = jobs(
        "env=swiss-roll", "algo=gmpo", "tuned=none", "network=mlp", "network.hidden=[8]", "solver.steps=2"
    )
    config, device = job.config, torch.device("cpu")
    config.likelihood.steps = 2
    task = build(config.env)
    data = setup.load(config, task, device)
    inspected = Inspection.of(setup.fresh_algorithm(config, task, device).eval(), data, [3], 1, [], 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = list(inspected.draw(lambda name: tmp_path / f"{name}.png"))
    assert [name for _, name in drawn] == ["samples", "density", "trajectories", "values"]
    actions, distance = inspected._neighbours(torch.zeros(0))
    assert (len(actions), distance) == (inspection.NEIGHBOURS, 0.0)
