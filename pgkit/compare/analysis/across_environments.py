"""Measures across environments, where there are at least three."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pgkit import stats
from pgkit.compare.plan.plan import Plan
from pgkit.compare.selection.stages import TuningResult

Array = np.ndarray[Any, np.dtype[np.float64]]
Row = dict[str, Any]

SEED = 30_000
"""Seed of all resampling in this module."""


def add(
    plan: Plan,
    rows: dict[str, list[Row]],
    agent: str,
    evaluated: pd.DataFrame,
    results: Mapping[tuple[str, str], TuningResult],
) -> None:
    """Add an agent's rows to the tables ``across`` and ``profiles``, if there are enough environments."""
    environments = list(plan.config.environments)
    if len(environments) < stats.MIN_ENVIRONMENTS or any((e, agent) not in results for e in environments):
        return
    for number, arm in enumerate(plan.arms):
        of_arm = evaluated[(evaluated["agent"] == agent) & (evaluated["optimizer"] == arm)]
        table = of_arm.pivot(index="seed", columns="environment", values="auc")
        if table.shape[1] < len(environments):
            return
        scores = table[environments].to_numpy()
        keys = {"agent": agent, "optimizer": arm}
        tuning = np.stack([_on_common_points(plan, results[environment, agent], arm) for environment in environments])
        for index, environment in enumerate(("", *environments), start=-1):
            kept = [column for column in range(len(environments)) if column != index]
            rows["across"].append({**keys, "without": environment, **_measures(scores[:, kept], tuning[kept], number)})
        profile = stats.performance_profile(scores, np.random.default_rng([SEED, 2, number]))
        rows["profiles"] += [{**keys, **dict(zip(profile._fields, row, strict=True))} for row in np.stack(profile).T]


def _measures(scores: Array, tuning: Array, number: int) -> Row:
    """Return every measure with its interval, from ``scores (n, E)`` and ``tuning (E, L, S)``.

    What one rate for all environments costs is not known where screening has dropped some: NaN.
    """
    aggregates = stats.aggregates(scores, np.random.default_rng([SEED, 0, number]))
    unknown = stats.Estimate(np.nan, np.nan, np.nan)
    dropped = np.isnan(tuning).any()
    phi = unknown if dropped else stats.phi(tuning, np.random.default_rng([SEED, 1, number]))
    return spread(
        {"iqm": aggregates.iqm, "mean": aggregates.mean, "optimality_gap": aggregates.optimality_gap, "phi": phi}
    )


def spread(estimates: Mapping[str, stats.Estimate]) -> Row:
    """Return the columns ``name``, ``name_low`` and ``name_high`` of each estimate."""
    row: Row = {}
    for name, (value, low, high) in estimates.items():
        row |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return row


def _on_common_points(plan: Plan, result: TuningResult, arm: str) -> Array:
    """Return the tuning scores ``(L, S)`` at the planned settings, which all environments share."""
    return result.scores[arm][[result.points[arm].index(point) for point in plan.points(arm)]]
