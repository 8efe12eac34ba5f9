"""What a comparison has stored: raw results of runs, written batch by batch, each file whole or not there."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pgkit.compare.execution.worker import Row
from pgkit.compare.plan.plan import FORMAT, GRID, KEYS, Plan, Run, stored_plan
from pgkit.errors import PgkitError
from pgkit.runs import provenance
from pgkit.system.files import replace_file, write_text

RAW = (*KEYS, "diverged", "env_steps", "at", "returns", "final", "greedy")
"""Columns of stored results, see :func:`pgkit.compare.execution.worker.run_batch`, which may add ``greedy_returns``."""


LOCK = ".lock"
"""The file that a process holds while it works on a comparison."""


class Store:
    """The directory of a comparison.

    Args:
        directory: created by :meth:`begin`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def batches(self) -> Path:
        """Where raw results are."""
        return self.directory / "chunks"

    def check(self, plan: Plan) -> bool:
        """Whether the comparison has begun; touches nothing.

        Raises:
            PgkitError: what is there belongs to another plan, another version or another machine, or is no comparison.
        """
        if self.directory.exists() and not self.directory.is_dir():
            raise PgkitError(f"{self.directory} is a file: --out chooses another place")
        if not self.directory.exists() or not any(path.name != LOCK for path in self.directory.iterdir()):
            return False
        if not (self.directory / "plan.json").is_file():
            raise PgkitError(f"{self.directory} holds no comparison (no plan.json): --out chooses another place")
        stored = read_json(self.directory / "plan.json")
        if stored.get("format") != FORMAT or stored["hash"] != plan.hash:
            ignored = ("hash", "name", "question", "declared")
            wanted = json.loads(_json(plan.as_data()))  # tuples become lists
            key = next((k for k, v in wanted.items() if k not in ignored and stored.get(k) != v), "hash")
            raise PgkitError(
                f"{self.directory} holds the results of another plan (they differ in {key!r}): "
                "name=... or --out chooses another place"
            )
        check_same_origin(read_json(self.directory / "provenance.json")["origin"], origin(), str(self.directory))
        return True

    def plan(self) -> Plan:
        """The plan of the comparison that is there.

        Raises:
            PgkitError: there is none, or it cannot be read.
        """
        path = self.directory / "plan.json"
        if not path.is_file():
            raise PgkitError(f"{self.directory} holds no comparison (no plan.json)")
        return stored_plan(read_json(path), str(path))

    def begin(self, plan: Plan) -> None:
        """Write plan and provenance, unless they are there.

        Raises:
            PgkitError: as :meth:`check`, or the system refuses to write.
        """
        if self.check(plan):
            return
        record = provenance.collect(sorted({*plan.tuning_seeds, *plan.evaluation_seeds}))
        write_text(self.directory / "provenance.json", _json({**record, "origin": origin(), "sessions": []}))
        write_text(self.directory / "plan.json", _json(plan.as_data()))

    def add_session(self, session: Mapping[str, Any]) -> None:
        """Add the times and the command line of one call to ``provenance.json``."""
        path = self.directory / "provenance.json"
        record = read_json(path)
        write_text(path, _json({**record, "sessions": [*record["sessions"], dict(session)]}))

    def add(self, runs: Sequence[Run], rows: Sequence[Row]) -> None:
        """Store what came out of these runs.

        Raises:
            PgkitError: the system refuses to write; then nothing is stored.
        """
        frame = pd.DataFrame([{**run._asdict(), **row} for run, row in zip(runs, rows, strict=True)])
        name = hashlib.sha256(repr([tuple(run) for run in runs]).encode()).hexdigest()[:16]
        write_frame(self.batches / f"{name}.parquet", frame)

    def baselines(self) -> pd.DataFrame | None:
        """The stupid policies' returns, if they were measured."""
        path = self.directory / "baselines.parquet"
        return read_batch(path) if path.is_file() else None

    def add_baselines(self, baselines: pd.DataFrame) -> None:
        """Store them."""
        write_frame(self.directory / "baselines.parquet", baselines)

    def load(self) -> pd.DataFrame:
        """All stored runs, one row each, sorted by ``KEYS``.

        Raises:
            PgkitError: a file cannot be read.
        """
        frames = [read_batch(path) for path in sorted(self.batches.glob("*.parquet"))]
        if not frames:
            return pd.DataFrame(columns=list(RAW))
        frames = [of if "setting" in of else of.assign(setting=GRID) for of in frames]  # those of the first versions
        frame = pd.concat(frames, ignore_index=True)
        return frame.drop_duplicates(list(KEYS)).sort_values(list(KEYS), ignore_index=True)


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """A table as Parquet, whole or not at all."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    replace_file(path, lambda file: file.write(buffer.getvalue()))


def read_batch(path: Path) -> pd.DataFrame:
    """One file of raw results.

    Raises:
        PgkitError: it is damaged.
    """
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        message = " ".join(str(error).split())
        raise PgkitError(f"cannot read {path} ({message}): delete it, and its runs will be run again") from None


def read_json(path: Path) -> dict[str, Any]:
    """Plain data.

    Raises:
        PgkitError: the file is not there or is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PgkitError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise PgkitError(f"{path} is damaged: {error}") from None


def origin() -> dict[str, Any]:
    """What the bits of results depend on, beside the plan."""
    record = provenance.collect([])
    versions = {key: record["versions"][key] for key in ("python", *provenance.PACKAGES)}
    return {**versions, "code": provenance.code_digest(), "cpu": record["hardware"]["cpu"]}


def check_same_origin(stored: Mapping[str, Any], now: Mapping[str, Any], where: str, other: str = "") -> None:
    """Refuse to pool results of different origin; ``now`` is this process's, or that of the directory ``other``.

    Raises:
        PgkitError: names the field.
    """
    for key in sorted({*stored, *now}):
        if stored.get(key) != now.get(key):
            against = f"{other} has {now.get(key)}" if other else f"not {now.get(key)}"
            raise PgkitError(
                f"results of different origin are not pooled: {where} has {key} {stored.get(key)}, {against}"
            )


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2) + "\n"
