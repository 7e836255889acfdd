"""Folders with spaces, brackets, quotes and other signs that mean something to Hydra, a shell, SQLAlchemy or SLURM."""

import errno
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import sqlalchemy
from command_line import genpolicy, jobs
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from patience import wait_until
from store import SQLITE, ask, journaled, stored
from tiny import ended, gaussian_words, only_run, opened

from genpolicy.config.arguments import quoted, shell
from genpolicy.errors import UserError
from genpolicy.runs.run import Run
from genpolicy.system import sqlite
from genpolicy.tracking import trackers

ODD = ["proj (copy), ä", "a=b", "[1,2]", "{a: 1}", "$HOME", 'it\'s "so"', "back\\slash\\", "100%41 #?", "two\nlines"]
ALL = 'a=b,[c] {d: 1} $HOME it\'s "so" (e)\\ 100%41?#~*ä\nend\\'
SIGNS = st.text("ab01'\"\\=[](){}$,:;#%?*~+@!&|<>/ .-\n\té\x1b", max_size=9).filter(lambda text: "${" not in text)


@given(SIGNS | st.sampled_from(["null", "True", "nan", "1e5", "007", "", *ODD]))
def test_hydra_reads_a_quoted_string_as_itself(text):
    parser = OverridesParser.create()
    override = parser.parse_override(f"key={quoted(text)}")
    assert not override.is_sweep_override()
    assert override.value() == text
    again = f"key={override.get_value_element_as_str()}"  # as a sweep hands it to its jobs
    assert parser.parse_override(again).value() == text


def test_what_needs_no_quotes_has_none():
    assert [quoted(text) for text in ("default", "/a/b-c_1.5+d", "outputs")] == ["default", "/a/b-c_1.5+d", "outputs"]


@given(st.lists(SIGNS, min_size=1, max_size=5))
def test_bash_reads_words_as_themselves(words):
    line = shell(*words)
    assert line.isprintable()
    said = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True).stdout
    assert said.decode().split("\0")[:-1] == words


@given(SIGNS.filter(bool))
def test_sqlalchemy_finds_the_file_of_a_uri(text):
    file = Path("/runs", text.replace("/", "_"), "mlflow.db")
    uri = sqlite.uri_of(file)
    assert "\n" not in uri
    assert sqlalchemy.make_url(uri).database == str(sqlite.file_of(uri)) == str(file)


def test_other_uris_have_no_file():
    assert sqlite.file_of("http://host:5000") is None
    for uri in ("sqlite:///a.db?mode=ro", "sqlite://", "sqlite:///", "sqlite:///:memory:"):
        with pytest.raises(UserError, match="not a SQLite file"):
            sqlite.file_of(uri)


@pytest.mark.parametrize("name", [ODD[0], ALL])
def test_a_command_takes_and_finds_an_odd_folder(tmp_path, monkeypatch, name):
    folder = tmp_path / name
    folder.mkdir()
    [(given, _)] = jobs("env=swiss-roll", f"paths.outputs={quoted(str(folder))}")
    assert given.config.paths.outputs == str(folder)
    monkeypatch.chdir(folder)
    [(found, _)] = jobs("env=swiss-roll")
    assert found.config.paths.outputs == f"{folder}/outputs"


@pytest.mark.parametrize("name", ["${seed}", "latin\udce91"])
def test_a_folder_that_no_configuration_can_hold_is_one_line(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    result = genpolicy("env=swiss-roll")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "rename the folder" in result.err
    assert list((tmp_path / name).iterdir()) == []


@pytest.mark.parametrize("name", ["50%j", "a\\b"])
def test_a_folder_whose_name_slurm_would_change_is_refused(tmp_path, name):
    launch = ["-m", "hydra/launcher=slurm", "launch.dry_run=true", "seed=0,1", "env=swiss-roll", "algo=bc"]
    result = genpolicy(*launch, f"paths.outputs={quoted(str(tmp_path / name))}")
    assert (result.code, result.err.count("\n"), list(tmp_path.iterdir())) == (1, 1, [])
    assert "paths.outputs: SLURM reads % and \\ in " in result.err


@pytest.fixture
def odd(tmp_path, monkeypatch, template) -> Path:
    """The folder of runs, with an empty store in it, of a working folder that has all of these signs in its name."""
    outputs = tmp_path / ALL / "outputs"
    outputs.mkdir(parents=True)
    shutil.copy(template, outputs / "mlflow.db")
    monkeypatch.chdir(outputs.parent)
    return outputs


def test_runs_are_shipped_shown_and_reported_and_found_after_a_move(odd, tmp_path, monkeypatch):
    run = ended(odd, SQLITE)
    (run.directory / "figures").mkdir()
    run.path("figures/samples.png").write_bytes(b"a picture")
    for word in ("mode=status", "mode=sync", "mode=report"):
        result = genpolicy(word)
        assert (result.code, result.err) == (0, ""), word
    assert stored(odd) == {run.id: journaled(run)}
    assert (odd / "default" / "report" / "report.html").exists()
    assert [path.name for path in tmp_path.iterdir()] == [ALL]  # MLflow makes folders of what it does not decode
    moved = tmp_path / "moved 100%41"
    odd.rename(moved)
    monkeypatch.chdir(tmp_path)
    assert genpolicy("mode=sync", f"paths.outputs={quoted(str(moved))}").code == 0
    client = trackers.open_store(None, moved).client
    ((number,),) = ask(moved, "SELECT run_uuid FROM runs")
    assert Path(client.download_artifacts(number, "figures/samples.png", tmp_path)).read_bytes() == b"a picture"


@pytest.mark.slow
def test_a_launcher_trains_and_its_follower_ships(odd):
    result = genpolicy("-m", "hydra/launcher=local", "seed=3", *gaussian_words(odd, SQLITE))
    assert result.code == 0, result.err
    run = Run(only_run(odd))
    assert run.finished
    wait_until(lambda: ask(odd, "SELECT status FROM runs") == [("FINISHED",)], lambda: (odd / "follow.log").read_text())
    assert stored(odd) == {run.id: journaled(run)}


@pytest.mark.parametrize(
    "name", ["mlflow.db", "mlflow.db.lock", "mlflow.db-wal", "MLArtifacts", "mlruns", "follow.log"]
)
def test_a_study_by_the_name_of_something_else_is_refused(tmp_path, name):
    result = genpolicy(f"study={name}", f"paths.outputs={tmp_path}/outputs")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert f"study={name}: the name of something else" in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_where_the_store_is_to_be_is_said_at_once(tmp_path):
    run = ended(tmp_path, SQLITE)
    (tmp_path / "mlflow.db").mkdir()
    before = time.process_time()
    result = genpolicy("mode=sync", f"paths.outputs={tmp_path}")
    assert time.process_time() - before < 60  # MLflow tries for minutes
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert f"{tmp_path}/mlflow.db: not a file" in result.err
    assert not run.path("tracking.json").exists()


@pytest.mark.parametrize("function", ["fsync", "pwrite", "mkdir"])
def test_a_full_disk_at_the_start_names_the_place_and_leaves_nothing(tmp_path, monkeypatch, function):
    real, calls = getattr(os, function), []

    def full(*arguments, **more):
        calls.append(arguments)
        if function == "mkdir" and len(calls) < 3:
            return real(*arguments, **more)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, function, full)
    if function == "pwrite":  # who holds a lock is only said
        opened(tmp_path / "outputs").close()
        return
    with pytest.raises(UserError, match=f"{tmp_path}/outputs/default/.*: the disk is full"):
        opened(tmp_path / "outputs")
    assert calls
    assert list(tmp_path.iterdir()) == []
