"""What is wrong with a command is said before anything is made: stores, data files, simulators, paths."""

import logging
import time

import gymnasium
import numpy as np
import pytest
import torch
from command_line import genpolicy, jobs, typed
from tiny import opened, plain_task, plain_words

from genpolicy.dataset import minari
from genpolicy.env.task import unmade
from genpolicy.errors import UserError
from genpolicy.runs import provenance
from genpolicy.solver.adaptive import Dopri5

pytestmark = pytest.mark.usefixtures("elsewhere")
PASSWORD = "tracking.uri: would store the password with the run"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("tracking.uri=file:///x", "tracking.uri=file:///x: not a store; legal: none, sqlite:///FILE, http"),
        ("tracking.uri=foo://x", "tracking.uri=foo://x: not a store"),
        ("-m seed=0,1 tracking.uri=./mlruns", "tracking.uri=./mlruns: not a store"),
        ("mode=sync tracking.uri=http://u:p@h/", PASSWORD),
        ("mode=report tracking.uri=http://u:p@h/", PASSWORD),
        ("mode=sync tracking.uri=postgresql+psycopg2://u:p/@h/db", f"{PASSWORD}; give it by PGPASSWORD"),
        ("mode=sync tracking.uri='mysql://h/db?a=b&password=p'", f"{PASSWORD}; give it by ~/.my.cnf"),
        ("mode=sync tracking.uri=mssql://u:p@h/db", f"{PASSWORD}; give it by the database driver's own means"),
        ("mode=sync tracking.uri=postgresql://u@h:5432/db", "{0}/outputs: no runs there"),
        ("mode=sync", "{0}/outputs: no runs there; give paths.outputs="),
        ("mode=sync --follow paths.outputs=nowhere", "{0}/nowhere: no runs there; give paths.outputs="),
        ("mode=collect env=swiss-roll collect.path=/", "collect.path: / is a folder; name the file"),
        ("mode=collect env=swiss-roll collect.path=.", "collect.path: {0} is a folder; name the file"),
        ("mode=collect env=gym env.id=.x:N-v0", "env.id: .x:N-v0 cannot be made: '.x' is no package's name"),
        ("mode=collect env=gym env.id=:N-v0", "env.id: :N-v0 cannot be made: "),
        ("mode=collect env=gym env.id=Hopper-v2", "env.id: Hopper-v2 cannot be made: "),
    ],
)
def test_a_bad_command_makes_nothing(words, message, tmp_path):
    result = genpolicy(*words.split())
    assert (result.code, result.err.count("\n"), list(tmp_path.iterdir())) == (1, 1, [])
    assert result.err.startswith("genpolicy: " + message.format(tmp_path)), result.err


@pytest.mark.parametrize("sweep", [[], ["-m", "seed=0,1"], ["-m", "hydra/launcher=local", "seed=0,1"]])
def test_a_fault_in_a_data_file_is_found_before_a_run_is_made(sweep, tmp_path, monkeypatch):
    words = plain_words(tmp_path)
    reads, load = [], minari.Dataset.load
    monkeypatch.setattr(minari.Dataset, "load", lambda *given: reads.append(1) or load(*given))
    with np.load(tmp_path / "data.npz") as file:
        columns = dict(file)
    columns["reward"][7] = np.nan
    np.savez(tmp_path / "data.npz", **columns)
    result = genpolicy(*sweep, *words)
    assert result.code == 1
    assert (
        result.err
        == f"genpolicy: {tmp_path}/data.npz: reward has a NaN or infinite value in row 7; all values must be finite, "
        "as float32, too\n"
    )
    assert len(reads) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["data.npz"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{0} algo=bc chunk.length=1,5,2", "data.npz: no episode has 5 transitions; give a smaller chunk.length or"),
        ("env=multi-goal algo=bc chunk.length=400", "no episode has 400 transitions"),
        ("env=maze2d-umaze-v1 algo=bc chunk.length=300", "no episode has 300 transitions"),
        ("env=maze2d-umaze-v1 algo=bc dataset.held_out=0.001", "holds 0 of the data's 400 episodes out"),
        ("env=swiss-roll algo=bc dataset.held_out=0.00001", "holds 0 of the data's 10000 episodes out"),
        (
            "env=ogbench-pointmaze-medium-navigate algo=bc dataset=ogbench_made dataset.steps=20 chunk.length=30",
            "no episode has 30 transitions",
        ),
    ],
)
def test_episodes_that_are_too_short_or_too_few_are_found_before_a_run_is_made(words, message, tmp_path):
    found = [job for job, _ in jobs("-m", *words.format(" ".join(plain_task(tmp_path))).split())]
    with pytest.raises(UserError, match=message):
        provenance.probe(found)


def test_a_data_set_that_cannot_be_had_is_said_at_once(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "https://nowhere.invalid")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "MINARI_REMOTE"):
        monkeypatch.delenv(name, raising=False)
    words = ["env=gym", "env.id=Pendulum-v1", "dataset=minari", "dataset.id=mujoco/hopper/medium-v0"]
    begun = time.process_time()
    result = genpolicy(*words)
    assert result.err.startswith(
        "genpolicy: dataset.id=mujoco/hopper/medium-v0: not in Minari's cache, and nowhere.inv"
    )
    assert (result.code, result.err.count("\n"), result.out) == (1, 1, "")
    assert not (tmp_path / "outputs").exists()
    assert capfd.readouterr() == ("", "")
    assert time.process_time() - begun < 30
    assert logging.root.manager.disable == logging.NOTSET


@pytest.mark.parametrize("adjoint", [False, True])
def test_a_diverged_field_is_no_assertion(adjoint):
    def field(time, state):
        return (state[0] * torch.nan,)

    with pytest.raises(UserError, match=r"dopri5: its step size became 0 \(underflow in dt.*diverged"):
        Dopri5(adjoint=adjoint).integrate(field, (torch.ones(3),), 0.0, 1.0)


def test_runs_that_have_not_begun_are_no_fault(tmp_path):
    opened(tmp_path).close()
    assert genpolicy("mode=sync", f"paths.outputs={tmp_path}").code == 0
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(("uri", "message"), [("http://127.0.0.1:9", ""), ("sqlite:///text.db", "no MLflow store")])
def test_a_store_that_is_not_there_is_said_though_nothing_is_to_be_sent(uri, message, tmp_path):
    opened(tmp_path).close()
    (tmp_path / "text.db").write_text("text")
    result = genpolicy("mode=sync", f"paths.outputs={tmp_path}", f"tracking.uri={uri}")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert uri in result.err or str(tmp_path / "text.db") in result.err
    assert message in result.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("seed=1 algo=bc seed=2", "seed=1 and seed=2: both say seed; give it once"),
        ("seed=1 ++seed=2", "seed=1 and ++seed=2: both say seed; give it once"),
        ("-m seed=0,1 seed=2", "seed=0,1 and seed=2: both say seed; give it once, as in seed=0,1,..."),
        ("algo=bc algo=gmpo", "algo=bc and algo=gmpo: both say algo; give it once"),
        ("likelihood=rk4 likelihood=euler", "solver@likelihood=rk4 and solver@likelihood=euler: both say likelihood; "),
        (
            "-m hydra/launcher=local launch.time=1:00:00 launch.minutes=3",
            "launch.minutes=60 and launch.minutes=3: both",
        ),
        ("mode=eval checkpoint=a checkpoint=b", "checkpoint=a and checkpoint=b: both say checkpoint; give it once"),
    ],
)
def test_what_is_said_twice_is_not_taken_to_be_the_last(words, message, tmp_path):
    result = typed(*words.split())
    assert (result.code, result.err.count("\n"), list(tmp_path.iterdir())) == (1, 1, [])
    assert result.err.startswith("genpolicy: " + message), result.err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ImportError("No module named 'x'.", "You could install it"), "No module named 'x'. You could install it"),
        (gymnasium.error.Error("one\n  line"), "one line"),
        (ValueError(), "ValueError"),
        (OSError(2, "No such file", "x"), "FileNotFoundError: [Errno 2] No such file: 'x'"),
    ],
)
def test_an_error_of_several_sentences_is_no_tuple(error, said):
    assert str(unmade("env.id", "N-v0", error)) == f"env.id: N-v0 cannot be made: {said}"
