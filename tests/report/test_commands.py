"""The command that a report gives for a run makes that very run."""

import shlex
from pathlib import Path

import pytest
from command_line import jobs
from study import fill

from genpolicy.report.commands import Commands
from genpolicy.report.sources import of_directories
from genpolicy.runs.run import find_runs

CONFIGURATIONS = [
    ["env=hopper-medium-v2", "algo=gmpo"],
    ["env=hopper-medium-v2", "algo=gmpo", "algo.beta=2.5", "solver=rk4", "network.hidden=[32,16]", "tuned=none"],
    ["env=maze2d-umaze-v1", "algo=td3_bc", "online.steps=6000", "online.noise=0.1", "device=cpu"],
    ["env=swiss-roll", "algo=gmpg", "model=vpsde", "critic=iql_mish", "likelihood=dopri5", "threads=2"],
    ["env=gym", "env.id=Pendulum-v1", "dataset=npz", "dataset.path=my data, 2.npz", "network=mlp", "algo=fql"],
    ["env=ogbench-cube-single-play", "env.task=3", "algo=qc", "chunk.length=5", "eval.steps=[1,2]"],
    ["env=antmaze-umaze-v0", "algo=idql", "budget=0.1", "init.behaviour=null", "study=other"],
]


@pytest.mark.parametrize("number", range(len(CONFIGURATIONS)))
def test_the_command_makes_the_run(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = CONFIGURATIONS[number]
    Path("my data, 2.npz").touch()
    words = [f"'{word}'" if "," in word and "[" not in word else word for word in words]
    words = [word.replace("'dataset.path=my data, 2.npz'", "dataset.path='my data, 2.npz'") for word in words]
    outputs = tmp_path / ("outputs" if number else "other runs")
    (directory,) = fill(outputs, [words], [7], lambda words, seed: 1.0)
    study = directory.parents[2]
    (result,) = of_directories(study, find_runs(outputs)).results
    command = shlex.split(Commands(study.name, {"outputs": str(outputs), "data": str(outputs)}).of(result))
    assert command[0] == "genpolicy"
    ((job, _),) = jobs(*command[1:])
    assert job.directories == [directory]
    assert job.config.paths.data == str(outputs)
    assert (job.config.device, job.config.threads) == (result.settings["device"], int(result.settings["threads"]))
    assert job.config.eval.steps == ([1, 2] if "eval.steps=[1,2]" in words else [])
    assert len(command) < 20  # and not all of its settings


def test_a_run_that_no_words_make_has_no_command(tmp_path):
    (directory,) = fill(tmp_path, [CONFIGURATIONS[0]], [0], lambda words, seed: 1.0)
    for before, after in (("genpolicy.algo.gmpo.GMPO", "my.Own"), ("beta: 16.0", "beta: 16.0\n    gone: 1")):
        config = directory / "config.yaml"
        text = config.read_text()
        assert before in text
        config.write_text(text.replace(before, after))
        (result,) = of_directories(tmp_path / "default", [directory]).results
        assert Commands("default", {}).of(result) == ""
        config.write_text(text)
