"""``metrics.parquet``: every logged number, one row each."""

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

Array = np.ndarray[Any, Any]

COLUMNS = ("member", "label", "step", "tag", "value", "wall_time")
"""member: position in the population; label: its name; step: its environment steps; wall_time: seconds since 1970."""


class ParquetWriter:
    """Collects rows in memory, column by column, and writes them; labels and tags are numbers until then.

    Args:
        path: the Parquet file.
        labels: the members' names.

    Attributes:
        count: how many rows there are so far.
    """

    def __init__(self, path: Path, labels: Sequence[str]) -> None:
        self._path = path
        self._labels = list(labels)
        self._tags: dict[str, int] = {}
        self._blocks: list[tuple[Array, ...]] = []
        self._changed = True
        self.count = 0

    def add(self, tag: str, members: Array, steps: Array, values: Array, now: float) -> None:
        """Add one row for each of M members; the arrays are ``(M,)``."""
        code = self._tags.setdefault(tag, len(self._tags))
        self._blocks.append((members, steps, np.full(len(members), code), values, np.full(len(members), now)))
        self._changed = True
        self.count += len(members)

    def write(self) -> None:
        """Replace the file, if there are new rows.

        Raises:
            WriteError: the system refuses to write.
        """
        if not self._changed:
            return
        write_table(self._path, self._table())
        self._changed = False

    def _table(self) -> "pa.Table":
        import pyarrow as pa

        empty = tuple(np.empty(0, dtype) for dtype in (np.int32, np.int64, np.int64, np.float64, np.float64))
        columns = [np.concatenate(parts) for parts in zip(empty, *self._blocks, strict=True)]
        self._blocks = [tuple(columns)]
        member, step, tag, value, wall_time = columns
        arrays = {
            "member": _number_array(member.astype(np.int32)),
            "label": _text_array(self._labels).take(_number_array(member)),
            "step": _number_array(step),
            "tag": _text_array(list(self._tags)).take(_number_array(tag)),
            "value": _number_array(value),
            "wall_time": _number_array(wall_time),
        }
        return pa.table(arrays)


def _number_array(column: Array) -> "pa.Array":
    """An Arrow array of numbers. ``pa.array`` would import pandas, which takes most of a second."""
    import pyarrow as pa

    return pa.Array.from_buffers(pa.from_numpy_dtype(column.dtype), len(column), [None, pa.py_buffer(column)])


def _text_array(texts: Sequence[str]) -> "pa.Array":
    """An Arrow array of texts, without pandas, too."""
    import pyarrow as pa

    data = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, data)])
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(data))]
    return pa.Array.from_buffers(pa.large_string(), len(data), buffers)


def write_frame(path: Path, frame: "pd.DataFrame") -> None:
    """Write a table as Parquet, without its index; the file is never half written.

    Raises:
        WriteError: the system refuses to write.
    """
    import pyarrow as pa

    write_table(path, pa.Table.from_pandas(frame, preserve_index=False))


def write_table(path: Path, table: "pa.Table") -> None:
    """Write an Arrow table as Parquet; the file is never half written.

    Raises:
        WriteError: the system refuses to write.
    """
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    replace_file(path, lambda file: file.write(buffer.getvalue()))


def read_metrics(path: Path) -> "pd.DataFrame":
    """Read a ``metrics.parquet``: rows in the order in which they were logged, columns as in :data:`COLUMNS`.

    >>> from pathlib import Path
    >>> from pgkit.logging import read_metrics
    >>> metrics = read_metrics(Path("runs/cartpole-actor-critic/metrics.parquet"))  # doctest: +SKIP
    >>> metrics[metrics["tag"] == "eval/return_mean"].groupby("step")["value"].mean()  # doctest: +SKIP

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
