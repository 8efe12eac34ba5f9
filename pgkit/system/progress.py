"""The progress bar of a training run: silent when the output is no terminal."""

import math
import sys
import time
from typing import Any

SECONDS = 0.1
"""The bar takes notice so often."""


class ProgressBar:
    """Environment steps done of all that are asked for, steps per second, time left, and recent returns."""

    def __init__(self, total: int, shown: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns: list[Any] = [TextColumn("{task.percentage:>3.0f}%"), BarColumn()]
        columns += [TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps  {task.fields[speed]}")]
        columns += [TimeElapsedColumn(), TextColumn("<"), TimeRemainingColumn(), TextColumn("{task.fields[note]}")]
        self._shown, self._total, self._at = shown and sys.stderr.isatty(), total, -math.inf
        self._progress = Progress(*columns, console=Console(stderr=True), disable=not self._shown, refresh_per_second=4)
        self._task = self._progress.add_task("training", total=total, speed="", note="")

    def start(self) -> None:
        """Show it."""
        self._progress.start()

    def show(self, completed: float) -> None:
        """Set the steps that are done; seen at once only at the end, because updates may be thousands a second."""
        now = time.perf_counter()
        if not self._shown or (now - self._at < SECONDS and completed < self._total):
            return
        self._at = now
        speed = self._progress.tasks[0].speed
        self._progress.update(self._task, completed=completed, speed=f"{speed:,.0f} steps/s" if speed else "")

    def note(self, text: str) -> None:
        """Set the text at the end."""
        self._progress.update(self._task, note=text)

    def say(self, text: str) -> None:
        """Print a line that stays, terminal or not."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Leave the last state on the screen."""
        self._progress.stop()
