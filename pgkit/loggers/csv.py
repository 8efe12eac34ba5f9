"""CSV: ``metrics.csv`` in the directory of each member, a line for each row, a column for each tag."""

import csv
from collections.abc import Mapping
from pathlib import Path

from pgkit.loggers.logger import MemberRun, Row
from pgkit.system.files import as_write_error, write_text


class CsvRun:
    """The file of a member, begun anew when the run is resumed: all of its rows are written again.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.rows = 0
        self._path = path
        self._columns = ["env_steps"]
        self._lines: list[dict[str, float]] = []
        with as_write_error(path):
            path.parent.mkdir(exist_ok=True)
        write_text(path, "env_steps\n")

    def log(self, row: Row) -> None:
        """Add a line; a new tag is a new column, for which the file is written again."""
        line = {"env_steps": row.env_steps, **row.values}
        self._lines.append(line)
        new = [tag for tag in line if tag not in self._columns]
        self._columns += new
        with as_write_error(self._path), open(self._path, "w" if new else "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            if new:
                writer.writeheader()
            writer.writerows(self._lines if new else [line])

    def finish(self, status: str, final: Mapping[str, float]) -> None:
        """Add a line of results, if there are any."""
        if final:
            self.log(Row(len(self._lines), int(self._lines[-1]["env_steps"]) if self._lines else 0, dict(final)))


def open_run(member: MemberRun) -> CsvRun:
    """Begin the file of a member: in the run directory, or below it in ``<label>/`` if there are several members."""
    place = member.directory if member.alone else member.directory / member.label
    return CsvRun(place / "metrics.csv")
