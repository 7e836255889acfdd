"""TensorBoard's view of a run: one event file in its directory, which `tensorboard --logdir outputs` shows."""

import json
from typing import BinaryIO

from omegaconf import OmegaConf
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo
from tensorboard.plugins.text import summary_v2 as text
from tensorboard.summary.writer.record_writer import RecordWriter

from genpolicy.runs.identity import flat, shown
from genpolicy.runs.run import Run
from genpolicy.system.files import open_regular, read_regular
from genpolicy.tracking import tracked
from genpolicy.tracking.tracked import Record

EVENTS = "events.out.tfevents.genpolicy"  # in the run's directory, which names the run in TensorBoard
LARGEST_PICTURE = 2**24  # bytes


class TensorBoard:
    """Writes the events of runs. What an earlier process has written, but not noted, is cut off and written again."""

    uri = "tensorboard"

    def ship(self, run: Run) -> str:
        """Bring the run's event file up to date; returns the run's state. The caller holds the run's lock."""
        place, status = tracked.place(run.directory), run.status()
        record = Record(run.directory, self.uri, run.id)
        before, path = dict(record), run.path(EVENTS)
        with open_regular(path, "ab") as file:
            if file.tell() < record.get("size", 0):  # it is new, or was copied in part
                record.clear()
            file.truncate(record.get("size", 0))
            if "size" not in record:
                self._begin(file, run)
            for event, end in tracked.unsent(run, record):
                values = [Summary.Value(tag=name, simple_value=value) for name, value in event["metrics"].items()]
                _write(file, event["time"] / 1000, step=event["step"], summary=Summary(value=values))
                record |= {"offset": end, "step": event["step"]}
            for name, now in tracked.changed(run, record):
                if name.endswith(".png"):
                    picture = Summary.Image(encoded_image_string=read_regular(run.path(name), LARGEST_PICTURE))
                    image = Summary.Value(tag=name.removesuffix(".png"), image=picture)
                    _write(file, now[1] / 1e9, step=record.get("step", 0), summary=Summary(value=[image]))
                record["files"] = record.get("files", {}) | {name: now}
            file.flush()
            record["size"] = file.tell()
        record["state"] = status["state"]
        if record != before | {"place": place}:
            record.keep(place=place)
        return status["state"]

    def describe_sweeps(self) -> None:
        """Nothing: a sweep is a folder there."""

    def _begin(self, file: BinaryIO, run: Run) -> None:
        start = run.path("config.yaml").stat().st_mtime
        _write(file, start, file_version="brain.Event:2")
        settings = shown(OmegaConf.to_container(run.config))
        _write(file, start, summary=text.text_pb("config", f"```yaml\n{OmegaConf.to_yaml(settings)}\n```"))
        _write(file, start, summary=Summary(value=[_hyperparameters(dict(flat(settings)))]))


def _hyperparameters(settings: dict) -> Summary.Value:
    """The settings as TensorBoard's table of hyperparameters takes them: numbers, truth values and texts."""
    info = SessionStartInfo()
    for name, value in settings.items():
        if isinstance(value, bool):
            info.hparams[name].bool_value = value
        elif isinstance(value, int | float):
            info.hparams[name].number_value = value
        else:
            info.hparams[name].string_value = value if isinstance(value, str) else json.dumps(value)
    content = HParamsPluginData(session_start_info=info, version=hparams.PLUGIN_DATA_VERSION).SerializeToString()
    data = SummaryMetadata.PluginData(plugin_name=hparams.PLUGIN_NAME, content=content)
    return Summary.Value(tag=hparams.SESSION_START_INFO_TAG, metadata=SummaryMetadata(plugin_data=data))


def _write(file: BinaryIO, time: float, **content: object) -> None:
    RecordWriter(file).write(Event(wall_time=time, **content).SerializeToString())
