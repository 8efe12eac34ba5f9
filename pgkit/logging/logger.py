"""The log of a run: TensorBoard and ``metrics.parquet``, for one member or a population."""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pgkit.logging.metrics import lookup
from pgkit.logging.parquet import ParquetWriter
from pgkit.logging.summary import SummaryWriter
from pgkit.logging.tensorboard import PATTERN, Hyperparameter, TensorBoardWriter
from pgkit.system.files import as_write_error

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, Any]


class Logger:
    """Writes rows of numbers to TensorBoard and ``metrics.parquet``.

    One member is one TensorBoard run, in ``directory``. Several have a run each, in ``<directory>/<label>/``, and share
    one in ``<directory>/summary/``: see :class:`~pgkit.logging.summary.SummaryWriter`. Texts that are the same for all
    of them are shown once, there.
    ``metrics.parquet`` holds everything that the event files hold, so a resumed run writes these again from its rows:
    see ``resumed`` and :meth:`replay`.

    Args:
        directory: of the run; created when missing.
        labels: the members' names, all different.
        config_text: the resolved configuration (TOML), shown in TensorBoard's Text tab.
        hparams: the hyperparameters of each member, by name, for the HParams tab.
        resumed: whether the run is resumed, so that its earlier event files are void.
        tensorboard: whether to write event files at all.

    Raises:
        WriteError: the system refuses to write; so do all methods.
    """

    def __init__(
        self,
        directory: Path,
        labels: Sequence[str],
        config_text: str,
        hparams: Sequence[Mapping[str, Hyperparameter]],
        resumed: bool = False,
        tensorboard: bool = True,
    ) -> None:
        if not labels or not len(set(labels)) == len(labels) == len(hparams):
            raise ValueError(f"{len(labels)} labels, not all different or not as many as the {len(hparams)} hparams")
        size = len(labels)
        places = [directory] if size == 1 else [directory / label for label in labels]
        self._void_files = [file for place in (*places, directory / "summary") for file in place.glob(PATTERN)]
        with as_write_error(directory):
            directory.mkdir(parents=True, exist_ok=True)
        self._writers = [TensorBoardWriter(place, resumed) for place in places] if tensorboard else []
        self._parquet = ParquetWriter(directory / "metrics.parquet", labels)
        self._summary = SummaryWriter(directory / "summary", size, resumed) if tensorboard and size > 1 else None
        self.texts("config", [config_text] * size)
        for writer, member_hparams in zip(self._writers, hparams, strict=False):
            writer.hyperparameters(member_hparams)
            writer.flush()
        self._last_steps = np.zeros(size, np.int64)  # of each member's last row
        self._last_time = -math.inf
        self._finished = False
        self._closed = False

    def texts(self, tag: str, tomls: Sequence[str]) -> None:
        """Show a TOML text for each member in TensorBoard's Text tab, one for all members if they are the same."""
        if self._summary is not None and len(set(tomls)) == 1:
            self._summary.text(tag, _toml_block(tomls[0]))
            return
        for writer, toml in zip(self._writers, tomls, strict=False):
            writer.text(tag, _toml_block(toml))
            writer.flush()

    def log(
        self,
        env_steps: Sequence[float] | Array,
        values: Mapping[str, Sequence[float] | Array],
        members: Sequence[int] | None = None,
    ) -> int:
        """Log one row for each of some members.

        Args:
            env_steps: ``(M,)``, environment steps of each of these members.
            values: by tag, ``(M,)`` each. NaN is not logged; infinities are.
            members: which M members, in ascending order; by default all.

        Returns:
            How many numbers were logged.

        Raises:
            PgkitError: a tag is not in the table of metrics; nothing is logged then.
        """
        index = np.arange(len(self._last_steps)) if members is None else np.asarray(members, np.int64)
        steps = np.asarray(env_steps, dtype=np.float64).astype(np.int64)
        columns = {tag: np.asarray(numbers, dtype=np.float64) for tag, numbers in values.items()}
        for tag, column in columns.items():
            lookup(tag)
            if not column.shape == steps.shape == index.shape:
                raise ValueError(f"{tag} has shape {column.shape}, steps {steps.shape}, members: {len(index)}")
        before = self._parquet.count
        # A clock may be set back, but each call must have a later time than the one before: replay() tells them apart
        # by it.
        self._write(index, steps, columns, max(time.time(), math.nextafter(self._last_time, math.inf)))
        return self._parquet.count - before

    def replay(self, rows: "pd.DataFrame") -> None:
        """Log the rows of a resumed run again, as :func:`read_metrics` returns them; remove its earlier event files."""
        columns = {name: rows[name].to_numpy() for name in rows}
        for call in _runs_of_equals(columns["wall_time"], 0, len(rows)):
            members = np.unique(columns["member"][call])
            steps = np.zeros(len(members), np.int64)
            values = dict[str, Array]()
            for block in _runs_of_equals(columns["tag"], call.start, call.stop):
                position = np.searchsorted(members, columns["member"][block])
                steps[position] = columns["step"][block]
                column = np.full(len(members), np.nan)
                column[position] = columns["value"][block]
                values[columns["tag"][block.start]] = column
            self._write(members, steps, values, float(columns["wall_time"][call.start]))
        for file in self._void_files:
            file.unlink(missing_ok=True)

    def _write(self, members: Array, steps: Array, columns: Mapping[str, Array], now: float) -> None:
        """Write rows of these members: steps ``(M,)`` and columns ``(M,)`` in their order."""
        self._last_time = now
        points: dict[int, dict[str, float]] = {}
        logged: dict[str, tuple[Array, Array, Array]] = {}
        for tag, column in columns.items():
            present = ~np.isnan(column)
            entry = (members[present], steps[present], column[present])
            logged[tag] = entry
            if len(entry[0]):
                self._parquet.add(tag, *entry, now)
            for row in np.flatnonzero(present).tolist():
                points.setdefault(row, {})[tag] = float(column[row])
        for row, numbers in points.items():
            member = int(members[row])
            step = int(steps[row])
            self._last_steps[member] = max(self._last_steps[member], step)
            if self._writers:
                self._writers[member].scalars(step, numbers, now)
                self._writers[member].flush()
        if self._summary is not None:
            self._summary.add(logged, now)

    def hparams(self, final: Sequence[Mapping[str, float]]) -> None:
        """Log each member's final numbers by tag, which the HParams tab shows, and mark the run as finished.

        Raises:
            PgkitError: a tag is not in the table of metrics.
        """
        tags = dict.fromkeys(tag for numbers in final for tag in numbers)
        self.log(self._last_steps, {tag: [numbers.get(tag, np.nan) for numbers in final] for tag in tags})
        self._finished = True

    def flush(self) -> int:
        """Write ``metrics.parquet``, which is replaced as a whole, so not after every row; returns its rows."""
        self._parquet.write()
        return self._parquet.count

    def close(self, write: bool = True) -> None:
        """Write what is left and close all files; a run without final numbers is marked as failed in the HParams tab.

        Args:
            write: whether to write ``metrics.parquet``, too.
        """
        if self._closed:
            return
        self._closed = True
        with ExitStack() as stack:  # closes all writers, last in first out, even if one of them raises
            for writer in self._writers:
                stack.callback(writer.close)
                stack.callback(writer.session_end, self._finished)
            if self._summary is not None:
                stack.callback(self._summary.close)
            if write:
                stack.callback(self._parquet.write)


def _runs_of_equals(column: Array, begin: int, end: int) -> list[slice]:
    """Slices of ``column[begin:end]`` in which neighbours are equal."""
    part = column[begin:end]
    bounds = [begin, *(np.flatnonzero(part[1:] != part[:-1]) + begin + 1).tolist(), end]
    return [slice(first, last) for first, last in pairwise(bounds)] if end > begin else []


def _toml_block(text: str) -> str:
    return f"```toml\n{text.strip()}\n```"
