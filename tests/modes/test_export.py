"""mode=export: the file is the policy, says what it is, and is played without torch."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import gymnasium
import numpy as np
import onnxruntime
import pytest
import torch
from command_line import genpolicy
from tiny import only_run, plain_words

from genpolicy.api import load_policy
from genpolicy.dataset.user_file import OwnFile
from genpolicy.env.gym import Gym
from genpolicy.export import graph

PAGE = (Path(__file__).resolve().parents[2] / "docs/export.md").read_text()
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
WITHOUT = "import sys\nsys.modules['torch'] = sys.modules['genpolicy'] = None  # importing either raises\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    outputs = tmp_path_factory.mktemp("export")
    small = ("eval.per_phase=1", "algo.critic_steps=20", "algo.policy_steps=150", "algo.policy_lr=3e-3")
    small += ("network=mlp", "solver=euler", "eval.log_prob_actions=2", "likelihood=euler", "likelihood.steps=1")
    result = genpolicy(*plain_words(outputs, *small))
    assert result.code == 0, result.err
    return only_run(outputs)


def export(run, *words):
    return genpolicy("mode=export", f"checkpoint={run}", *words)


@pytest.fixture(scope="module")
def written(run):
    result = export(run)
    assert result.code == 0, result.err
    assert result.err == ""
    assert result.out.splitlines()[-2:] == [f"{run}/export/policy.onnx", f"{run}/export/policy.onnx.json"]
    assert re.search(r"at 1,000 observations of the data the largest difference is \S+, \S+ of the range", result.out)
    assert re.search(r"ONNX Runtime +\d+\.\d{3}\s+genpolicy +\d+\.\d{3}", result.out)
    return run / "export/policy.onnx"


def test_the_file_is_the_policy(run, written):
    session, policy = onnxruntime.InferenceSession(written), load_policy(run)
    draw = np.random.default_rng(0)
    assert {given.name: given.shape for given in session.get_inputs()} == {
        "observation": ["batch", 3],
        "noise": ["batch", 1, 1, 1],
    }
    for size in (1, 300):
        observation = draw.uniform(-1, 1, (size, 3)).astype(np.float32)
        noise = draw.standard_normal((size, 1, 1, 1), dtype=np.float32)
        (action,) = session.run(["action"], {"observation": observation, "noise": noise})
        expected = policy.module(torch.from_numpy(observation), torch.from_numpy(noise)).numpy()
        assert action.shape == (size, 1)
        assert np.abs(action - expected).max() < 4e-4  # of a range of 4
    assert expected.std() > 0.1


def test_the_file_says_what_it_is(run, written):
    about = json.loads(onnxruntime.InferenceSession(written).get_modelmeta().custom_metadata_map["genpolicy"])
    assert about == json.loads((run / "export/policy.onnx.json").read_text())
    assert about["task"] == {"name": "Pendulum-v1", "simulator": "Pendulum-v1", "max_episode_steps": 5}
    assert (about["algorithm"], about["model"], about["chunk"]) == ("gmpo", "gvp", {"length": 1, "execute": 1})
    assert about["run"]["id"] == re.search(r"^id: (\w+)", (run / "config.yaml").read_text(), re.MULTILINE)[1]
    assert about["run"]["commit"] == json.loads((run / "status.json").read_text())["commit"]
    assert about["checkpoint"] == {"file": "last.pt", "updates": 170}
    assert about["draws"] == {
        "noise": {"shape": [None, 1, 1, 1], "dtype": "float32", "distribution": "standard normal"}
    }
    assert about["action"] == {
        "shape": [None, 1],
        "dtype": "float32",
        "unit": "the simulator's",
        "low": [-2.0],
        "high": [2.0],
    }
    with np.load(run.parents[3] / "data.npz") as data:
        seen = data["obs"].astype(np.float32)
    assert about["observation"]["shape"] == [None, 3]
    np.testing.assert_allclose(about["observation"]["data"]["low"], seen.min(0))
    np.testing.assert_allclose(about["observation"]["data"]["high"], seen.max(0))
    assert about["sampling"] == {
        "solver": {"option": "euler", "steps": 2, "power": 1.5, "recompute": False},
    }
    parity = about["parity"]
    assert (parity["observations"], parity["observations_from"], parity["ties"]) == (1000, "the data", 0)
    assert 0 < parity["share"] < 1e-4
    assert parity["largest"] == pytest.approx(4 * parity["share"])
    assert about["latency"]["ms_per_action"].keys() == {"ONNX Runtime", "genpolicy"}


def test_the_example_of_the_page_plays_it_without_torch(run, written, tmp_path):
    shutil.copy(written, tmp_path)
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT + EXAMPLE], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    mean, std = map(float, re.fullmatch(r"(\S+) ± (\S+)\n", told.stdout).groups())
    policy, returns = load_policy(run), []
    env = gymnasium.make("Pendulum-v1", max_episode_steps=5)
    for episode in range(100):  # from the same states
        (observation, _), total, ended = env.reset(seed=episode), 0.0, False
        while not ended:
            observation, reward, terminated, truncated, _ = env.step(policy.act(observation, seed=episode))
            total, ended = total + reward, terminated or truncated
        returns.append(total)
    assert mean == pytest.approx(np.mean(returns), abs=0.5)  # actions change a return by some 0.5
    assert std == pytest.approx(np.std(returns), rel=0.1)


def test_the_example_is_short():
    assert len([line for line in EXAMPLE.splitlines() if line.strip()]) <= 30


def test_a_program_of_torch_for_a_fixed_batch_without_the_data_or_a_registered_environment(run, tmp_path):
    no_data = mock.patch.object(OwnFile, "location", return_value=tmp_path / "none.npz")
    with no_data, mock.patch.object(Gym, "registered_as", None):
        result = export(run, "export.format=torch_export", "export.batch=3", f"export.path={tmp_path}/a/policy.pt2")
    assert result.code == 0, result.err
    assert "at 1,002 observations of standard normal draws" in result.out
    extra = {"genpolicy.json": ""}
    program = torch.export.load(tmp_path / "a/policy.pt2", extra_files=extra)
    about = json.loads(extra["genpolicy.json"])
    assert about["task"]["simulator"] is None
    assert about["action"]["unit"] == "the task's"
    assert about["observation"] == {
        "shape": [3, 3],
        "dtype": "float32",
        "unit": "the task's",
        "data": {"low": None, "high": None},
    }
    assert about["latency"]["observations"] == 3
    observation, noise = torch.rand(3, 3), torch.randn(3, 1, 1, 1)
    expected = load_policy(run).module(observation, noise)
    torch.testing.assert_close(program.module()(observation=observation, noise=noise), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("", r"export/policy\.onnx: is there already; delete it, or name another file by export\.path="),
        ("export.path=x.onnx solver=dopri5", r"solver: chooses its steps by .*; legal: solver=ab2\|"),
        ("export.path=x.onnx select=greedy select.num_candidates=0", "select.num_candidates: 0 must be >= 1"),
        ("export.path=x.onnx chunk.execute=2", "chunk.execute=2: at most chunk.length=1"),
        ("export.path=x.onnx chunk.length=1", "chunk.length: chunks are as long as those that the run was trained"),
        ("export.path=.", "is a folder; name the file that is to be written"),
        (f"export.path={256 * 'n'}/x.onnx", r"nnn\.\.\.: a name of 256 bytes in a path; legal: at most 255"),
        (f"export.path={255 * 'n'}", r"n\.lock: cannot be written: File name too long"),
        (f"checkpoint={256 * 'n'}", r"nnn\.\.\.: a name of 256 bytes in a path; legal: at most 255"),
        ("checkpoint={run}/policy.pt export.path=x.onnx select=greedy", "policy.pt: holds no critic, by which `sel"),
        ("export.format=tflite", "export.format: tflite is none of onnx, torch_export"),
        ("export.batch=0", "export.batch: 0 must be >= 1"),
        ("likelihood=rk4", "likelihood=rk4: mode=export takes no such setting"),
        ("critic=iql", "critic=iql: mode=export takes no such setting"),
        ("device=cuda", "device=cuda: mode=export computes on the CPU; leave device out"),
    ],
)
def test_what_cannot_be_is_one_line(run, written, elsewhere, tmp_path, words, reason):
    before = written.read_bytes()
    result = export(run, *words.format(run=run).split())
    assert result.code == 1
    assert result.err.count("\n") == 1
    assert re.search(reason, result.err), result.err
    assert list(tmp_path.iterdir()) == []
    assert written.read_bytes() == before


class Wrong(graph.TorchGraph):
    """Gives the same action everywhere."""

    def __init__(self, program, threads):
        self.inputs = {"observation": (None, 3), "noise": (None, 1, 1, 1)}

    def __call__(self, inputs):
        return np.full((len(inputs["observation"]), 1), self.action, np.float32)


@pytest.mark.parametrize("action", [0.0, np.nan])
def test_what_is_not_the_policy_is_not_written(run, elsewhere, tmp_path, action, monkeypatch):
    monkeypatch.setattr(graph, "trace", lambda *given: None)
    monkeypatch.setitem(graph.FORMATS, "torch_export", Wrong)
    monkeypatch.setattr(Wrong, "action", action, raising=False)
    result = export(run, "export.format=torch_export", "export.path=new/policy")
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert re.search(r"new/policy: not written: its actions would differ from the policy's by up to", result.err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["/proc/none/policy.onnx", "/dev/null/policy.onnx"])
def test_where_nothing_can_be_written_no_graph_is_made(run, elsewhere, path, monkeypatch):
    monkeypatch.setattr(graph, "trace", lambda *given: pytest.fail("a graph was made"))
    result = export(run, f"export.path={path}")
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert path.rpartition("/")[0] in result.err


def test_without_a_checkpoint_or_the_mode(elsewhere):
    assert "mode=export needs checkpoint=<run directory, checkpoint or MLflow run id>" in genpolicy("mode=export").err
    assert "export.batch=3: goes with mode=export" in genpolicy("export.batch=3").err


def test_without_the_packages_it_says_which(run, tmp_path):
    find = importlib.util.find_spec

    def missing(name, *more):
        return None if name in ("onnxscript", "onnxruntime") else find(name, *more)

    with mock.patch.object(importlib.util, "find_spec", missing):
        result = export(run, f"export.path={tmp_path}/x.onnx")
    assert (result.code, result.out) == (1, "")
    assert "takes onnxscript, onnxruntime, not installed: pip install 'genpolicy[export]'" in result.err
