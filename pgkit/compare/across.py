"""Measures across environments, where there are at least three."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pgkit.compare.plan import Plan
from pgkit.compare.stages import Tuned
from pgkit.stats import aggregate
from pgkit.stats.sensitivity import phi, resample_means

Array = np.ndarray[Any, np.dtype[np.float64]]
Row = dict[str, Any]

STATISTICS = {
    "iqm": aggregate.iqm,
    "mean": lambda scores: float(scores.mean()),
    "optimality_gap": aggregate.optimality_gap,
}

SEED = 30_000
"""Of all resampling here."""


def add(
    plan: Plan, rows: dict[str, list[Row]], agent: str, evaluated: pd.DataFrame, found: Mapping[tuple[str, str], Tuned]
) -> None:
    """Add an agent's rows to the tables ``across`` and ``profiles``, if there are environments enough."""
    environments = list(plan.config.environments)
    if len(environments) < aggregate.FEWEST_ENVIRONMENTS or any((e, agent) not in found for e in environments):
        return
    for number, arm in enumerate(plan.arms):
        of_arm = evaluated[(evaluated["agent"] == agent) & (evaluated["optimizer"] == arm)]
        table = of_arm.pivot(index="seed", columns="environment", values="auc")
        if table.shape[1] < len(environments):
            return
        scores, keys = table[environments].to_numpy(), {"agent": agent, "optimizer": arm}
        tuning = np.stack([_on_common_grid(plan, found[environment, agent], arm) for environment in environments])
        everything = _across(scores, tuning, number)
        rows["across"].append({**keys, "without": "", **everything})
        for index, environment in enumerate(environments):
            rest = [np.delete(part, index, axis=axis) for part, axis in ((scores, 1), (tuning, 0))]
            rows["across"].append({**keys, "without": environment, **_across(rest[0], rest[1], number)})
        low, high = aggregate.profile_band(scores, np.random.default_rng([SEED, 1, number]))
        share = aggregate.profile(scores)
        rows["profiles"] += [
            {**keys, "tau": float(tau), "share": float(share[t]), "low": float(low[t]), "high": float(high[t])}
            for t, tau in enumerate(aggregate.TAUS)
        ]


def _across(scores: Array, tuning: Array, number: int) -> Row:
    """Every measure with its interval; ``scores (runs, environments)``, ``tuning (environments, S, R)``."""
    row: Row = {}
    for name, statistic in STATISTICS.items():
        low, high = aggregate.interval(statistic, scores, np.random.default_rng([SEED, 0, number]))
        row |= {name: statistic(scores), f"{name}_low": low, f"{name}_high": high}
    rng = np.random.default_rng([SEED, 2, number])
    resampled = np.stack([resample_means(of_environment, 2000, rng) for of_environment in tuning], axis=1)
    low, high = np.quantile([phi(means) for means in resampled], [0.025, 0.975])
    return row | {"phi": phi(tuning.mean(1)), "phi_low": float(low), "phi_high": float(high)}


def _on_common_grid(plan: Plan, found: Tuned, arm: str) -> Array:
    """Tuning scores ``(S, R)`` at the planned rates, which all environments have."""
    return found.scores[arm][:, [found.rates.index(rate) for rate in plan.rates]]
