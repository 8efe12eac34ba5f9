"""``metrics.parquet``: every logged scalar, one row each."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pgkit.errors import PgkitError
from pgkit.system.files import replace_file

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

COLUMNS = ("member", "label", "step", "tag", "value", "wall_time")
"""member: position in the population; label: its name; step: its environment steps; wall_time: seconds since 1970."""


class Rows:
    """Rows in memory, column by column; labels and tags as numbers until they are written.

    Args:
        path: the Parquet file.
        labels: the members' names.
    """

    def __init__(self, path: Path, labels: Sequence[str]) -> None:
        self._path, self._labels = path, list(labels)
        self._tags: dict[str, int] = {}
        self._blocks: list[tuple[np.ndarray[Any, Any], ...]] = []
        self._changed = True
        self.count = 0

    def add(
        self,
        tag: str,
        member: np.ndarray[Any, Any],
        step: np.ndarray[Any, Any],
        value: np.ndarray[Any, Any],
        now: float,
    ) -> None:
        """One number of each of these members."""
        code = self._tags.setdefault(tag, len(self._tags))
        self._blocks.append((member, step, np.full(len(member), code), value, np.full(len(member), now)))
        self._changed = True
        self.count += len(member)

    def write(self) -> None:
        """Replace the file, if there is anything new.

        Raises:
            PgkitError: the system refuses to write.
        """
        if not self._changed:
            return
        _write(self._path, self._table())
        self._changed = False

    def _table(self) -> "pa.Table":
        import pyarrow as pa

        empty = tuple(np.empty(0, dtype) for dtype in (np.int32, np.int64, np.int64, np.float64, np.float64))
        columns = [np.concatenate(parts) for parts in zip(empty, *self._blocks, strict=True)]
        member, step, tag, value, wall_time = columns
        self._blocks = [tuple(columns)]
        labels, tags = _texts(self._labels).take(_numbers(member)), _texts(list(self._tags)).take(_numbers(tag))
        own, steps, values, times = map(_numbers, (member.astype(np.int32), step, value, wall_time))
        return pa.table(dict(zip(COLUMNS, (own, labels, steps, tags, values, times), strict=True)))


def _numbers(column: np.ndarray[Any, Any]) -> "pa.Array":
    """An Arrow column, without ``pa.array``, which imports pandas."""
    import pyarrow as pa

    return pa.Array.from_buffers(pa.from_numpy_dtype(column.dtype), len(column), [None, pa.py_buffer(column)])


def _texts(texts: Sequence[str]) -> "pa.Array":
    """The same of texts."""
    import pyarrow as pa

    data = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, data)])
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(data))]
    return pa.Array.from_buffers(pa.large_string(), len(data), buffers)


def write_metrics(path: Path, rows: "pd.DataFrame") -> None:
    """Replace a ``metrics.parquet``.

    Raises:
        PgkitError: the system refuses to write.
    """
    import pyarrow as pa

    _write(path, pa.Table.from_pandas(rows, preserve_index=False))


def _write(path: Path, table: "pa.Table") -> None:
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    replace_file(path, lambda file: file.write(buffer.getvalue()))


def read_metrics(path: Path) -> "pd.DataFrame":
    """The rows of a ``metrics.parquet``, in the order in which they were logged; columns as in ``COLUMNS``.

    Raises:
        PgkitError: there is no such file, or it cannot be read.
    """
    import pandas as pd
    import pyarrow as pa

    try:
        return pd.read_parquet(path, columns=list(COLUMNS))
    except (OSError, pa.ArrowException) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0]
        raise PgkitError(f"cannot read {path}: {reason}") from None
