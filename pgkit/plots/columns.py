"""Tables of a page: columns with headers, formats and help texts, and cells with the exact values behind them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd


def number(value: float) -> str:
    """Format a score."""
    return f"{value:.3f}".replace("-", "\u2212")


def p_value(value: float) -> str:
    """Format a p-value, never as zero."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def reward(value: float) -> str:
    """Format a return, in the environment's units."""
    return f"{value:.1f}".replace("-", "\u2212")


def word(value: object) -> str:
    """Format a text, or a bool as yes or no."""
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def whole(value: float) -> str:
    """Format a count or a seed."""
    return f"{value:.0f}"


class Column(NamedTuple):
    """A column as shown.

    Attributes:
        name: its name in the stored table.
        header: its name in the report.
        show: formats a value as text.
        help: explanation; empty where the header suffices.
        limits: columns with the ends of its confidence interval, or none.
    """

    name: str
    header: str
    show: Callable[[Any], str] = number
    help: str = ""
    limits: tuple[str, str] | tuple[()] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Columns of the stored table that it shows."""
        return (self.name, *self.limits)

    @property
    def is_text(self) -> bool:
        """Whether it holds text, which is aligned left."""
        return self.show is word


@dataclass(frozen=True)
class View:
    """A table as shown in the report.

    Attributes:
        table: its name among the stored tables.
        caption: title of the table.
        columns: its columns, in order.
        open: whether the page shows it unfolded.
        rows: (column, value) of the rows that are shown; None: all.
    """

    table: str
    caption: str
    columns: Sequence[Column]
    open: bool = False
    rows: tuple[str, str] | None = None


class Cell(NamedTuple):
    """What is shown, and the exact values behind it: the number or text, and the limits of its interval."""

    text: str
    values: tuple[Any, ...]


def cells(view: View, rows: pd.DataFrame) -> list[list[Cell]]:
    """Return the cells of a view of these rows."""
    if view.rows is not None:
        rows = rows[rows[view.rows[0]] == view.rows[1]]
    records = rows.to_dict("records")
    return [[cell(column, record) for column in view.columns] for record in records]


def cell(column: Column, record: Mapping[str, Any]) -> Cell:
    """Return one cell, such as ``0.912 [0.880, 0.944]``."""
    values = tuple(record[name] for name in column.names)
    text = show(column.show, values[0])
    if column.limits:
        text += f" [{show(column.show, values[1])}, {show(column.show, values[2])}]"
    return Cell(text, values)


def show(how: Callable[[Any], str], value: Any) -> str:
    """Format a value; NaN becomes a dash."""
    return "\u2013" if isinstance(value, float) and math.isnan(value) else how(value)


def estimate(name: str, header: str, show: Callable[[Any], str] = number, help: str = "") -> Column:
    """Return a column with its interval from ``<name>_low`` to ``<name>_high``."""
    return Column(name, header, show, help, (f"{name}_low", f"{name}_high"))
