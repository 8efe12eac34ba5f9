"""Tables on standard output."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console


def print_result(table: Sequence[Mapping[str, Any]], summary: Mapping[str, float], title: str) -> None:
    """Print one row per seed and, if there are several, their spread."""
    print_table(table, title)
    if len(table) > 1:
        failed = {"failed": sum(row["failed"] for row in table)} if "failed" in table[0] else {}
        print_table([{**summary, **failed}], "Mean returns over seeds")


def print_table(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print rows with the same keys as a table, numbers flush right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for index, key in enumerate(rows[0] if rows else ()):
        numeric = all(type(row[key]) in (int, float) for row in rows)
        justify: Literal["left", "right"] = "right" if numeric else "left"
        table.add_column(key.replace("_", " "), justify=justify, no_wrap=index == 0, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(key, value) for key, value in row.items()))
    console().print(table)


def print_lines(lines: Mapping[str, str]) -> None:
    """Print lines that begin with their keys."""
    for key, text in lines.items():
        console().print(f"{key:<{max(map(len, lines))}}  {text}")


def console() -> "Console":
    """Return standard output, wide if it is not a terminal, so that each row stays on one line."""
    from rich.console import Console

    return Console(highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)


def _cell(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and key != "seed" else str(value)
