"""A callback that logs each member as a run of its own, somewhere that is not the run directory."""

import json
import math
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from pgkit.callbacks.views import LogView, RunEnd, RunStart
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError, describe_exception
from pgkit.logging import read_metrics
from pgkit.runs.writer import labels
from pgkit.system.files import read_json, write_text

ID_FILE = "loggers.json"
"""What a run is called elsewhere, so that it is found again when it is resumed."""

FINAL = ("return_mean", "return_std", "length_mean")
"""Results of the final evaluation, logged once as ``final/<name>``."""


class MemberRun(NamedTuple):
    """A member that is to be logged.

    Attributes:
        id: different from that of every other member of every run, the same when the run is resumed.
        name: of the run in the outlet.
        label: of the member, ``"seed-3"``.
        config: its configuration, whose ``name`` is the group of all members.
        directory: of the run in pgkit.
        alone: whether the run has no other member.
        resumed: whether the run is resumed, so that the outlet may know the member.
    """

    id: str
    name: str
    label: str
    config: TrainConfig
    directory: Path
    alone: bool
    resumed: bool


class Row(NamedTuple):
    """What a member logs at once.

    Attributes:
        number: how many rows of this member came before; the same in a run that is resumed.
        env_steps: of the member.
        values: by tag, without NaN.
    """

    number: int
    env_steps: int
    values: dict[str, float]


class OpenRun(Protocol):
    """A member's run in an outlet.

    Attributes:
        rows: how many rows of the member it holds already.
    """

    rows: int

    def log(self, row: Row) -> None:
        """Log one row."""

    def finish(self, status: str, final: Mapping[str, float]) -> None:
        """End the run: ``status`` as in :class:`~pgkit.callbacks.RunEnd`, and results if there are any."""


class MemberLogger:
    """The callback of an outlet. A resumed run gives it the rows up to its checkpoint again, and it skips those it has.

    Args:
        name: of the outlet, for messages.
        open_run: opens or creates the run of a member.
    """

    def __init__(self, name: str, open_run: Callable[[MemberRun], OpenRun]) -> None:
        self._name = name
        self._open_run = open_run
        self._runs: list[OpenRun] = []
        self._counts: list[int] = []

    def on_start(self, start: RunStart) -> None:
        """Open a run for each member; a run of pgkit without a directory is recorded nowhere."""
        if start.directory is None:
            return
        self._counts = [0] * len(start.configs)
        with self._explained("cannot open a run"):
            for member in member_runs(start, start.directory):
                self._runs.append(self._open_run(member))
            if start.resumed:
                for position, env_steps, values in _logged_rows(start.directory):
                    self._log(position, env_steps, values)

    def on_log(self, row: LogView) -> None:
        """Log a row of each member that has something to log."""
        with self._explained("cannot log"):
            for k, member in enumerate(row.members if self._runs else ()):
                values = {tag: numbers[k] for tag, numbers in row.values.items() if not math.isnan(numbers[k])}
                self._log(member, int(row.env_steps[k]), values)

    def on_end(self, end: RunEnd) -> None:
        """End the runs, with the results of the final evaluation."""
        with self._explained("cannot finish a run"):
            for member, run in enumerate(self._runs):
                row = end.table[member] if end.table else {}
                final = {f"final/{name}": float(row[name]) for name in FINAL if not math.isnan(row.get(name, math.nan))}
                run.finish(end.status, final)

    def _log(self, member: int, env_steps: int, values: dict[str, float]) -> None:
        run = self._runs[member]
        if values:
            if self._counts[member] >= run.rows:
                run.log(Row(self._counts[member], env_steps, values))
            self._counts[member] += 1

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of someone else's library, which may raise anything
            raise PgkitError(f"logger {self._name!r} {what}: {describe_exception(error)}") from error


def member_runs(start: RunStart, directory: Path) -> list[MemberRun]:
    """The members of a run that starts, as they are to be logged."""
    names = labels(start.configs)
    token = _token(directory, start.resumed)
    return [
        MemberRun(
            id=f"{token}-{label}",
            name=f"{config.name}-{label}",
            label=label,
            config=config,
            directory=directory,
            alone=len(names) == 1,
            resumed=start.resumed,
        )
        for label, config in zip(names, start.configs, strict=True)
    ]


def _token(directory: Path, resumed: bool) -> str:
    """The name of a run that no other run has; a new one for a run that has none, such as one taken from another."""
    path = directory / ID_FILE
    if path.is_file() and resumed:
        return str(read_json(path)["id"])
    token = secrets.token_hex(4)
    write_text(path, json.dumps({"id": token}))
    return token


def _logged_rows(directory: Path) -> list[tuple[int, int, dict[str, float]]]:
    """What a resumed run has logged so far, in the order in which it did: (member, environment steps, values)."""
    frame = read_metrics(directory / "metrics.parquet")
    columns = (frame[name].tolist() for name in ("wall_time", "member", "step", "tag", "value"))
    rows: dict[tuple[float, int], tuple[int, int, dict[str, float]]] = {}  # each call has a time of its own
    for wall_time, member, step, tag, value in zip(*columns, strict=True):
        rows.setdefault((wall_time, member), (member, step, {}))[2][tag] = value
    return list(rows.values())
