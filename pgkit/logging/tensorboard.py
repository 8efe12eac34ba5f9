"""TensorBoard event files, written in the calling thread: a population has one file for each member.

``torch.utils.tensorboard`` starts a thread per file, and writes hyperparameters into a run of their own, away from
the scalars that TensorBoard's HParams tab is to show beside them. TensorBoard's own writer of records computes their
checksums in Python, which took much of the time of logging.
"""

import os
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c

from pgkit.logging.metrics import find
from pgkit.system.files import writing

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

Hyperparameter = bool | int | float | str

PATTERN = "events.out.tfevents.*"

_files = count()


class EventWriter:
    """One TensorBoard run: a directory with an event file.

    Args:
        directory: created when missing.
        again: older files of the run are void; a TensorBoard that is running forgets what it has read there.

    Raises:
        Unwritable: here and in all methods, when the system refuses to write.
    """

    def __init__(self, directory: Path, again: bool = False) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        now = time.time()
        name = f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}.{os.getpid()}.{next(_files)}"
        self._path = directory / name
        with writing(self._path):
            directory.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "xb")  # noqa: SIM115 - closed by close()
        self._described: set[str] = set()
        self._write(Event(wall_time=now, file_version="brain.Event:2"))
        if again:
            self._write(Event(wall_time=now, step=0, session_log=SessionLog(status=SessionLog.START)))
        self.flush()

    def scalars(self, step: int, numbers: Mapping[str, float], wall_time: float) -> None:
        """Add a point to each of these curves; a tag's first point carries its definition."""
        from tensorboard.compat.proto.event_pb2 import Event

        event = Event(wall_time=wall_time, step=step)
        for tag, number in numbers.items():
            value = event.summary.value.add(tag=tag, simple_value=number)
            if tag not in self._described and not tag.startswith("spread/"):
                self._described.add(tag)
                value.metadata.summary_description = find(tag).definition
        self._write(event)

    def text(self, tag: str, markdown: str) -> None:
        """Show a text in TensorBoard's Text tab."""
        self._plugin(tag, "text", b"", markdown.encode())

    def image(self, tag: str, png: bytes) -> None:
        """Show a picture (PNG) in TensorBoard's Images tab."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary()
        image = summary.value.add(tag=tag).image
        image.width, image.height = struct.unpack(">II", png[16:24])  # of the header, which is always the first chunk
        image.encoded_image_string = png
        self._summary(summary)

    def hyperparameters(self, hyperparameters: Mapping[str, Hyperparameter]) -> None:
        """Enter the run into TensorBoard's HParams tab.

        No experiment-wide list of columns is written: TensorBoard would take one run's list for all runs below its
        log directory. Without one it shows every hyperparameter and every scalar of all of them.
        """
        from tensorboard.plugins.hparams import summary_v2

        self._summary(summary_v2.hparams_pb(dict(hyperparameters), trial_id=""))  # a group of its own

    def session_end(self, success: bool) -> None:
        """Tell the HParams tab how the run ended."""
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

        status = api_pb2.STATUS_SUCCESS if success else api_pb2.STATUS_FAILURE
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
        data = plugin_data_pb2.HParamsPluginData(session_end_info=end, version=metadata.PLUGIN_DATA_VERSION)
        self._plugin(metadata.SESSION_END_INFO_TAG, metadata.PLUGIN_NAME, data.SerializeToString(), b"")

    def margin_charts(self, title: str, charts: Mapping[str, Sequence[tuple[str, str, str]]]) -> None:
        """Charts with bands for the Custom Scalars tab: title -> (middle, lower, upper) tags."""
        from tensorboard.plugins.custom_scalar import layout_pb2, metadata

        category = layout_pb2.Category(title=title)
        for name, series in charts.items():
            chart = category.chart.add(title=name)
            for middle, lower, upper in series:
                chart.margin.series.add(value=middle, lower=lower, upper=upper)
        layout = layout_pb2.Layout(version=0, category=[category])
        self._plugin(metadata.CONFIG_SUMMARY_TAG, metadata.PLUGIN_NAME, b"", layout.SerializeToString())

    def flush(self) -> None:
        """Hand everything to the system."""
        with writing(self._path):
            self._file.flush()

    def close(self) -> None:
        """Flush, and close the file."""
        with writing(self._path):
            self._file.close()

    def _plugin(self, tag: str, plugin: str, content: bytes, text: bytes) -> None:
        """A summary for a plugin: its metadata, and a string tensor."""
        from tensorboard.compat.proto import types_pb2
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary()
        value = summary.value.add(tag=tag)
        value.metadata.plugin_data.plugin_name, value.metadata.plugin_data.content = plugin, content
        value.tensor.dtype = types_pb2.DT_STRING
        value.tensor.string_val.append(text)
        self._summary(summary)

    def _summary(self, summary: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._write(Event(wall_time=time.time(), summary=summary))

    def _write(self, event: "Event") -> None:
        with writing(self._path):
            self._file.write(_record(event.SerializeToString()))


def _record(data: bytes) -> bytes:
    """As in TensorFlow's record files: the length, its checksum, the data, their checksum."""
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def _checksum(data: bytes) -> bytes:
    """CRC-32C, rotated and shifted, so that data with checksums in them are no special case."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
