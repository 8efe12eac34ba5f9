"""The progress bar of a training run; it stays silent when standard error is not a terminal."""

import math
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from pgkit.system.output import TolerantStream

SECONDS_BETWEEN_REFRESHES = 0.1

Item = TypeVar("Item")


class ProgressBar:
    """Environment steps done and to do, steps per second, time left, and recent returns.

    Args:
        total: environment steps of the whole run.
        shown: whether to show the bar, on a terminal.
    """

    def __init__(self, total: int, shown: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns: list[Any] = [TextColumn("{task.percentage:>3.0f}%"), BarColumn()]
        columns += [TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps  {task.fields[speed]}")]
        columns += [TimeElapsedColumn(), TextColumn("<"), TimeRemainingColumn(), TextColumn("{task.fields[note]}")]
        stream: Any = TolerantStream(sys.stderr)
        self._shown = shown and stream.isatty()
        self._total = total
        self._refreshed = -math.inf
        self._progress = Progress(*columns, console=Console(file=stream), disable=not self._shown, refresh_per_second=4)
        self._task = self._progress.add_task("training", total=total, speed="", note="")

    def start(self) -> None:
        """Show the bar."""
        self._progress.start()

    def show(self, completed: float) -> None:
        """Set the steps done. There may be thousands of calls a second, so most of them only take effect later."""
        now = time.perf_counter()
        if not self._shown or (now - self._refreshed < SECONDS_BETWEEN_REFRESHES and completed < self._total):
            return
        self._refreshed = now
        speed = self._progress.tasks[0].speed
        self._progress.update(self._task, completed=completed, speed=f"{speed:,.0f} steps/s" if speed else "")

    def note(self, text: str) -> None:
        """Set the text at the end of the bar."""
        self._progress.update(self._task, note=text)

    def print(self, text: str) -> None:
        """Print a line above the bar, terminal or not."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Stop refreshing; the last state stays on the screen."""
        self._progress.stop()


def track(items: Iterable[Item], total: int, unit: str, shown: bool) -> Iterator[Item]:
    """Give the items one by one, and show on a terminal how many of them are done.

    Args:
        items: whatever takes its time.
        total: how many there will be.
        unit: what they are, in the plural.
        shown: whether to show a bar.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    stream: Any = TolerantStream(sys.stderr)
    columns: list[Any] = [BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeElapsedColumn(), TextColumn("<")]
    with Progress(
        *columns, TimeRemainingColumn(), console=Console(file=stream), disable=not (shown and stream.isatty())
    ) as bar:
        yield from bar.track(items, total=total)
