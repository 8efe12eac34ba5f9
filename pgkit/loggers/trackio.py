"""Trackio: a run for each member in the project ``TRACKIO_PROJECT``, or pgkit; ``trackio show`` opens the dashboard."""

import io
import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from contextvars import Context
from typing import Any

import trackio
from trackio.sqlite_storage import SQLiteStorage

from pgkit.config.load import to_table
from pgkit.errors import PgkitError
from pgkit.loggers.logger import MemberRun, Row


class TrackioRun:
    """A run of Trackio.

    Args:
        run: as ``trackio.init`` returns it.
        rows: how many rows it has.
    """

    def __init__(self, run: Any, rows: int) -> None:
        self.rows = rows
        self._run = run
        self._last_step = 0

    def log(self, row: Row) -> None:
        """Log a row at its environment steps."""
        self._last_step = max(self._last_step, row.env_steps)
        self._run.log(dict(row.values), step=row.env_steps)

    def finish(self, status: str, final: Mapping[str, float]) -> None:
        """Log results, and write all that is queued."""
        if final:
            self._run.log(dict(final), step=self._last_step)
        with redirect_stdout(io.StringIO()):  # it says so for each run
            self._run.finish()


def open_run(member: MemberRun) -> TrackioRun:
    """Open the run of a member, whose name ends with its id: Trackio finds runs by their names."""
    project = os.environ.get("TRACKIO_PROJECT", "pgkit")
    settings = {
        "name": f"{member.config.name}-{member.id}",
        "group": member.config.name,
        "config": to_table(member.config),
        "resume": "allow" if member.resumed else "never",
        "auto_log_cpu": False,
        "auto_log_gpu": False,
    }
    with redirect_stdout(io.StringIO()):
        run = Context().run(trackio.init, project, **settings)  # a context of its own: init ends the run of its context
    if member.resumed and run.url is not None:
        raise PgkitError("a run is resumed without duplicates in local stores only: leave trackio out of the loggers")
    stored = SQLiteStorage.get_logs(project, run_id=run.id) if member.resumed else []
    return TrackioRun(run, sum(not any(tag.startswith("final/") for tag in row) for row in stored))
