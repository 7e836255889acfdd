"""TensorBoard's event file and Weights & Biases' runs as views of the journal. The oracles are their own readers."""

import importlib.util
import json
import struct
import zlib
from pathlib import Path

import pytest
import yaml
from command_line import genpolicy
from omegaconf import OmegaConf
from patience import wait_until
from store import SQLITE, journaled, stored
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tiny import DATA, ended, opened
from wandb.proto.wandb_internal_pb2 import Record

from genpolicy.tracking import follower, sync, tracked, trackers
from genpolicy.tracking.tensorboard import EVENTS, TensorBoard
from genpolicy.tracking.wandb import WeightsAndBiases


def picture() -> bytes:
    """A PNG of one grey pixel."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0\x80")),
        (b"IEND", b""),
    ]
    packed = (struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.fixture
def run(outputs):
    """A run that has ended, with a figure."""
    run = ended(outputs, "seed=3", SQLITE)
    run.path("figures").mkdir()
    run.path("figures/samples.png").write_bytes(picture())
    return run


def boarded(run) -> EventAccumulator:
    return EventAccumulator(str(run.path(EVENTS)), size_guidance={"scalars": 0}).Reload()


def scalars(shown: EventAccumulator) -> list[tuple]:
    """(metric, step, time in milliseconds, value) of all scalars; TensorBoard keeps float32."""
    names = shown.Tags()["scalars"]
    rows = [(n, e.step, round(1000 * e.wall_time), e.value) for n in names for e in shown.Scalars(n)]
    return sorted(rows)


def test_tensorboard_shows_the_journal_settings_and_figures(outputs, run):
    assert sync.sync_all(outputs, "tensorboard", {}).shipped == 1
    shown = boarded(run)
    expected = [(*rest, pytest.approx(value, rel=1e-6)) for *rest, value in journaled(run)]
    assert scalars(shown) == expected
    assert [image.encoded_image_string for image in shown.Images("figures/samples")] == [picture()]
    (settings,) = (event.tensor_proto.string_val[0].decode() for event in shown.Tensors("config"))
    told = yaml.safe_load(settings.removeprefix("```yaml\n").removesuffix("\n```"))
    assert told["algo"] == OmegaConf.to_container(run.config.algo)
    (content,) = shown.PluginTagToContent("hparams").values()
    chosen = HParamsPluginData.FromString(content).session_start_info.hparams
    assert (chosen["algo.beta"].number_value, chosen["seed"].number_value) == (4.0, 3.0)
    assert json.loads(chosen["critic.hidden"].string_value) == [16]


@pytest.mark.parametrize("left", [b"", b"what was written and not noted"])
def test_tensorboards_file_is_the_same_however_often_it_is_gone_on_with(outputs, run, left):
    sync.sync_all(outputs, "tensorboard", {})
    whole = run.path(EVENTS).read_bytes()
    assert sync.sync_all(outputs, "tensorboard", {}).shipped == 1
    assert run.path(EVENTS).read_bytes() == whole
    run.path(EVENTS).write_bytes(whole[:-20])  # as a copy that was made while it grew
    assert sync.sync_all(outputs, "tensorboard", {}).shipped == 1
    assert run.path(EVENTS).read_bytes() == whole
    run.path(EVENTS).unlink()
    run.path("figures/samples.png").rename(outputs / "later.png")
    lines = run.path("journal.jsonl").read_bytes().splitlines(keepends=True)
    for end in range(len(lines) + 1):
        run.path("journal.jsonl").write_bytes(b"".join(lines[:end]))
        TensorBoard().ship(run)
        with run.path(EVENTS).open("ab") as file:
            file.write(left)
    (outputs / "later.png").rename(run.path("figures/samples.png"))
    TensorBoard().ship(run)
    assert run.path(EVENTS).read_bytes() == whole


def logged(run) -> tuple[list[Record], str]:
    """The records of the run's one offline run of Weights & Biases, and its id in the file's name.

    The file is a log as LevelDB's after 7 bytes: blocks of 32 KiB; of each part checksum, length and kind (1: a whole
    record, 2: its beginning, 3: its middle, 4: its end).
    """
    (path,) = run.path("wandb").glob("offline-run-*/*.wandb")
    data, place, records, begun = path.read_bytes(), 7, [], b""
    while place + 7 <= len(data):
        if (rest := 32768 - place % 32768) < 7:
            place += rest
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        begun += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            records, begun = [*records, Record.FromString(begun)], b""
    return records, path.stem.removeprefix("run-")


@pytest.mark.slow
def test_weights_and_biases_shows_them_offline(outputs, run, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    assert sync.sync_all(outputs, "wandb", {}).failures == []
    # Its own process writes the file, and may do so a little later.
    wait_until(lambda: any(record.WhichOneof("record_type") == "exit" for record in logged(run)[0]))
    records, number = logged(run)
    assert number == run.id
    (begun,) = (record.run for record in records if record.WhichOneof("record_type") == "run")
    assert (begun.project, begun.display_name) == ("genpolicy-default", run.name)
    config = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in begun.config.update}
    assert config["algo"] == OmegaConf.to_container(run.config.algo)
    rows = [
        {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    metrics = [
        (name, row["step"], value) for row in rows for name, value in row.items() if name in ("policy/loss", "policy/q")
    ]
    assert sorted(metrics) == [(name, step, value) for name, step, _, value in journaled(run)]
    assert [row["figures/samples._type"] for row in rows if "figures/samples._type" in row] == ["image-file"]
    (ended,) = (record.exit for record in records if record.WhichOneof("record_type") == "exit")
    assert ended.exit_code == 0
    assert tracked.shipped(run.directory, "wandb")
    WeightsAndBiases().ship(run)  # nothing is new, so nothing is begun
    assert len(list(run.path("wandb").glob("offline-run-*"))) == 1


@pytest.mark.slow
def test_a_figure_that_fails_has_nothing_logged_twice(run):
    """At Weights & Biases, where what was logged stays."""
    tracker, logged = WeightsAndBiases(), []

    class Shown:
        def log(self, values):
            if "step" not in values:
                raise OSError("not a picture")
            logged.append(values["step"])

    tracker._open[run.id] = Shown()
    for _ in range(2):
        with pytest.raises(OSError, match="not a picture"):
            tracker.ship(run)
    assert logged == [0, 1, 2]


def test_a_tracker_that_fails_keeps_nothing_from_the_others(outputs, run, monkeypatch, capsys):
    def away(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("genpolicy.tracking.wandb.wandb.init", away)
    monkeypatch.setattr(follower, "PATIENCE_SECONDS", 0.2)
    uri = trackers.store_uri(None, outputs)
    with pytest.raises(SystemExit):
        follower.sync_run(run.directory, "wandb", uri, "tensorboard")
    assert "wandb: OSError: no network" in capsys.readouterr().out
    assert stored(outputs) == {run.id: journaled(run)}
    assert len(scalars(boarded(run))) == len(journaled(run))


def test_a_run_is_shipped_where_its_configuration_says(outputs):
    directories = []
    for seed, also in enumerate(("[]", "[tensorboard]")):
        run = opened(outputs, f"seed={seed}", f"tracking.also={also}", "tracking.uri=none")
        with run.recorded(device="cpu", data=DATA):
            pass
        run.close()
        directories.append(run.directory)
        assert follower.Tracker(run, synced_elsewhere=True).trackers == ["tensorboard"] * seed
    follower.sync_run(directories[0], "tensorboard")
    follower.sync_run(directories[1])
    assert [(directory / EVENTS).exists() for directory in directories] == [True, True]
    (directories[0] / EVENTS).unlink()
    (directories[0] / "tracking.json").unlink()
    sync.sync_all(outputs, "tensorboard", {}, own=True)
    assert not (directories[0] / EVENTS).exists()


def test_mode_sync_ships_all_runs_to_the_trackers_it_names(outputs, run):
    result = genpolicy("mode=sync", f"paths.outputs={outputs}", "tracking.also=[tensorboard]", "tracking.uri=none")
    assert result.code == 0, result.err
    assert f"up to date in tensorboard: 1 run of {outputs}" in result.out
    assert f"dashboard: tensorboard --logdir {outputs}" in result.out
    assert len(scalars(boarded(run))) == len(journaled(run))


def test_a_tracker_that_is_not_installed_or_not_known_is_one_line(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else found(name, *rest)
    )
    result = genpolicy("tracking.also=[wandb]", f"paths.outputs={tmp_path}")
    assert (result.code, result.out) == (1, "")
    assert result.err.endswith("tracking.also=wandb: not installed; pip install 'genpolicy[wandb]'\n")
    result = genpolicy("tracking.also=[comet]", f"paths.outputs={tmp_path}")
    assert "tracking.also: comet is none of tensorboard, wandb" in result.err
    assert list(Path(tmp_path).iterdir()) == []
