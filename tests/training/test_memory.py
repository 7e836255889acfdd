"""Networks that do not fit into memory are refused before a run is made; what they take is what torch allocates."""

import json
import time

import pytest
import torch
from command_line import genpolicy, jobs, tried
from omegaconf import OmegaConf
from tiny import words

from genpolicy.config.schema import build
from genpolicy.runs import provenance
from genpolicy.training import memory, setup


@pytest.fixture
def gibibyte(monkeypatch):
    """A machine of little memory; nothing is begun on it."""

    def accepted(jobs):
        raise AssertionError("accepted")

    monkeypatch.setattr(provenance, "probe", accepted)
    monkeypatch.setattr(memory, "here", lambda device: 2.0**30)


LARGE = "network=mlp network.hidden=[9000,9000]"  # 81 million weights


@pytest.mark.parametrize(
    ("given", "lower"),
    [
        (LARGE, "network.hidden"),
        ("network.hidden=[16384,8192]", "network.hidden"),
        ("critic.hidden=[5000,5000]", "critic.hidden or critic.ensemble"),
        ("critic.hidden=[900,900] critic.ensemble=50", "critic.hidden or critic.ensemble"),
        ("algo=fql network=mlp algo.policy_hidden=[9000,9000]", "algo.policy_hidden"),
        ("network=mlp network.hidden=[1000,1000,1000,1000] seeds=" + ",".join(map(str, range(20))), "network.hidden"),
        (f"-m hydra/launcher=local {LARGE} seed=0,1 launch.parallel=1", "network.hidden"),
        (f"-m {LARGE} algo=bc,gmpo", "network.hidden"),
    ],
)
def test_networks_that_do_not_fit_are_refused_before_a_run_is_made(given, lower, gibibyte, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = genpolicy("env=swiss-roll", *given.split())
    assert (result.code, result.err.count("\n"), list(tmp_path.iterdir())) == (1, 1, []), result.err
    assert result.err.startswith("genpolicy: the networks take ")
    assert "more than there is (1.0 GiB)" in result.err
    assert result.err.endswith(f"; lower {lower}\n"), result.err


def test_what_fits_is_not_looked_at_or_accepted(gibibyte, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = [job for name in ("fql", "qgpo", "gtp") for job, _ in jobs(f"algo={name}", "env=swiss-roll", "tuned=none")]
    monkeypatch.setattr(memory, "_needed", None)
    memory.check(found)  # of their default settings no network is made


def test_runs_side_by_side_share_the_memory(monkeypatch):
    monkeypatch.setattr(memory, "here", lambda device: 2.0**34)
    sweep = ["-m", "hydra/launcher=local", "env=swiss-roll", *LARGE.split(), "seed=0,1"]
    assert tried(*sweep, "launch.parallel=2")[0].code == 0
    assert "more than there is (1.0 GiB)" in tried(*sweep, "launch.parallel=16")[0].err
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    assert tried(*sweep, "launch.runs_per_gpu=2")[0].code == 0
    assert "more than there is (1.0 GiB)" in tried(*sweep, "launch.runs_per_gpu=16")[0].err


def test_the_memory_of_slurms_jobs_is_what_the_command_asks_for(gibibyte, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    sweep = ["-m", "hydra/launcher=slurm", "env=swiss-roll", *LARGE.split()]
    result, started = tried(*sweep, "launch.gpus=0", "launch.memory=3")
    assert "more than there is (2.8 GiB)" in result.err
    assert started == []
    result, started = tried(*sweep, "launch.gpus=0", "launch.memory=30", "launch.runs_per_gpu=10")
    assert "more than there is (2.8 GiB)" in result.err
    for more in (["launch.gpus=0", "launch.memory=30"], ["launch.gpus=1", "launch.memory=3"]):
        assert tried(*sweep, *more)[0].code == 0


@pytest.mark.parametrize("sweeper", ["", "hydra/sweeper=optuna"])
def test_slurms_jobs_need_no_gpu_where_the_command_is_given(sweeper, monkeypatch, tmp_path):
    """Of a search the memory, too, is that of its jobs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(memory, "here", lambda device: 2.0**30)
    started = []
    monkeypatch.setattr("genpolicy.launch.slurm.launch", lambda jobs, name: started.extend(jobs))
    words = ["-m", "hydra/launcher=slurm", "env=swiss-roll", "device=cuda", "compile=cudagraphs", "launch.memory=30"]
    genpolicy(*words, *LARGE.split(), *filter(None, [sweeper]), "algo.beta=1,2")
    assert started


WIDE = "network.hidden=[128,128]", "critic.hidden=[128,128]"


@pytest.mark.parametrize("algo", ["gmpo", "gtp", "fql", "srpo", "td3_bc"])
def test_what_is_counted_is_what_is_there(algo, tmp_path):
    """Parameters of the real networks, and gradients and moments after an update of each phase."""
    ((job, _),) = jobs(f"algo={algo}", "tuned=none", "network=mlp", *WIDE)
    parts = {name: OmegaConf.to_container(job.config[name]) for name in memory.PARTS}
    size, count = memory._needed(json.dumps(parts, sort_keys=True))
    algorithm = setup.fresh_algorithm(job.config, build(job.config.env), torch.device("cpu"))
    real = sum(parameter.numel() for parameter in algorithm.parameters())
    assert count == pytest.approx(real, rel=0.05)
    trained = {}
    for phase in algorithm.phases:
        for update in phase.updates.values():
            for parameter in update.parameters:
                parameter.grad = torch.zeros_like(parameter)
            update.optimizer.step()
            for parameter, state in update.optimizer.state.items():
                trained[parameter, update] = (
                    parameter.grad.nbytes + state["exp_avg"].nbytes + state["exp_avg_sq"].nbytes
                )
    saved = sum(parameter.nbytes for parameter in algorithm.parameters()) + sum(trained.values()) * 2 // 3
    assert size == pytest.approx(4 * real + sum(trained.values()) + saved, rel=0.05)


def test_networks_as_large_as_the_settings_allow_are_counted_quickly(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begun = time.process_time()
    result = genpolicy("env=swiss-roll", "network=mlp", f"network.hidden={[16384] * 200}".replace(" ", ""))
    assert result.err.endswith("; lower network.hidden\n")
    assert time.process_time() - begun < 30
    assert list(tmp_path.iterdir()) == []


def test_the_memory_there_is():
    assert 2**28 < memory.here("cpu") < 2**50


def test_an_ordinary_run_is_trained(tmp_path, no_figures):
    assert genpolicy(*words(tmp_path, "algo.critic_steps=2", "algo.policy_steps=2")).code == 0
