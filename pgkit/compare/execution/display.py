"""Progress of a comparison in the terminal: stage, runs, speed, time left and the leading arms."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from pgkit.compare.plan.baselines import ScoreScale
from pgkit.compare.plan.plan import Plan
from pgkit.compare.selection.scores import complete, score_runs
from pgkit.compare.selection.stages import Stage
from pgkit.system.output import TolerantStream


class Display:
    """A context that shows progress; without a terminal it prints one line per stage.

    Args:
        shown: False prints warnings only.
    """

    def __init__(self, shown: bool = True) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        stream: Any = TolerantStream(sys.stderr)
        console = Console(file=stream, highlight=False, markup=False, soft_wrap=True)
        columns: list[Any] = [TextColumn("{task.description:<11}"), BarColumn()]
        columns += [TextColumn("{task.fields[runs]}  {task.fields[speed]}"), TimeElapsedColumn(), TextColumn("<")]
        self._progress = Progress(*columns, TimeRemainingColumn(), console=console)
        self._live = Live(self._progress, console=console, refresh_per_second=4)
        self._shown = shown
        self._is_live = shown and stream.isatty()
        self._task: Any = None
        self._running: dict[int, float] = {}
        self._finished = 0.0
        self._runs = [0, 0]

    def __enter__(self) -> "Display":
        if self._is_live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._is_live:
            self._live.stop()

    def begin(self, stage: Stage, env_steps: float) -> None:
        """Begin a stage of ``env_steps`` environment steps."""
        self._running = {}
        self._finished = 0.0
        self._runs = [len(stage.runs) - len(stage.todo), len(stage.runs)]
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(stage.name, total=env_steps, runs="", speed="")
        if not self._is_live and self._shown:
            until = "" if stage.share == 1 else f", to {stage.share:.0%} of their steps"
            self.say(f"{stage.name}: {len(stage.todo)} runs{until}")
        self.refresh()

    def steps(self, batch: int, steps: float) -> None:
        """Record the environment steps of a running batch."""
        self._running[batch] = steps

    def done(self, batch: int, runs: int, steps: float) -> None:
        """Record that a batch is stored."""
        self._running.pop(batch, None)
        self._finished += steps
        self._runs[0] += runs

    def refresh(self) -> None:
        """Redraw the progress bar."""
        speed = self._progress.tasks[-1].speed
        self._progress.update(
            self._task,
            completed=self._finished + sum(self._running.values()),
            runs=f"{self._runs[0]}/{self._runs[1]} runs",
            speed=f"{speed:,.0f} steps/s" if speed else "",
        )

    def leaders(self, plan: Plan, scale: Mapping[str, ScoreScale], load: Callable[[], pd.DataFrame]) -> None:
        """Show the best mean score of every arm so far in each case; results are loaded only if there is a terminal."""
        if self._is_live:
            from rich.console import Group

            self._live.update(Group(self._progress, _leader_board(plan, scale, load())))

    def say(self, text: str) -> None:
        """Print a line that stays, with or without a terminal."""
        self._progress.console.print(text)


def _leader_board(plan: Plan, scale: Mapping[str, ScoreScale], stored: pd.DataFrame) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table("environment", "agent", *plan.arms, box=SIMPLE_HEAD, title="best mean score so far (lr)")
    means = score_runs(plan, scale, complete(stored)).groupby(["environment", "agent", "optimizer", "lr"])["auc"].mean()
    for case in plan.cases:
        cells = []
        for arm in plan.arms:
            key = (case.environment, case.agent, arm)
            of_arm = means.loc[key] if key in means.index.droplevel("lr") else means.iloc[:0]
            cells.append(f"{of_arm.max():.2f} ({of_arm.idxmax():g})" if len(of_arm) else "")
        table.add_row(case.environment, case.agent, *cells)
    return table
