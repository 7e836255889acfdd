"""A run is one of its data: what has become other data since is noticed at every opening, and nothing is changed."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
from command_line import genpolicy, jobs
from tiny import only_run, opened, plain_words

from genpolicy.algo.update import Update
from genpolicy.dataset.dataset import Dataset
from genpolicy.errors import UserError
from genpolicy.launch import sweep
from genpolicy.runs import provenance

SHORT = ("algo.critic_steps=4", "algo.policy_steps=4", "eval.per_phase=1", "eval.final_episodes=2", "eval.episodes=2")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The words of a command, its data file, and a folder with its finished run."""
    base = tmp_path_factory.mktemp("made")
    words = [word for word in plain_words(base, *SHORT) if not word.startswith("paths.outputs=")]
    result = genpolicy(*words, f"paths.outputs={base / 'outputs'}")
    assert result.code == 0, result.err
    return words, base / "data.npz", base / "outputs"


@pytest.fixture
def file(made):
    """The data file, put back afterwards."""
    path = made[1]
    content, known = path.read_bytes(), path.stat()
    yield path
    path.write_bytes(content)
    os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))


@pytest.fixture
def words(made, file, tmp_path):
    """The command, for a folder of its own."""
    return [*made[0], f"paths.outputs={tmp_path / 'outputs'}"]


@pytest.fixture
def run(made, tmp_path):
    """The finished run in that folder."""
    shutil.copytree(made[2], tmp_path / "outputs")
    return only_run(tmp_path / "outputs")


def change(path):
    """Half of the rows, with negated actions."""
    with np.load(path) as file:
        columns = {name: file[name][::2] * (-1 if name == "action" else 1) for name in file}
    np.savez(path, **columns)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.name.endswith("lock")}


def refused(outputs, *words):
    before = contents(outputs)
    result = genpolicy(*words)
    assert (result.code, result.err.count("genpolicy: ")) == (1, 1), result.err  # beside what the data are like
    assert contents(outputs) == before
    known = json.loads((only_run(outputs) / "data.json").read_text())
    assert f": its data have changed: it was made of {known['digest']}, and " in result.err
    assert "put the old data back, or overwrite=true trains anew" in result.err


def test_every_opening_of_a_finished_run_notices_it(words, file, run, tmp_path):
    outputs = tmp_path / "outputs"
    assert "finished already" in genpolicy(*words).out
    change(file)
    refused(outputs, *words)
    refused(outputs, *words, "eval.final_episodes=3")
    refused(outputs, "mode=eval", f"checkpoint={run}", "eval.final_episodes=3")
    refused(outputs, "mode=inspect", f"checkpoint={run}")
    refused(outputs, "mode=export", f"checkpoint={run}", "export.format=torch_export")
    refused(outputs, "-m", *words, "seed=0,1")
    refused(outputs, "-m", "hydra/launcher=local", *words, "seed=0,1")
    refused(outputs, *words, "seeds=[0,1]")


def test_a_stopped_run_goes_on_with_its_own_data_only(words, file, tmp_path, monkeypatch):
    real, calls = Update.__call__, []

    def disturbed(update, *arguments):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(update, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Update, "__call__", disturbed)
        assert genpolicy(*words).code == 143
    content = file.read_bytes()
    change(file)
    refused(tmp_path / "outputs", *words)
    file.write_bytes(content)  # the old data, at another time
    assert genpolicy(*words).code == 0
    noted = json.loads((only_run(tmp_path / "outputs") / "data.json").read_text())
    assert noted["file"] == [str(file), file.stat().st_size, file.stat().st_mtime_ns]


def test_an_unchanged_file_is_not_read_again(words, run, monkeypatch):
    monkeypatch.setattr(Dataset, "load", None)
    assert "finished already" in genpolicy(*words).out
    several = [job for job, _ in jobs("-m", *words, "seed=0,1")]
    assert len(sweep.missing(several, sweep.Sweep.of(several))) == 1


def test_the_digest_in_the_status_of_an_older_run_is_held_against_them_too(words, file, run, tmp_path):
    digest = json.loads((run / "data.json").read_text())["digest"]
    (run / "data.json").unlink()
    assert "finished already" in genpolicy(*words).out
    change(file)
    result = genpolicy(*words)
    assert result.code == 1
    assert f"it was made of {digest}, and {file} has " in result.err


def test_overwriting_takes_the_new_data(words, file, run):
    before = json.loads((run / "data.json").read_text())
    change(file)
    assert genpolicy(*words, "overwrite=true").code == 0
    assert json.loads((run / "data.json").read_text())["digest"] != before["digest"]
    assert "finished already" in genpolicy(*words).out


class Known:
    """Transitions of known digests."""

    source = "/data/x.npz"

    def __init__(self, digest, held_out=None):
        self._digest, self.held_out = digest, held_out and Known(held_out)

    def digest(self):
        return self._digest


def test_what_is_held_out_counts_and_a_file_that_is_read_differently_is_said_to_be_so(tmp_path):
    run = opened(tmp_path)
    run.close()
    stamp = ["/data/x.npz", 5, 6]
    provenance.keep(run.directory, Known("0a1b2c3d", "4e5f6a7b"), stamp)
    provenance.compare(run.directory, Known("0a1b2c3d", "4e5f6a7b"), None)
    with pytest.raises(UserError, match=r"was made of 4e5f6a7b, and /data/x.npz has None now; put the old data back"):
        provenance.compare(run.directory, Known("0a1b2c3d"), None)
    with pytest.raises(UserError, match=r"this version of genpolicy reads ffffffff from the same file, /data/x.npz"):
        provenance.compare(run.directory, Known("ffffffff", "4e5f6a7b"), stamp)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["here", "local"])
def test_a_damaged_note_stops_its_own_run_and_no_other(words, run, launcher):
    (run / "data.json").write_text("[]")
    result = genpolicy("-m", f"hydra/launcher={launcher}", *words, "seed=0,1")
    assert result.code == 1
    assert "data.json: not what genpolicy writes there" in result.err
    assert json.loads((run.with_name("seed1") / "status.json").read_text())["state"] == "finished"
