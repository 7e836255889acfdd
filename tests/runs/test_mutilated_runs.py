"""Three hundred runs of which a file is damaged, emptied, linked, retyped or of other types: each is one line at most.

The other runs of the folder are shown, shipped and reported, and nothing outside it is touched.
"""

import copy
import json
import os
import random
import shutil
import socket
from pathlib import Path
from unittest import mock

import pytest
import yaml
from command_line import genpolicy
from store import SQLITE, journaled, stored
from tiny import ended, opened

from genpolicy.errors import UserError
from genpolicy.runs.journal import Journal
from genpolicy.runs.run import Run, load_run
from genpolicy.runs.state import known_status, read_status, run_state
from genpolicy.tracking.store import Record
from genpolicy.training.train import train

COUNT, GOOD = 300, 3
FILES = ("config.yaml", "status.json", "journal.jsonl", "job.json", "tracking.json", "journal.index")
FILES += ("lock", "tracking.lock", "log.txt", "evaluation-last-9-8.json", "figures", "figures/samples.png", "last.pt")
ODD = [None, True, -1, 10**30, 1.5, float("nan"), "", "text", "${oc.env:HOME}", [], [1], {}, {"a": None}]
DEEP = "[" * 100_000


def nodes(content) -> list[tuple[dict | list, object]]:
    """Every place in nested values: its container, and the key."""
    found = []
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        found += [(content, key), *(nodes(value) if isinstance(value, dict | list) else [])]
    return found


def retyped(draw: random.Random, text: str, path: Path) -> str:
    """The file's values with one of another type, or left out."""
    if path.name.endswith(".jsonl"):
        lines = [json.loads(line) for line in text.splitlines()]
    else:
        lines = [yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)]
    container, key = draw.choice(nodes(lines))
    if draw.random() < 0.2 and isinstance(container, dict):
        del container[key]
    else:
        container[key] = copy.deepcopy(draw.choice(ODD))
    if path.suffix == ".yaml":
        return yaml.safe_dump(lines[0], sort_keys=False)
    return "".join(json.dumps(line) + "\n" for line in lines)


def mutilate(draw: random.Random, path: Path, precious: Path) -> str:
    """Changes a file of a run; says how."""
    ways = ["empty", "gone", "cut", "bytes", "deep", "link", "dangling", "folder", "pipe", "folder link"]
    text = path.read_bytes() if path.is_file() else b"content\n"
    if path.suffix in (".json", ".jsonl", ".yaml"):
        ways += ["types"] * 6
    way = draw.choice(ways)
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    match way:
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(text[: draw.randrange(len(text) + 1)])
        case "bytes":
            content = bytearray(text or b"text")
            for _ in range(draw.randint(1, 9)):
                content[draw.randrange(len(content))] = draw.randrange(256)
            path.write_bytes(content)
        case "deep":
            path.write_text(DEEP)
        case "types":
            path.write_text(retyped(draw, text.decode(), path))
        case "link":
            path.symlink_to(precious / "secret")
        case "dangling":
            path.symlink_to(precious / "new")
        case "folder":
            path.mkdir()
        case "folder link":
            path.symlink_to(precious)
        case "pipe":
            os.mkfifo(path)
    return f"{path.name} {way}"


@pytest.fixture(scope="module")
def mutilated(tmp_path_factory, template):
    """The folder of runs, the good ones, the others with what was done to them, and a folder that belongs to nobody."""
    outputs, precious = tmp_path_factory.mktemp("outputs"), tmp_path_factory.mktemp("precious")
    shutil.copy(template, outputs / "mlflow.db")
    (precious / "secret").write_text("a secret")
    good = [ended(outputs, SQLITE, f"seed={seed}") for seed in range(GOOD)]
    first, draw, runs = good[0], random.Random(0), {}
    first.path("figures").mkdir()
    for name, content in {
        "figures/samples.png": "a picture",
        "last.pt": "weights",
        "log.txt": "said\n",
        "job.json": '{"job": "7_1"}',
        "tracking.json": json.dumps({"sqlite:///x.db": {"id": "a", "run": "b", "offset": 3, "files": {"a": [1, 2]}}}),
        "evaluation-last-9-8.json": '{"metrics": {"return_mean": 1.0}}',
    }.items():
        first.path(name).write_text(content)
    Journal(first.path("journal.jsonl")).close()
    frozen = first.path("config.yaml").read_text()
    for number in range(COUNT):
        directory = first.directory.with_name(f"seed{number + 100}")
        shutil.copytree(first.directory, directory)
        own = frozen.replace(first.id, f"{number:032x}").replace("\n  seed: 0\n", f"\n  seed: {number + 100}\n")
        if number % 4:  # to be shipped takes time
            own = own.replace("uri: null", "uri: none")
        (directory / "config.yaml").write_text(own)
        runs[directory] = mutilate(draw, directory / FILES[number % len(FILES)], precious)
    first.path("job.json").unlink()
    return outputs, good, runs, precious


@pytest.fixture(autouse=True)
def closed():
    """No connection is made."""
    with mock.patch.object(socket.socket, "connect", side_effect=AssertionError("a connection")):
        yield


def one_line(attempt, path: Path) -> bool:
    """Whether it was refused, in one line that names a file of the run."""
    try:
        attempt()
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert str(path) in str(error)  # noqa: PT017
        return True
    return False


@pytest.mark.slow
def test_whatever_reads_a_run_reads_it_or_says_one_line(mutilated):
    _, _, runs, _ = mutilated
    refused = 0
    for path in runs:
        journal = path / "journal.jsonl"
        odd = [
            one_line(lambda path=path: Run(path).name, path),
            one_line(lambda path=path: load_run(path), path) if runs[path].startswith("config") else False,
            one_line(lambda path=path: read_status(path), path),
            one_line(lambda path=path: Record(path, "sqlite:///x.db", "a"), path),
            one_line(lambda journal=journal: Journal(journal).close(), path) if journal.exists() else False,
        ]
        refused += any(odd)
        assert (known_status(path)["state"] == "unreadable") == odd[2], runs[path]
        assert run_state(path, dict).state
    assert COUNT // 5 < refused < COUNT


@pytest.mark.slow
def test_the_other_runs_are_shown_shipped_and_reported(mutilated, monkeypatch):
    outputs, good, runs, precious = mutilated
    monkeypatch.setattr(
        "genpolicy.system.squeue.alive", dict
    )  # a SLURM that is there and does not answer is another fault
    shown = genpolicy("mode=status", f"paths.outputs={outputs}")
    assert (shown.code, shown.err) == (0, "")
    for run in good:
        assert any(f" s{run.config.seed} " in line and "finished" in line for line in shown.out.splitlines())
    unreadable = [path for path in runs if known_status(path)["state"] == "unreadable"]
    assert unreadable
    said = " ".join(shown.out.split())
    assert all(f"s{path.name.removeprefix('seed')} unreadable" in said for path in unreadable if path.exists())
    shipped = genpolicy("mode=sync", f"paths.outputs={outputs}")
    assert (shipped.code, shipped.err.count("\n")) == (1, 1), shipped.err
    lines = [line for line in shipped.out.splitlines() if line.startswith("not shipped: ")]
    assert len(lines) > COUNT // 8
    assert all(any(f"{path}/" in line or f"{path}:" in line for path in runs) for line in lines)
    found = stored(outputs)
    assert {run.id: found[run.id] for run in good} == {run.id: journaled(run) for run in good}
    reported = genpolicy("mode=report", f"paths.outputs={outputs}")
    assert (reported.code, reported.err) == (0, "")
    page = (outputs / "default" / "report" / "report.md").read_text()
    assert "gmpo-gvp" in page
    assert "Traceback" not in shown.out + shipped.out + reported.out
    assert [path.name for path in precious.iterdir()] == ["secret"]
    assert (precious / "secret").read_text() == "a secret"
    artifacts = b"".join(path.read_bytes() for path in outputs.rglob("mlartifacts/**/*") if path.is_file())
    assert b"a secret" not in artifacts


@pytest.mark.parametrize("name", ["config.yaml", "status.json", "journal.jsonl", "lock", "last.pt"])
def test_a_command_about_the_run_is_one_line_and_changes_nothing(tmp_path, name):
    run = ended(tmp_path)
    run.path(name).unlink(missing_ok=True)
    run.path(name).mkdir()
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    word = f"checkpoint={run.directory}"
    result = genpolicy("mode=eval", word, f"paths.data={tmp_path}") if name in ("config.yaml", "last.pt") else None
    if result is None:
        again = (lambda: Journal(run.path(name))) if name == "journal.jsonl" else lambda: train(opened(tmp_path))
        with pytest.raises(UserError, match=name):
            again()
    else:
        assert (result.code, result.err.count("\n")) == (1, 1)
        assert name in result.err
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before
