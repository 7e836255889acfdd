"""The run directory: found again by its settings, frozen, owned by one process, cleared of its own."""

import json
import os
from dataclasses import fields

import pytest
import yaml
from command_line import genpolicy, jobs
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from tiny import configured, ended, only_run, opened, records, words

from genpolicy.config.run_settings import NO_EFFECT, OF_ONE_MODE
from genpolicy.config.setting_groups import Evaluation
from genpolicy.errors import UserError
from genpolicy.runs.identity import directory_of, identity
from genpolicy.runs.run import COMPUTED, RECORDED, Run, find_runs, load_run
from genpolicy.system.signals import Interrupted

ELSEWHERE = ["seed=7", "study=other", "device=cpu", "threads=2", "log_every=3", "checkpoint_seconds=9"]
ELSEWHERE += [
    "paths.outputs=/elsewhere",
    "paths.data=/elsewhere",
    "tracking.uri=none",
    "tracking.checkpoints=true",
]
ELSEWHERE += ["overwrite=true", "genpolicy.debug=true"]


def identity_of(*more):
    ((job, _),) = jobs(*words("outputs", *more))
    return identity(job.config)


def test_identity_is_eight_digits_and_does_not_depend_on_place_or_time():
    found = identity_of()
    assert len(found) == 8
    assert set(found) <= set("0123456789abcdef")
    assert identity_of(*ELSEWHERE) == found
    for word in ELSEWHERE:
        assert identity(configured("outputs", word)[0]) == found


def test_identity_depends_on_values_not_on_how_they_are_written():
    assert identity_of("algo.beta=3") == identity_of("algo.beta=0.3e1") != identity_of()
    assert identity_of("model=gvp") == identity_of() != identity_of("model=vpsde")


def test_identity_does_not_depend_on_the_order_of_settings():
    config, _ = configured("outputs")
    backwards = dict(reversed(OmegaConf.to_container(config).items()))
    assert identity(OmegaConf.create(backwards)) == identity(config)


def test_where_a_run_lies(tmp_path):
    ((job, _),) = jobs(*words(tmp_path, "seed=3", "study=first", "model=vpsde"))
    expected = tmp_path / "first" / "swiss-roll" / f"gmpo-vpsde-{identity(job.config)}" / "seed3"
    assert directory_of(job.config, job.choices) == expected
    assert not tmp_path.joinpath("first").exists()


def test_the_frozen_configuration_is_whole_and_never_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = opened("outputs", sweep="sweep-1")
    run.close()
    frozen = yaml.safe_load(run.path("config.yaml").read_text())
    assert frozen["sweep"] == "sweep-1"
    assert frozen["choices"]["algo"] == "gmpo"
    assert frozen["config"]["paths"] == {
        "outputs": str(tmp_path / "outputs"),
        "data": str(tmp_path / "outputs"),
    }
    plain = OmegaConf.to_container(run.config)
    assert frozen["config"].keys() == plain.keys() - {"launch", "search", "seeds"} - {
        "check",
        "collect",
        "inspect",
        "report",
        "export",
    }
    assert all(frozen["config"][name] == plain[name] for name in frozen["config"].keys() - {"paths"})
    before = run.path("config.yaml").read_bytes()
    again = opened("outputs", "log_every=1", sweep="sweep-2")
    again.close()
    assert run.path("config.yaml").read_bytes() == before
    assert (again.id, again.sweep, again.config.log_every) == (run.id, "sweep-1", 7)
    assert list(find_runs(tmp_path / "outputs")) == [run.directory]


def test_how_a_run_is_computed_and_saved_each_command_says_anew_until_it_has_finished(tmp_path):
    opened(tmp_path).close()
    run = opened(tmp_path, "device=cpu", "threads=3", "compile=default", "checkpoint_seconds=9", "init.policy=/moved")
    expected = {"device": "cpu", "threads": 3, "compile": "default", "checkpoint_seconds": 9}
    for config in (run.config, load_run(run.directory).config):  # as a launcher's process reads it
        assert {name: config[name] for name in COMPUTED} == expected
        assert config.init.policy == "/moved"
    with run.recorded():
        pass
    run.close()
    again = opened(tmp_path, "threads=2")
    again.close()
    assert again.config.threads == 2  # for an evaluation
    assert load_run(run.directory).config.threads == 3  # it was trained with


def test_what_a_run_records_stays_as_it_was_begun_and_a_line_says_so(tmp_path, capsys):
    opened(tmp_path).close()
    assert capsys.readouterr().err == ""
    for _ in range(2):  # as two runs of a sweep
        run = opened(tmp_path, "eval.per_phase=91", "log_every=92", "eval.episodes=93")
        run.close()
    assert (run.config.eval.per_phase, run.config.log_every, run.config.eval.episodes) == (3, 7, 4)
    said = capsys.readouterr().err
    assert "log_every=7, not 92; eval.per_phase=3, not 91; eval.episodes=4, not 93; overwrite=true" in said
    assert said.count("\n") == 1


def test_of_every_setting_without_effect_on_weights_it_is_known_what_an_existing_run_does_with_it():
    anew = {"tracking", "paths", "phases", *COMPUTED}
    recorded = {name.partition(".")[0] for name in RECORDED}
    of_the_command = {"mode", "study", "seeds", "overwrite", "checkpoint", "sweep", "follow"}
    of_the_command |= {"launch", "search", "genpolicy", *OF_ONE_MODE}
    assert anew | recorded - {"eval"} | of_the_command == NO_EFFECT
    of_evaluations = {field.name for field in fields(Evaluation) if field.metadata["affects"] is None}
    assert {f"eval.{name}" for name in of_evaluations} == {name for name in RECORDED if "." in name}


def test_one_owner_at_a_time(tmp_path):
    run = opened(tmp_path)
    with pytest.raises(UserError, match=f"in use by process {os.getpid()} on "):
        opened(tmp_path)
    with run.recorded():
        assert Run(run.directory).status()["state"] == "running"
        run.note(step=5)
    run.close()
    opened(tmp_path).close()


def test_the_status_tells_how_a_run_ended(tmp_path):
    run = opened(tmp_path)
    assert run.status() == {"state": "queued"}
    with pytest.raises(ZeroDivisionError), run.recorded(device="cpu", step=5):
        _ = 1 / 0
    status = json.loads(run.path("status.json").read_text())
    assert (status["state"], status["step"], status["pid"]) == ("failed", 5, os.getpid())
    assert status["reason"] == "ZeroDivisionError: division by zero"
    assert "_ = 1 / 0" in status["traceback"]
    with pytest.raises(Interrupted) as ending, run.recorded():
        raise Interrupted(15)
    assert ending.value.code == 143
    assert (run.status()["state"], run.status()["reason"]) == ("interrupted", "SIGTERM")
    with run.recorded():
        pass
    assert (run.status()["state"], run.finished) == ("finished", True)
    run.note(state="running")  # and then its process is gone
    run.close()
    status = Run(run.directory).status()
    assert status["state"] == "died"
    assert f"process {os.getpid()}" in status["reason"]


def test_overwriting_removes_the_runs_own_files_only(tmp_path):
    run = ended(tmp_path)
    foreign = ["notes.txt", "figures/mine/picture.png", "checkpoint.pt", ".hidden"]
    own = ["last.pt", "best.pt", "figures/samples.png", "evaluation-last-7-8.json", "tracking.json"]
    for name in foreign + own:
        run.path(name).parent.mkdir(parents=True, exist_ok=True)
        run.path(name).write_text("content")
    run.path("export/policy.onnx").mkdir(parents=True)
    with pytest.raises(UserError, match=r"export/policy.onnx: "):
        opened(tmp_path, "overwrite=true")
    assert not run.finished  # though more than its status is still there
    run.path("export/policy.onnx").rmdir()
    new = opened(tmp_path, "overwrite=true")
    new.close()
    assert new.directory == run.directory
    assert new.id != run.id
    assert new.replaces == [run.id]
    assert new.status() == {"state": "queued"}
    assert all(run.path(name).exists() for name in foreign)
    assert not any(run.path(name).exists() for name in [*own, "journal.jsonl", "status.json"])
    assert new.config.overwrite is False


def test_overwriting_follows_no_link_and_needs_the_lock(tmp_path):
    run = opened(tmp_path)
    (tmp_path / "precious.pt").write_text("precious")
    run.path("last.pt").symlink_to(tmp_path / "precious.pt")
    with pytest.raises(UserError, match="in use by"):
        opened(tmp_path, "overwrite=true")
    run.close()
    opened(tmp_path, "overwrite=true").close()
    assert (tmp_path / "precious.pt").read_text() == "precious"
    assert not run.path("last.pt").is_symlink()


@pytest.mark.parametrize("content", ["", "[1, 2]", "id: 3", "a: [", "\x00\x01", "!!python/object/apply:os.getcwd []"])
def test_a_foreign_config_is_refused_and_kept(tmp_path, content):
    run = opened(tmp_path)
    run.close()
    run.path("config.yaml").write_text(content)
    for more in ([], ["overwrite=true"]):
        with pytest.raises(UserError, match="not the frozen configuration of a run") as refusal:
            opened(tmp_path, *more)
        assert "\n" not in str(refusal.value)
    assert run.path("config.yaml").read_text() == content


@given(text=st.text(max_size=80))
def test_any_config_is_a_run_or_one_line(tmp_path_factory, text):
    directory = tmp_path_factory.mktemp("run")
    (directory / "config.yaml").write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(UserError) as refusal:
        Run(directory)
    assert "\n" not in str(refusal.value)


def test_an_edited_config_is_checked_again(tmp_path):
    run = opened(tmp_path)
    run.close()
    frozen = yaml.safe_load(run.path("config.yaml").read_text())
    frozen["config"]["algo"]["_target_"] = "os.system"
    run.path("config.yaml").write_text(yaml.safe_dump(frozen))
    for attempt in (lambda: opened(tmp_path), lambda: load_run(run.directory)):
        with pytest.raises(UserError, match=r"algo._target_: os.system is not a class of genpolicy"):
            attempt()


def test_settings_of_other_modes_that_there_are_no_more_do_not_matter(tmp_path):
    run = opened(tmp_path)
    run.close()
    frozen = yaml.safe_load(run.path("config.yaml").read_text())
    frozen["config"]["report"] = {"filter": "", "curves_over": "phase"}  # as runs of November 2026 have it
    run.path("config.yaml").write_text(yaml.safe_dump(frozen))
    assert load_run(run.directory).config == run.config
    again = opened(tmp_path)
    again.close()
    assert again.id == run.id


@pytest.mark.parametrize("place", ["", "default", "default/swiss-roll"])
def test_a_file_in_the_way_is_one_line(tmp_path, place):
    path = tmp_path / "outputs" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a file")
    result = genpolicy(*words(tmp_path / "outputs"))
    assert result.code == 1
    assert "a file stands where a folder is needed" in result.err
    assert result.err.count("\n") == 1
    assert path.read_text() == "a file"


def test_a_relative_store_is_made_absolute_and_a_folder_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = opened(tmp_path, "tracking.uri=sqlite:///my.db")
    run.close()
    assert run.config.tracking.uri == f"sqlite:///{tmp_path}/my.db"
    with pytest.raises(UserError, match=r"tracking.uri=./mlruns: not a store"):
        opened(tmp_path, "seed=1", "tracking.uri=./mlruns")
    with pytest.raises(UserError, match="would store the password"):
        opened(tmp_path, "seed=1", "tracking.uri=https://me:secret@host:5000/path")


def test_a_moved_run_is_still_a_run(tmp_path):
    run = ended(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    moved = load_run(only_run(tmp_path / "there"))
    assert moved.id == run.id
    assert moved.outputs == tmp_path / "there"
    assert moved.finished
    assert records(moved.directory)[0] == ("policy/loss", 0, 0.0)


def test_options_from_a_subfolder_stay_in_one_folder(tmp_path):
    config, choices = configured("outputs")
    assert directory_of(config, choices | {"env": "mine/maze"}).parts[-3] == "mine-maze"
