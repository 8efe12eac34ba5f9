"""TensorBoard event files, written in the calling thread: a population has one file for each member.

``torch.utils.tensorboard`` is not used because it starts a thread per file, and because it writes hyperparameters into
a separate run, while TensorBoard's HParams tab needs them beside the scalars. TensorBoard's own record writer computes
checksums in Python, which took a large part of the time of logging; here ``google_crc32c`` does.
"""

import os
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import google_crc32c

from pgkit.logging.metrics import lookup
from pgkit.system.files import as_write_error

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

Hyperparameter = bool | int | float | str

PATTERN = "events.out.tfevents.*"

_files = count()


class ChartGroup(NamedTuple):
    """Charts of the Custom Scalars tab below one title.

    Attributes:
        title: of the group.
        bands: by chart title, the tags of its middle, lower and upper curve.
        lines: by chart title, the regular expression of the tags of its curves, in all runs that are selected.
    """

    title: str
    bands: Mapping[str, tuple[str, str, str]]
    lines: Mapping[str, str]


class TensorBoardWriter:
    """One TensorBoard run: a directory with an event file.

    Args:
        directory: created when missing.
        resumed: older event files of the run are void; a running TensorBoard drops what it has read from them.

    Raises:
        WriteError: the system refuses to write; so do all methods.
    """

    def __init__(self, directory: Path, resumed: bool = False) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        now = time.time()
        name = f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}.{os.getpid()}.{next(_files)}"
        self._path = directory / name
        with as_write_error(self._path):
            directory.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "xb")  # noqa: SIM115 - closed by close()
        self._described: set[str] = set()
        self._write(Event(wall_time=now, file_version="brain.Event:2"))
        if resumed:
            self._write(Event(wall_time=now, step=0, session_log=SessionLog(status=SessionLog.START)))
        self.flush()

    def scalars(self, step: int, numbers: Mapping[str, float], wall_time: float) -> None:
        """Add a point to the curve of each tag; the first point of a tag carries its definition."""
        from tensorboard.compat.proto.event_pb2 import Event

        event = Event(wall_time=wall_time, step=step)
        for tag, number in numbers.items():
            value = event.summary.value.add(tag=tag, simple_value=number)
            if tag not in self._described and not tag.startswith("spread/"):
                self._described.add(tag)
                value.metadata.summary_description = lookup(tag).definition
        self._write(event)

    def text(self, tag: str, markdown: str) -> None:
        """Show a text in TensorBoard's Text tab."""
        self._plugin(tag, "text", b"", markdown.encode())

    def image(self, tag: str, png: bytes) -> None:
        """Show an image (PNG) in TensorBoard's Images tab."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary()
        image = summary.value.add(tag=tag).image
        width, height = struct.unpack(">II", png[16:24])  # the PNG header is always the first chunk
        image.width = width
        image.height = height
        image.encoded_image_string = png
        self._summary(summary)

    def hyperparameters(self, hyperparameters: Mapping[str, Hyperparameter]) -> None:
        """List the run in TensorBoard's HParams tab.

        No list of columns is written: TensorBoard would apply the list of one run to all runs below its log directory.
        Without a list it shows every hyperparameter and every scalar of all runs.
        """
        from tensorboard.plugins.hparams import summary_v2

        self._summary(summary_v2.hparams_pb(dict(hyperparameters), trial_id=""))  # "": a group with this run only

    def session_end(self, success: bool) -> None:
        """Mark the run as succeeded or failed in the HParams tab."""
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

        status = api_pb2.STATUS_SUCCESS if success else api_pb2.STATUS_FAILURE
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
        data = plugin_data_pb2.HParamsPluginData(session_end_info=end, version=metadata.PLUGIN_DATA_VERSION)
        self._plugin(metadata.SESSION_END_INFO_TAG, metadata.PLUGIN_NAME, data.SerializeToString(), b"")

    def charts(self, groups: Sequence[ChartGroup]) -> None:
        """Fill the Custom Scalars tab, in this order."""
        from tensorboard.plugins.custom_scalar import layout_pb2, metadata

        layout = layout_pb2.Layout(version=0)
        for group in groups:
            category = layout.category.add(title=group.title)
            for name, (middle, lower, upper) in group.bands.items():
                category.chart.add(title=name).margin.series.add(value=middle, lower=lower, upper=upper)
            for name, pattern in group.lines.items():
                category.chart.add(title=name).multiline.tag.append(pattern)
        self._plugin(metadata.CONFIG_SUMMARY_TAG, metadata.PLUGIN_NAME, b"", layout.SerializeToString())

    def flush(self) -> None:
        """Hand all events so far to the operating system."""
        with as_write_error(self._path):
            self._file.flush()

    def close(self) -> None:
        """Flush, and close the file."""
        with as_write_error(self._path):
            self._file.close()

    def _plugin(self, tag: str, plugin: str, content: bytes, text: bytes) -> None:
        """Write a summary for a TensorBoard plugin: its metadata and a string tensor."""
        from tensorboard.compat.proto import types_pb2
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary()
        value = summary.value.add(tag=tag)
        value.metadata.plugin_data.plugin_name = plugin
        value.metadata.plugin_data.content = content
        value.tensor.dtype = types_pb2.DT_STRING
        value.tensor.string_val.append(text)
        self._summary(summary)

    def _summary(self, summary: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._write(Event(wall_time=time.time(), summary=summary))

    def _write(self, event: "Event") -> None:
        with as_write_error(self._path):
            self._file.write(_record(event.SerializeToString()))


def _record(data: bytes) -> bytes:
    """A TFRecord: length, its checksum, data, their checksum."""
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def _checksum(data: bytes) -> bytes:
    """CRC-32C, masked as TFRecord asks, so that data may contain checksums themselves."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
