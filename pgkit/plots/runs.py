"""Learning curves as runs have logged them, and labels that say in what the runs differ."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pgkit import optim
from pgkit.config.load import flatten, to_table
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError, format_value, unknown_name
from pgkit.logging import read_metrics
from pgkit.runs.directory import as_directory, find_run, is_finished
from pgkit.runs.reader import stored_config
from pgkit.system.files import read_json

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

RETURN = "eval/return_mean"

RETURNS = (RETURN, "eval/greedy_return_mean", "train/episode_return")
"""Metrics of which failed seeds count as the lowest value."""

BoolArray = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]

SHORT = {"return": RETURN}
"""Metrics by other names than the last part of their tags."""

UNSAID = ("name", "seed", "seeds", "steps", "device", "log_interval", "checkpoint_points", "keep_checkpoints")
"""Keys whose differences are no label, beside those of ``evaluation`` and ``env.id``, which has a panel."""


class RunCurves(NamedTuple):
    """One metric of one run.

    Attributes:
        name: of the run's directory.
        config: of the run, whose seeds may be many.
        tag: of the metric.
        seeds: steps ``(K,)`` and values ``(K,)`` of each seed; K may differ.
        steps: a common axis ``(N,)``.
        values: all seeds on it, ``(n, N)``, in straight lines between what was logged. Seeds that a callback has
            stopped keep their last value; failed ones have the lowest return of the run from then on, or NaN of other
            metrics.
        failed: how many seeds failed.
    """

    name: str
    config: TrainConfig
    tag: str
    seeds: Sequence[tuple[Array, Array]]
    steps: Array
    values: Array
    failed: int


def read_curves(run: str | Path, metric: str = "return") -> RunCurves:
    """Read one metric of a run.

    Args:
        run: its directory, or its name below ``runs/``.
        metric: ``"return"``, any tag in its ``metrics.parquet``, or the last part of one, such as ``"entropy"``.

    Raises:
        PgkitError: there is no such run or metric, or it was logged only once.
    """
    directory = find_run(str(run))
    config = stored_config(directory / "config.toml")
    rows = read_metrics(directory / "metrics.parquet")
    tag = find_tag(metric, sorted(rows["tag"].unique()), directory)
    rows = rows[rows["tag"] == tag].dropna(subset="value").drop_duplicates(["member", "step"], keep="last")
    seeds = [
        (each["step"].to_numpy(dtype=float), each["value"].to_numpy(dtype=float)) for _, each in rows.groupby("member")
    ]
    failed = _failed_members(directory)
    lost = np.isin(np.sort(rows["member"].unique()), failed)
    if all(len(steps) < 2 for steps, _ in seeds) and not lost.any():
        remedy = (
            f" ({config.evaluation.points} evaluations while training, see evaluation.points)" if tag == RETURN else ""
        )
        raise PgkitError(f"{directory} has logged {tag} only once{remedy}: there is no curve to draw")
    steps, values = _aligned(seeds, lost, config.steps if is_finished(directory) else None, tag in RETURNS)
    return RunCurves(as_directory(directory).name, config, tag, seeds, steps, values, int(lost.sum()))


def find_tag(metric: str, tags: Sequence[str], directory: Path) -> str:
    """Find the tag that a metric means.

    Raises:
        PgkitError: there is none, or there are several.
    """
    wanted = SHORT.get(metric, metric)
    matches = [tag for tag in tags if tag == wanted] or [tag for tag in tags if tag.endswith(f"/{wanted}")]
    if len(matches) > 1:
        raise PgkitError(f"metric {metric!r} may be {' or '.join(matches)}")
    if not matches:
        raise PgkitError(f"{directory}: {unknown_name('metric', metric, ['return', *tags])}")
    return matches[0]


def _failed_members(directory: Path) -> list[int]:
    """Positions of the members that failed; empty while the run is not finished."""
    if not is_finished(directory):
        return []
    members = read_json(directory / "result.json")["members"]
    return [position for position, member in enumerate(members) if member["failed"]]


def _aligned(
    seeds: Sequence[tuple[Array, Array]], lost: BoolArray, budget: int | None, is_return: bool
) -> tuple[Array, Array]:
    """Put all seeds on one axis, to the end of the longest of a finished run, or of the shortest of another one."""
    ends = [steps[-1] for steps, _ in seeds]
    end = min(ends) if budget is None else max([*ends, *([budget] if lost.all() else [])])
    axis = np.linspace(max(steps[0] for steps, _ in seeds), end, max(2, *(len(steps) for steps, _ in seeds)))
    values = np.array([np.interp(axis, *curve) for curve in seeds])
    floor = min(curve.min() for _, curve in seeds) if is_return else np.nan
    for row in np.flatnonzero(lost):
        values[row, axis > ends[row]] = floor
    return axis, values


def labels_of(configs: Sequence[TrainConfig], names: Sequence[str]) -> list[str]:
    """Return a label for each run that says in what its configuration differs from the others.

    Settings of agents and optimizers are left out where these have different names, but for learning rates; where
    labels would not be different, they are the names of the runs.

    Args:
        configs: of the runs.
        names: of the runs.
    """
    tables = [_settings(config) for config in configs]
    keys = [key for key in dict.fromkeys(key for table in tables for key in table) if _differs(key, tables)]
    renamed = [key.removesuffix("name") for key in ("agent.name", "optimizer.name") if key in keys]
    shown = [
        key
        for key in keys
        if key in ("optimizer.lr", *(f"{each}name" for each in renamed)) or not key.startswith(tuple(renamed))
    ]
    for chosen in (shown, keys):
        labels = [", ".join(_setting(key, table[key]) for key in chosen if key in table) for table in tables]
        if len(set(labels)) == len(labels) and all(0 < len(label) <= 60 for label in labels):
            return labels
    return list(names)


def _settings(config: TrainConfig) -> dict[str, Any]:
    """All settings that may be a label, by key; those of optimizers with their defaults."""
    table = to_table(config)
    groups = optim.describe(config.optimizer)
    table["optimizer"] = groups["main"] | {key: group for key, group in groups.items() if key != "main"}
    entries = flatten(table).items()
    return {key: value for key, value in entries if value is not None and not _is_unsaid(key)}


def _is_unsaid(key: str) -> bool:
    return key in UNSAID or key.startswith("evaluation.") or key == "env.id"


def _differs(key: str, tables: Sequence[Mapping[str, Any]]) -> bool:
    return len({format_value(table.get(key)) for table in tables}) > 1


def _setting(key: str, value: Any) -> str:
    """``adam``, ``lr=0.003``, ``critic lr=0.01``."""
    *tables, last = key.split(".")
    if last == "name":
        return " ".join([*tables[1:], str(value)])
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return " ".join([*tables[1:], f"{last}={shown}"])
