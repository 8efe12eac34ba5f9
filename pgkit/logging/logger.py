"""The log of a run: TensorBoard and ``metrics.parquet``, for one member or a population."""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pgkit.logging.metrics import find
from pgkit.logging.parquet import Rows
from pgkit.logging.tensorboard import PATTERN, EventWriter, Hyperparameter

if TYPE_CHECKING:
    import pandas as pd

CHARTED = ("train/episode_return", "eval/return_mean", "train/episode_length", "eval/length_mean")
"""What the Custom Scalars tab shows as a median with a band from 10 % to 90 % of the members."""

_QUANTILES = {"{}": 0.5, "spread/{}/p10": 0.1, "spread/{}/p90": 0.9}

Array = np.ndarray[Any, Any]


class Recorder:
    """Writes what is logged.

    One member: a TensorBoard run in ``directory``. Several: one in ``<directory>/<label>/`` for each, and one in
    ``<directory>/summary/`` with the members' median under each tag, and ``spread/<tag>/p10`` and ``.../p90``.
    The event files hold nothing that is not in ``metrics.parquet``, so those of an interrupted run are written anew,
    from its rows, by a recorder made ``again`` and :meth:`replay`.

    Args:
        directory: of the run; created when missing.
        labels: the members' names, all different.
        config_text: the resolved configuration (TOML), shown in TensorBoard's Text tab.
        hparams: the hyperparameters of each member, by name, for the HParams tab.
        again: the run goes on; its earlier event files are void.
    """

    def __init__(
        self,
        directory: Path,
        labels: Sequence[str],
        config_text: str,
        hparams: Sequence[Mapping[str, Hyperparameter]],
        again: bool = False,
    ) -> None:
        if not labels or not len(set(labels)) == len(labels) == len(hparams):
            raise ValueError(f"{len(labels)} labels, not all different or not as many as the {len(hparams)} hparams")
        size = len(labels)
        places = [directory] if size == 1 else [directory / label for label in labels]
        self._void = [file for place in (*places, directory / "summary") for file in place.glob(PATTERN)]
        self._writers = [EventWriter(place, again) for place in places]
        self._rows = Rows(directory / "metrics.parquet", labels)
        self._summary = Summary(directory / "summary", size, again) if size > 1 else None
        for writer, chosen in zip(self._writers, hparams, strict=True):
            writer.text("config", _toml_block(config_text))
            writer.hyperparameters(chosen)
            writer.flush()
        self._last = np.zeros(size, np.int64)  # the step of each member's last row
        self._latest = -math.inf  # time of the last row
        self._finished = self._closed = False

    def texts(self, tag: str, tomls: Sequence[str]) -> None:
        """Show a piece of TOML for each member in TensorBoard's Text tab."""
        for writer, toml in zip(self._writers, tomls, strict=True):
            writer.text(tag, _toml_block(toml))
            writer.flush()

    def log(self, steps: Sequence[float] | Array, values: Mapping[str, Sequence[float] | Array]) -> int:
        """One row of each member; how many numbers there are in it.

        Args:
            steps: ``(P,)`` environment steps of each member.
            values: ``(P,)`` numbers by tag; NaN where a member has nothing to log. Infinities are logged as they are.

        Raises:
            PgkitError: a tag is not in the table of metrics; then nothing is logged.
        """
        at = np.asarray(steps, dtype=np.float64).astype(np.int64)
        columns = {tag: np.asarray(numbers, dtype=np.float64) for tag, numbers in values.items()}
        for tag, column in columns.items():
            find(tag)
            if not column.shape == at.shape == (len(self._writers),):
                raise ValueError(f"{tag} has shape {column.shape}, steps {at.shape}, members: {len(self._writers)}")
        before = self._rows.count
        self._write(at, columns, max(time.time(), math.nextafter(self._latest, math.inf)))  # clocks may go back
        return self._rows.count - before

    def replay(self, rows: "pd.DataFrame") -> None:
        """Log again what :func:`read_metrics` read of the run so far, and remove its earlier event files.

        Each call of :meth:`log` had a time of its own.
        """
        size, columns = len(self._writers), {name: rows[name].to_numpy() for name in rows}
        for call in _runs_of(columns["wall_time"], 0, len(rows)):
            steps, values = np.zeros(size, np.int64), dict[str, Array]()
            for block in _runs_of(columns["tag"], call.start, call.stop):
                members = columns["member"][block]
                steps[members] = columns["step"][block]
                values[columns["tag"][block.start]] = column = np.full(size, np.nan)
                column[members] = columns["value"][block]
            self._write(steps, values, float(columns["wall_time"][call.start]))
        for file in self._void:
            file.unlink(missing_ok=True)

    def _write(self, at: Array, columns: Mapping[str, Array], now: float) -> None:
        self._latest = now
        members = {tag: np.flatnonzero(~np.isnan(column)) for tag, column in columns.items()}
        points: dict[int, dict[str, float]] = {}
        for tag, index in members.items():
            if len(index):
                self._rows.add(tag, index, at[index], columns[tag][index], now)
            for member in index.tolist():
                points.setdefault(member, {})[tag] = float(columns[tag][member])
        for member, numbers in points.items():
            self._last[member] = max(self._last[member], at[member])
            self._writers[member].scalars(int(at[member]), numbers, now)
            self._writers[member].flush()
        if self._summary is not None:
            self._summary.see(at, {tag: (index, columns[tag][index]) for tag, index in members.items()}, now)

    def hparams(self, final: Sequence[Mapping[str, float]], steps: Sequence[float] | None = None) -> None:
        """Log the final numbers of each member, which the HParams tab then shows, and call the run finished.

        Args:
            final: for each member, numbers by tag.
            steps: ``(P,)``; by default that of each member's last row.

        Raises:
            PgkitError: a tag is not in the table of metrics.
        """
        tags = dict.fromkeys(tag for numbers in final for tag in numbers)
        at = self._last if steps is None else np.asarray(steps)
        self.log(at, {tag: [numbers.get(tag, np.nan) for numbers in final] for tag in tags})
        self._finished = True

    def flush(self) -> int:
        """Write everything so far, ``metrics.parquet`` included (whole, so not after every row); its rows."""
        self._rows.write()
        return self._rows.count

    def close(self, write: bool = True) -> None:
        """Write the rest, once; a run whose final numbers never came is marked as failed in the HParams tab.

        With ``write`` False ``metrics.parquet`` stays as it is.
        """
        if self._closed:
            return
        self._closed = True
        with ExitStack() as stack:  # all are closed, even if one refuses; from the last to the first
            for writer in self._writers:
                stack.callback(writer.close)
                stack.callback(writer.session_end, self._finished)
            if self._summary is not None:
                stack.callback(self._summary.close)
            if write:
                stack.callback(self._rows.write)


def _runs_of(column: Array, begin: int, end: int) -> list[slice]:
    """Where neighbours in a part of a column are equal."""
    own = column[begin:end]
    bounds = [begin, *(np.flatnonzero(own[1:] != own[:-1]) + begin + 1).tolist(), end]
    return [slice(first, last) for first, last in pairwise(bounds)] if end > begin else []


def _toml_block(text: str) -> str:
    return f"```toml\n{text.strip()}\n```"


class Summary:
    """Median and spread over members, of each member's latest number.

    Members log at different times. A point is written as soon as more than half of them have a new number, at the
    median of their steps; those without a new one (failed, finished, or just late) enter with their latest.
    """

    def __init__(self, directory: Path, size: int, again: bool) -> None:
        self._writer = EventWriter(directory, again)
        low, high = "spread/{}/p10", "spread/{}/p90"
        charts = {tag: [(tag, low.format(tag), high.format(tag))] for tag in CHARTED}
        self._writer.margin_charts("median and 10-90 % of members", charts)
        self._size = size
        self._latest: dict[str, tuple[Array, Array]] = {}  # (P,) steps and numbers
        self._new: dict[str, Array] = {}

    def see(self, steps: Array, numbers: Mapping[str, tuple[Array, Array]], now: float) -> None:
        """Take notice of new numbers: (members, their numbers) by tag."""
        due = []
        for tag, (members, values) in numbers.items():
            nothing = np.zeros(self._size, np.int64), np.full(self._size, np.nan)
            latest_steps, latest = self._latest.setdefault(tag, nothing)
            latest_steps[members], latest[members] = steps[members], values
            new = self._new.setdefault(tag, np.zeros(self._size, bool))
            new[members] = True
            if 2 * new.sum() > self._size:
                due.append(tag)
        self._write(due, now)

    def close(self) -> None:
        """Write a last point of each curve that has changed since."""
        with closing(self._writer):
            self._finish()

    def _finish(self) -> None:
        self._write([tag for tag, new in self._new.items() if new.any()], time.time())

    def _write(self, tags: Sequence[str], now: float) -> None:
        """A point of each of these curves."""
        points: dict[int, dict[str, float]] = {}
        groups: dict[bytes, list[str]] = {}  # curves of the same members at the same steps
        for tag in tags:
            self._new[tag][:] = False
            steps, latest = self._latest[tag]
            known = ~np.isnan(latest)
            groups.setdefault(known.tobytes() + steps[known].tobytes(), []).append(tag)
        for tags in groups.values():
            steps, latest = self._latest[tags[0]]
            known = ~np.isnan(latest)
            numbers = np.stack([self._latest[tag][1][known] for tag in tags], 1)
            with np.errstate(invalid="ignore"):  # interpolating between infinities
                quantiles = np.quantile(numbers, list(_QUANTILES.values()), axis=0)
            own = points.setdefault(int(np.median(steps[known])), {})
            for tag, column in zip(tags, quantiles.T.tolist(), strict=True):
                named = zip(_QUANTILES, column, strict=True)
                own |= {name.format(tag): number for name, number in named if not np.isnan(number)}
        for step, values in points.items():
            self._writer.scalars(step, values, now)
        self._writer.flush()
