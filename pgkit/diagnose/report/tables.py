"""``tables/*.parquet``: a row for each point with all quantities, the verdicts, and the tables of the measurements.

Every table begins with the columns ``member``, ``label`` and ``env_steps``.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pgkit.diagnose.results import Diagnosis, PointResult, Quantity, Row, Verdict
from pgkit.errors import PgkitError
from pgkit.logging.parquet import write_table

KEYS = ("member", "label", "env_steps")
DERIVED = ("points", "verdicts")
"""Tables that repeat what ``diagnosis.json`` holds."""


def write_tables(diagnosis: Diagnosis, directory: Path) -> None:
    """Write ``<name>.parquet`` of every table that has rows, and of the points.

    Raises:
        WriteError: the system refuses to write.
    """
    tables: dict[str, Sequence[Row]] = {
        "points": [point_row(point) for point in diagnosis.points],
        "verdicts": [row for verdict in diagnosis.verdicts for row in verdict_rows(verdict)],
        **diagnosis.tables,
    }
    for name, rows in tables.items():
        if rows or name == "points":
            write_table(directory / f"{name}.parquet", arrow_table(rows))


def read_tables(directory: Path) -> dict[str, list[Row]]:
    """Read the rows of the tables that only Parquet holds; a cell without a value is None.

    Raises:
        PgkitError: a file cannot be read.
    """
    tables = {}
    for path in sorted(directory.glob("*.parquet")):
        if path.stem not in DERIVED:
            try:
                tables[path.stem] = pq.read_table(path).to_pylist()
            except (OSError, pa.ArrowException) as error:
                raise PgkitError(f"cannot read {path}: {str(error).splitlines()[0]}") from None
    return tables


def arrow_table(rows: Sequence[Row]) -> pa.Table:
    """Return rows as an Arrow table, the keys first; a row that lacks a column has null there.

    >>> arrow_table([{"value": 1.5, "member": 3, "label": "seed-3", "env_steps": 0.0}]).column_names
    ['member', 'label', 'env_steps', 'value']
    """
    names = dict.fromkeys([*KEYS, *(name for row in rows for name in row)])
    return pa.table({name: _column([row.get(name) for row in rows]) for name in names})


def _column(values: list[Any]) -> pa.Array:
    """A column; one of texts, numbers and lists at once holds JSON."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else json.dumps(value, default=str) for value in values])


def point_row(point: PointResult) -> Row:
    """Return the row of a point: each quantity by its name, and with ``_low`` and ``_high``."""
    row: dict[str, Any] = _keys(point.member, point.env_steps) | {"share": point.share, "critical": point.critical}
    for name, quantity in point.quantities.items():
        row |= {name: float(quantity.value), f"{name}_low": float(quantity.low), f"{name}_high": float(quantity.high)}
    return row


def verdict_rows(verdict: Verdict) -> list[Row]:
    """Return a row for each point that a verdict is about, or one row without ``env_steps`` if it names none."""
    words = {"rule": verdict.rule, "words": verdict.words, "refuted_by": verdict.refuted_by}
    words["numbers"] = json.dumps(list(verdict.evidence))
    about: list[float | None] = [*verdict.env_steps] or [None]
    return [{**_keys(verdict.member, env_steps), **words} for env_steps in about]


def _keys(label: str, env_steps: float | None) -> dict[str, Any]:
    return {"member": member_number(label), "label": label, "env_steps": env_steps}


def member_number(label: str) -> int | None:
    """Return the seed in the label of a member, such as 3 of ``"seed-3"``; None if there is none."""
    number = label.rpartition("-")[2]
    return int(number) if number.isdecimal() else None


def evidence(verdict: Verdict, points: Sequence[PointResult]) -> dict[str, dict[float, Quantity]]:
    """Return the quantities that a verdict rests on, by name and environment steps of its points that have them."""
    about = [point for point in points if point.member == verdict.member and point.env_steps in verdict.env_steps]
    numbers = {
        name: {point.env_steps: point.quantities[name] for point in about if name in point.quantities}
        for name in verdict.evidence
    }
    return {name: by_steps for name, by_steps in numbers.items() if by_steps}
