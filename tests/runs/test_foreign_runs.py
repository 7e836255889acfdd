"""Folders of runs that come from other people: nothing outside them is read, written or shipped."""

import contextlib
import json
import os
import shutil
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import yaml
from command_line import genpolicy, jobs, tried
from file_server import running
from omegaconf import OmegaConf
from store import SQLITE, counts, stored
from tiny import ended, gaussian_words, only_run, opened, plain_words
from tiny import words as small_run

from genpolicy.api import _load_pyfunc, load_policy
from genpolicy.config import plain_yaml, plugins
from genpolicy.config.schema import build
from genpolicy.errors import UserError
from genpolicy.launch.sweep import Sweep, sweep_name
from genpolicy.runs import checkpoint
from genpolicy.runs.evaluations import Evaluation, own_evaluation
from genpolicy.runs.job import Job
from genpolicy.runs.run import find_runs, load_run, open_run
from genpolicy.system.files import (
    Lock,
    is_locked,
    make_folder,
    open_regular,
    read_regular,
    regular_files,
    write_atomically,
)
from genpolicy.tracking import follower, sync, trackers
from genpolicy.training import checks


@pytest.fixture
def private(tmp_path):
    """A file of the user's own, outside the folder `run`."""
    (tmp_path / "run").mkdir()
    (tmp_path / "private").write_bytes(b"secret")
    return tmp_path / "private"


def odd(folder, kind, target):
    """Something at `folder` / "file" that is no regular file."""
    path = folder / "file"
    match kind:
        case "link":
            path.symlink_to(target)
        case "dangling link":
            path.symlink_to(folder / "nowhere")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
    return path


ODD = ("link", "dangling link", "pipe", "folder", "device")


@pytest.mark.parametrize("kind", ODD)
def test_only_regular_files_are_read_appended_to_and_locked(tmp_path, private, kind):
    path = odd(tmp_path / "run", kind, private)
    before = sorted(tmp_path.rglob("*"))
    for use in (
        lambda: open_regular(path),
        lambda: read_regular(path),
        lambda: open_regular(path, "ab"),
        lambda: Lock(path).acquire(),
        lambda: is_locked(path),
    ):
        with pytest.raises(UserError, match="file"):
            use()
    assert Lock(path).holder() == "another process"
    assert list(regular_files(tmp_path / "run", "*")) == []
    assert private.read_bytes() == b"secret"
    assert sorted(tmp_path.rglob("*")) == before


def test_writing_replaces_a_link_and_knows_no_name_that_a_link_could_have(tmp_path, private):
    for name in ("file", ".file.tmp", ".file.0.tmp"):
        (tmp_path / "run" / name).symlink_to(private)
    write_atomically(tmp_path / "run" / "file", b"content")
    assert (tmp_path / "run" / "file").read_bytes() == b"content"
    assert not (tmp_path / "run" / "file").is_symlink()
    assert private.read_bytes() == b"secret"


def test_folders_that_are_links_are_none_of_a_run(tmp_path, private):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").write_bytes(b"private picture")
    (tmp_path / "run" / "figures").symlink_to(tmp_path / "elsewhere")
    assert list(regular_files(tmp_path / "run", "figures/*")) == []
    with pytest.raises(UserError, match="a link, where genpolicy makes"):
        make_folder(tmp_path / "run" / "figures")
    assert make_folder(tmp_path / "run" / "more").is_dir()


def test_a_file_of_any_size_is_not_read_into_memory(tmp_path):
    with open(tmp_path / "file", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match="more than 67,108,864 bytes"):
        read_regular(tmp_path / "file")


def test_what_is_missing_is_told_from_what_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "folder" / "file")
    with open_regular(tmp_path / "file", "ab") as file:
        file.write(b"one")
    with open_regular(tmp_path / "file", "ab") as file:
        file.write(b"two")
    assert read_regular(tmp_path / "file") == b"onetwo"


@pytest.fixture
def outputs(tmp_path, template):
    """A folder of one finished run, which its store does not know yet."""
    (tmp_path / "outputs").mkdir()
    shutil.copy(template, tmp_path / "outputs" / "mlflow.db")
    run = ended(tmp_path / "outputs", SQLITE)
    (run.directory / "figures").mkdir()
    return tmp_path / "outputs"


def test_links_among_what_is_shipped_are_left_out(outputs, private):
    run = only_run(outputs)
    (private.parent / "elsewhere").mkdir()
    (private.parent / "elsewhere" / "evaluation-a.json").write_bytes(b"secret")
    (run / "figures" / "a.png").symlink_to(private)
    (run / "evaluation-last-9-8.json").symlink_to(private)
    (run / "evaluation-best-9-8.json").symlink_to("/dev/zero")
    (run / "evaluation-all").symlink_to(private.parent / "elsewhere")
    os.mkfifo(run / "figures" / "b.png")
    (run / "figures" / "c.png").write_bytes(b"a picture")
    result = genpolicy("mode=sync", f"paths.outputs={outputs}")
    assert result.code == 0, result.err
    shipped = [path.name for path in (outputs / "mlartifacts").rglob("*") if path.is_file()]
    assert sorted(shipped) == ["c.png", "config.yaml"]


@pytest.mark.parametrize(
    "name", ["status.json", "journal.jsonl", "tracking.json", "tracking.lock", "lock", "config.yaml"]
)
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_files_of_a_run_that_are_none_are_named(outputs, private, name, kind):
    run = only_run(outputs)
    (run / name).unlink(missing_ok=True)
    odd(run, kind, private).rename(run / name)
    if name == "lock":  # which is looked at only where a run says that it is running
        (run / "status.json").write_text('{"state": "running", "pid": 1, "host": "h", "updated": 0}')
    result = genpolicy("mode=sync", f"paths.outputs={outputs}")
    assert result.code == 1
    assert f"{run / name}: a link" in result.err
    assert result.err.count("\n") == 1
    assert private.read_bytes() == b"secret"


def test_overwriting_deletes_nothing_behind_a_link(outputs, private):
    run = only_run(outputs)
    (private.parent / "elsewhere").mkdir()
    kept = private.parent / "elsewhere" / "a.png"
    kept.write_bytes(b"mine")
    (run / "figures").rmdir()
    (run / "figures").symlink_to(kept.parent)
    (run / "evaluation-last-9-8.json").symlink_to(private)
    own = [run / "evaluation-notes.md", run / "export" / "mine.py"]
    for path in own:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    opened(outputs, SQLITE, "overwrite=true").close()
    assert all(path.exists() for path in own)
    assert kept.read_bytes() == b"mine"
    assert private.read_bytes() == b"secret"
    assert not (run / "evaluation-last-9-8.json").is_symlink()


def test_a_run_directory_that_is_a_link_is_no_run(outputs, tmp_path):
    run = only_run(outputs)
    run.rename(tmp_path / "elsewhere")
    for link in (run, run.with_name("seed7")):
        link.symlink_to(tmp_path / "elsewhere")
    before = sorted(path.name for path in (tmp_path / "elsewhere").iterdir())
    assert list(find_runs(outputs)) == []
    with pytest.raises(UserError, match="a link"):
        opened(outputs, SQLITE)
    with pytest.raises(UserError, match="a link"):
        load_run(run)
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == before


def test_phases_behind_a_link_are_not_cleaned(tmp_path):
    kept = tmp_path / "other" / "phases" / "0123456789abcdef" / "weights.pt"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"weights")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "phases").symlink_to(tmp_path / "other" / "phases")
    assert "a link" in genpolicy("mode=clean", f"paths.outputs={tmp_path / 'own'}").err
    assert kept.exists()


def test_the_folder_of_all_runs_and_a_study_may_be_links(outputs, tmp_path):
    run = only_run(outputs)
    (outputs / "default").rename(tmp_path / "a large disk")
    (outputs / "default").symlink_to(tmp_path / "a large disk")
    (tmp_path / "link").symlink_to(outputs)
    assert list(find_runs(tmp_path / "link")) == [tmp_path / "link" / run.relative_to(outputs)]
    opened(tmp_path / "link", SQLITE).close()
    assert genpolicy("mode=sync", f"paths.outputs={tmp_path / 'link'}").code == 0
    assert genpolicy("mode=status", f"paths.outputs={tmp_path / 'link'}").code == 0
    assert counts(outputs)["runs"] == 1


def test_a_sweep_names_no_runs_elsewhere(outputs, tmp_path):
    (outputs / "default" / "sweeps" / "0a1b2c3d").mkdir(parents=True)
    listed = {"../../x/y/z/seed0": "above", f"{tmp_path}/a/b/seed0": "absolute", "default/a/b/seed0": "inside"}
    listed = json.dumps({"name": "abc", "runs": listed})
    (outputs / "default" / "sweeps" / "0a1b2c3d" / "sweep.json").write_text(listed)
    found = Sweep(outputs, "default", "0a1b2c3d").runs
    assert all(run.is_relative_to(outputs) and ".." not in run.parts for run in found)
    assert "inside" in found.values()


def test_a_link_is_not_recorded_into(tmp_path, monkeypatch, private):
    """mode=collect and data sets that are made write a file beside the one that is to be."""
    monkeypatch.chdir(tmp_path / "run")
    (tmp_path / "run" / "collected.hdf5.part").symlink_to(private)
    words = ["mode=collect", "env=maze2d-umaze-v1", "collect.steps=20", "collect.at_once=1"]
    result = genpolicy(*words)
    assert result.code == 1
    assert "collected.hdf5.part: a link" in result.err
    assert private.read_bytes() == b"secret"


@pytest.fixture
def listener():
    """An address at which a stranger listens, and what came there."""
    came = []

    class Stranger(BaseHTTPRequestHandler):
        def _note(self):
            came.append((self.path, self.headers.get("Authorization")))
            self.send_error(404)

        do_GET = do_POST = do_PUT = do_PATCH = _note

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
    with running(server):
        yield f"http://127.0.0.1:{server.server_port}", came


def edit(run, **changes):
    """Change settings (`a__b` is a.b) in the frozen configuration of a run directory."""
    frozen = yaml.safe_load((run / "config.yaml").read_text())
    for name, value in changes.items():
        *path, last = name.split("__")
        node = frozen
        for part in path:
            node = node[part]
        node[last] = value
    (run / "config.yaml").write_text(yaml.safe_dump(frozen))


def test_nothing_is_sent_where_only_a_run_says_so(outputs, listener, monkeypatch):
    address, came = listener
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    mine = ended(outputs, SQLITE, "seed=1")
    run = load_run(outputs / "default" / mine.directory.relative_to(outputs / "default").with_name("seed0"))
    edit(run.directory, config__tracking__uri=address)
    run.path("status.json").write_text('{"state": "interrupted"}')
    result = genpolicy("mode=sync", f"paths.outputs={outputs}")
    assert result.code == 0, result.err
    assert "left out: 1 run of another store" in result.out
    assert run.directory.parent.name in result.out
    assert set(stored(outputs)) == {mine.id}
    result = genpolicy("mode=report", f"paths.outputs={outputs}")
    assert result.code == 0, result.err
    assert "not in study default of sqlite" in result.out
    follower.sync_run(mine.directory)
    sync.sync_until_idle(outputs, [trackers.store_uri(None, outputs)])
    assert came == []
    genpolicy("mode=sync", f"paths.outputs={outputs}", f"tracking.uri={address}")
    assert came  # the test's stranger does listen


def test_a_run_that_is_gone_on_with_is_tracked_where_the_command_says(outputs, listener):
    address, _ = listener
    run = only_run(outputs)
    edit(run, config__tracking__uri=address, config__tracking__checkpoints=True)
    again = opened(outputs, SQLITE)
    again.close()
    assert again.config.tracking.uri is None
    assert yaml.safe_load((run / "config.yaml").read_text())["config"]["tracking"]["uri"] is None
    other = opened(outputs, "tracking.uri=http://127.0.0.1:9")
    other.close()
    assert load_run(run).config.tracking.uri == "http://127.0.0.1:9"
    assert load_run(run).id == again.id == other.id


@pytest.fixture
def undownloaded(listener, monkeypatch):
    """A stranger's address of a data file, and what came there; nobody has permitted it, and nobody will have."""
    monkeypatch.setenv(plugins.ADDRESSES, "")
    return f"{listener[0]}/hopper.hdf5", listener[1]


def test_nothing_is_downloaded_from_where_only_a_run_says_so(tmp_path, undownloaded):
    """Neither by whoever evaluates it, nor by whoever goes on with it."""
    address, came = undownloaded
    task = ["env=hopper-medium-v2", "algo=bc", "tracking.uri=none", f"paths.data={tmp_path}/data"]
    ((job, _),) = jobs(*task, f"paths.outputs={tmp_path}/outputs")
    run = open_run(job.config, job.choices)
    run.close()
    edit(run.directory, config__env__url=address, config__paths__data=f"{tmp_path}/theirs")
    checkpoint.save(run.path("last.pt"), {"state": {"updates": 0}, "algorithm": {}})
    evaluate = ["mode=eval", f"checkpoint={run.directory}", f"paths.data={tmp_path}/data"]
    for words in (evaluate, [*task, f"paths.outputs={tmp_path}/outputs"]):
        result = genpolicy(*words)
        assert (result.code, result.err.count("\n"), came) == (1, 1, [])
        assert f"env.url: {address} is not asked for data" in result.err
        assert f"add env.url={address} to the command" in result.err
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "theirs").exists()
    assert f"{address} (the server says 404" in genpolicy(*evaluate, f"env.url={address}").err
    assert came


def test_an_option_of_ones_own_names_no_address_but_the_packaged_ones(tmp_path, undownloaded, monkeypatch):
    address, came = undownloaded
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/env").mkdir(parents=True)
    for name, more in {"theirs": f"url: {address}", "mine": "max_episode_steps: 500"}.items():
        (tmp_path / f"conf/env/{name}.yaml").write_text(f"defaults: [hopper-medium-v2@_here_, _self_]\n{more}\n")
    words = ["dataset=d4rl", f"paths.data={tmp_path}/data"]
    for more in (["algo=bc"], ["algo=bc", "-m", "seed=0,1"], ["mode=check"]):
        result = genpolicy("env=theirs", *words, *more)
        assert (result.code, result.err.count("\n"), came) == (1, 1, [])
        assert f"env.url: {address} is not asked for data" in result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conf"]
    ((job, _),) = jobs("env=mine", *words)
    checks.check([job])  # the packaged task's address


@pytest.mark.parametrize("more", [{"paths": {"data": "theirs"}}, {"env": {"url": "x"}}, {"device": "cpu"}])
def test_an_evaluation_that_was_asked_for_sets_nothing_else(outputs, tmp_path, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    own = own_evaluation(load_run(only_run(outputs)))
    asked = Evaluation(own.directory, {**own.settings, **more}, own.choices)
    asked.ask()
    result = genpolicy(*small_run(outputs, SQLITE))
    assert result.code == 1
    said = result.err.splitlines()[-1]  # after the one of what is evaluated
    assert said == f"genpolicy: {asked.path('.yaml')}: has settings that are none of an evaluation; delete it"
    assert not (tmp_path / "theirs").exists()


def test_a_run_names_no_file_outside_of_the_folder_of_data(tmp_path):
    ((job, _),) = jobs(f"paths.data={tmp_path}")
    task = build(job.config.env)
    task.name = "../../x"
    assert build(job.config.dataset, directory=tmp_path).location(task).parent == tmp_path
    for name in ("../../x", "/x/y", "a//b", "a/./b"):
        result = genpolicy("env=gym", "env.id=Pendulum-v1", "dataset=minari", f"dataset.id={name}")
        assert result.err.startswith(f"genpolicy: dataset.id={name}: no name of a data set"), result.err


PLACES = {
    "value": {"config__tracking__uri": "http://127.0.0.1:9/${oc.env:SECRET}"},
    "deep": {"config__network__activation": "${oc.env:SECRET}"},
    "key": {"config__network": {"${oc.env:SECRET}": 1}},
    "list": {"config__network__hidden": [["${oc.env:SECRET}"]]},
    "choice": {"choices__algo": "${oc.env:SECRET}"},
    "sweep": {"sweep": "${oc.env:SECRET}"},
    "harmless": {"config__log_every": "${config.seed}"},
}


@pytest.mark.parametrize("place", PLACES)
def test_a_frozen_configuration_resolves_nothing(outputs, monkeypatch, place):
    monkeypatch.setenv("SECRET", "12345")
    run = only_run(outputs)
    edit(run, **PLACES[place])
    for words in (["mode=sync"], ["mode=eval", f"checkpoint={run}"]):
        result = genpolicy(*words, f"paths.outputs={outputs}")
        assert result.code == 1
        assert f"{run}/config.yaml: not the frozen configuration of a run" in result.err
        assert "no value may hold '${'" in result.err
        assert result.err.count("\n") == 1
        assert "12345" not in result.err
    assert stored(outputs) == {}


def test_nothing_to_be_resolved_is_ever_frozen(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "12345")
    for word in (r"dataset.path='\${oc.env:SECRET}'", r"paths.data='a\${b}'"):
        result, started = tried("env=gym", "env.id=Pendulum-v1", "dataset=npz", "dataset.path=x.npz", word)
        assert result.code == 1
        assert "no value may hold '${'" in result.err
        assert started == []
    found = sweep_name(
        [Job(OmegaConf.create({"study": "default"}), {}, [f"paths.x=${{oc.env:{name}}}"]) for name in "AB"]
    )
    assert "${" not in found


BOMB = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in pairwise("abcdefgh")
)


@pytest.mark.parametrize("text", [BOMB, "[" * 50_000, "- " * 50_000, "a: " + "x" * 2**21, "a: " + "9" * 10_000])
def test_a_configuration_that_grows_is_refused_at_once(outputs, text):
    run = only_run(outputs)
    (run / "config.yaml").write_text(text)
    result = genpolicy("mode=eval", f"checkpoint={run}", f"paths.outputs={outputs}")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert str(run / "config.yaml") in result.err
    assert len(result.err) < 800


def test_parts_that_are_the_same_object_are_written_twice():
    shared = [1, 2]
    written = plain_yaml.dump({"a": shared, "b": shared, "c": {"d": shared}})
    assert plain_yaml.parse(written, Path("x")) == {"a": [1, 2], "b": [1, 2], "c": {"d": [1, 2]}}


def test_a_database_that_is_no_store_is_left_as_it_is(outputs, tmp_path):
    other = tmp_path / "browser.sqlite"
    with contextlib.closing(sqlite3.connect(other)) as database, database:
        database.execute("CREATE TABLE moz_places (url TEXT)")
    for path, content in (
        (other, other.read_bytes()),
        (tmp_path / "empty.db", b""),
        (tmp_path / "text.db", b"text" * 99),
    ):
        path.write_bytes(content)
        for words in (["mode=sync"], ["mode=report"]):
            result = genpolicy(*words, f"paths.outputs={outputs}", f"tracking.uri=sqlite:///{path}")
            assert (result.code, result.err.count("\n")) == (1, 1)
            assert "no MLflow store" in result.err
        assert path.read_bytes() == content
    (outputs / "mlflow.db").rename(tmp_path / "mlflow.db")
    (outputs / "mlflow.db").symlink_to(other)
    assert "mlflow.db: a link" in genpolicy("mode=sync", f"paths.outputs={outputs}").err


def test_a_store_among_the_runs_puts_no_files_elsewhere(outputs, tmp_path):
    """The store comes with the runs: it could have the user's own files overwritten."""
    (tmp_path / "elsewhere" / "artifacts").mkdir(parents=True)
    (tmp_path / "elsewhere" / "config.yaml").write_bytes(b"mine")
    run = load_run(only_run(outputs))
    assert genpolicy("mode=sync", f"paths.outputs={outputs}").code == 0
    run.path("tracking.json").unlink()
    home = (outputs / "mlartifacts").as_uri()
    for place in (
        (tmp_path / "elsewhere").as_uri(),
        f"{home}/../../elsewhere",
        f"{home}/%2e%2e/%2e%2e/elsewhere",
        "s3://x/y",
    ):
        with contextlib.closing(sqlite3.connect(outputs / "mlflow.db")) as database, database:
            database.execute("UPDATE runs SET artifact_uri = ?", (place,))
        result = genpolicy("mode=sync", f"paths.outputs={outputs}")
        assert (result.code, result.err.count("\n")) == (1, 1)
        assert "would put files at" in result.err
    assert (tmp_path / "elsewhere" / "config.yaml").read_bytes() == b"mine"


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A package that registers an environment, and whose import leaves a file; the folder of it all."""
    code = f"""
import gymnasium
open({str(tmp_path / "ran")!r}, "a").write("x")
gymnasium.register("Theirs-v0", "gymnasium.envs.classic_control.pendulum:PendulumEnv", max_episode_steps=5)
"""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "stranger.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.delenv(plugins.VARIABLE, raising=False)
    yield tmp_path
    sys.modules.pop("stranger", None)
    gymnasium.registry.pop("Theirs-v0", None)
    os.environ.pop(plugins.VARIABLE, None)


@pytest.mark.slow
def test_a_package_is_imported_only_if_the_command_names_it(stranger, no_figures):
    ran = stranger / "ran"
    words = [word for word in plain_words(stranger) if not word.startswith("env.id=")]
    result = genpolicy(*words, "env.id=Pendulum-v1")
    assert result.code == 0, result.err
    run = only_run(stranger)
    edit(run, config__env__id="stranger:Theirs-v0")
    evaluate = ["mode=eval", f"checkpoint={run}", "eval.final_episodes=1", "eval.log_prob_actions=5"]
    for command in (evaluate, [*words, "env.id=Pendulum-v1"]):
        result = genpolicy(*command, f"paths.outputs={stranger}")
        assert (result.code, result.err.count("\n")) == (1, 1)
        assert "plugin needed" in result.err
        assert "env.id=stranger:Theirs-v0" in result.err
        assert "overwrite=true" not in result.err
    with pytest.raises(UserError, match="plugin needed"):
        load_policy(run)
    with pytest.raises(UserError, match="plugin needed"):
        _load_pyfunc(str(run))
    for harmless in (["mode=status"], ["mode=sync"], ["mode=tasks"]):
        genpolicy(*harmless, f"paths.outputs={stranger}")
    assert not ran.exists()
    assert load_policy(run, "env.id=stranger:Theirs-v0").act(np.zeros(3)).shape == (1,)
    assert ran.exists()
    result = genpolicy(*evaluate, "env.id=stranger:Theirs-v0")
    assert result.code == 0, result.err


@pytest.mark.slow
def test_a_package_is_imported_where_a_command_that_names_it_starts_runs(stranger, monkeypatch):
    """Not even a file of options of one's own is enough."""
    monkeypatch.chdir(stranger)
    monkeypatch.setenv("PYTHONPATH", str(stranger / "packages"))
    (stranger / "conf" / "env").mkdir(parents=True)
    option = "defaults: [gym@_here_, _self_]\nid: stranger:Theirs-v0\nmax_episode_steps: 5\n"
    (stranger / "conf" / "env" / "theirs.yaml").write_text(option)
    words = [word for word in gaussian_words(stranger) if not word.startswith("env")]
    result, _ = tried(*words, "env=theirs")
    assert "plugin needed" in result.err
    assert not (stranger / "ran").exists()
    result = genpolicy(
        "-m", "hydra/launcher=local", *words, "env=gym", "env.id=stranger:Theirs-v0", "algo.policy_steps=2"
    )
    assert result.code == 0, result.err + (only_run(stranger) / "log.txt").read_text()
    assert (stranger / "ran").read_text().count("x") == 2
