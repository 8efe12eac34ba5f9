"""Stored results of a comparison: one file per batch of runs, written atomically."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pgkit.compare.execution.worker import Trained
from pgkit.compare.plan.plan import FORMAT, GRID, KEYS, Plan, Run, stored_plan
from pgkit.errors import PgkitError
from pgkit.logging.parquet import write_frame
from pgkit.runs import provenance
from pgkit.system.files import read_json, replace_file, write_text

RAW = (*KEYS, "diverged", "env_steps", "at", "returns", "final", "greedy", "share", "batch")
"""Columns of stored results, see :func:`pgkit.compare.execution.worker.run_batch`, which may add ``greedy_returns``.

``share`` is that of its steps which a run was trained for, ``batch`` the name of the file that it is in.
"""


LOCK = ".lock"
"""File that a process locks while it works on a comparison."""


class Store:
    """The directory of a comparison.

    Args:
        directory: created by :meth:`begin`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def batches(self) -> Path:
        """Directory of raw results; its name is that of the first versions, so that their results can be read."""
        return self.directory / "chunks"

    def check(self, plan: Plan) -> bool:
        """Whether the comparison has begun; writes nothing.

        Raises:
            PgkitError: the directory holds another plan, results of another version or machine, or no comparison.
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
        """Return the stored plan.

        Raises:
            PgkitError: there is none, or it cannot be read.
        """
        path = self.directory / "plan.json"
        if not path.is_file():
            raise PgkitError(f"{self.directory} holds no comparison (no plan.json)")
        return stored_plan(read_json(path), str(path))

    def begin(self, plan: Plan) -> None:
        """Write plan and provenance, if they are not stored yet.

        Raises:
            PgkitError: as :meth:`check`, or the directory cannot be written.
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

    @property
    def paused(self) -> Path:
        """Directory of what runs need that train on later, named as the files of their results."""
        return self.directory / "paused"

    def add(self, runs: Sequence[Run], trained: Trained) -> None:
        """Store the results of runs, and where they have paused if they have.

        Raises:
            PgkitError: the directory cannot be written; then no results are stored.
        """
        frame = pd.DataFrame([{**run._asdict(), **row} for run, row in zip(runs, trained.rows, strict=True)])
        shares = sorted(set(frame.get("share", ())))
        name = hashlib.sha256(repr([tuple(run) for run in runs] + shares).encode()).hexdigest()[:16]
        if trained.saved is not None:
            content = trained.saved
            replace_file(self.paused / f"{name}.pt", lambda file: file.write(content))
        write_frame(self.batches / f"{name}.parquet", frame)

    def paused_batch(self, name: str) -> tuple[list[Run], bytes] | None:
        """Return the runs that have paused together, and where; None if that is not stored."""
        path = self.paused / f"{name}.pt"
        if not path.is_file():
            return None
        runs = read_batch(self.batches / f"{name}.parquet")[list(KEYS)]
        return [Run(*row) for row in runs.itertuples(index=False, name=None)], path.read_bytes()

    def forget_paused(self, name: str = "*") -> None:
        """Delete where runs have paused: those of one batch, or all."""
        for path in self.paused.glob(f"{name}.pt"):
            path.unlink(missing_ok=True)

    def baselines(self) -> pd.DataFrame | None:
        """Return the returns of the baseline policies, or None if they were not measured yet."""
        path = self.directory / "baselines.parquet"
        return read_batch(path) if path.is_file() else None

    def add_baselines(self, baselines: pd.DataFrame) -> None:
        """Store the returns of the baseline policies."""
        write_frame(self.directory / "baselines.parquet", baselines)

    def load(self) -> pd.DataFrame:
        """Return all stored runs, one row each, as far as they were trained, sorted by ``KEYS``.

        Raises:
            PgkitError: a file cannot be read.
        """
        frames = [read_batch(path).assign(batch=path.stem) for path in sorted(self.batches.glob("*.parquet"))]
        if not frames:
            return pd.DataFrame(columns=list(RAW))
        defaults = {"setting": GRID, "share": 1.0}  # the first versions stored no setting
        frames = [of.assign(**{name: value for name, value in defaults.items() if name not in of}) for of in frames]
        frame = pd.concat(frames, ignore_index=True).sort_values([*KEYS, "share"], ignore_index=True)
        return frame.drop_duplicates(list(KEYS), keep="last", ignore_index=True)


def read_batch(path: Path) -> pd.DataFrame:
    """Read the results of one batch.

    Raises:
        PgkitError: the file is damaged.
    """
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        message = " ".join(str(error).split())
        raise PgkitError(f"cannot read {path} ({message}): delete it to run its runs again") from None


def origin() -> dict[str, Any]:
    """Return what decides the bits of results beside the plan: versions and processor."""
    record = provenance.collect([])
    versions = {key: record["versions"][key] for key in ("python", *provenance.PACKAGES)}
    return {**versions, "code": provenance.code_digest(), "cpu": record["hardware"]["cpu"]}


def check_same_origin(stored: Mapping[str, Any], now: Mapping[str, Any], where: str, other: str = "") -> None:
    """Refuse to pool results of different origins.

    Args:
        stored: origin of the results in ``where``.
        now: origin of this process, or of the directory ``other``.
        where: the directory, for the message.
        other: the other directory, if there is one.

    Raises:
        PgkitError: naming the field in which they differ.
    """
    for key in sorted({*stored, *now}):
        if stored.get(key) != now.get(key):
            against = f"{other} has {now.get(key)}" if other else f"not {now.get(key)}"
            raise PgkitError(
                f"results of different origin are not pooled: {where} has {key} {stored.get(key)}, {against}"
            )


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2) + "\n"
