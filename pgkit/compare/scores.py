"""From stored runs to the measures of each: one row a run, on :mod:`pgkit.stats.curves`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pgkit.compare.checks import Scale
from pgkit.compare.plan import KEYS, Plan
from pgkit.compare.tables import SCHEMAS
from pgkit.stats import curves as c

Array = np.ndarray[Any, np.dtype[np.float64]]


def score_runs(plan: Plan, scale: Mapping[str, Scale], stored: pd.DataFrame) -> pd.DataFrame:
    """The table ``runs``, in the order of ``stored``."""
    parts = [
        _score_environment(plan, scale[str(name)], rows) for name, rows in stored.groupby("environment", sort=False)
    ]
    if not parts:
        return pd.DataFrame(columns=list(SCHEMAS["runs"].all))
    return pd.concat(parts).sort_index()[list(SCHEMAS["runs"].all)]


def score_curves(plan: Plan, scale: Mapping[str, Scale], stored: pd.DataFrame) -> pd.DataFrame:
    """The table ``curves``: one row for each run and evaluation."""
    parts = []
    for name, rows in stored.groupby("environment", sort=False):
        returns, scores, at = _arrays(plan, scale[str(name)], rows)
        points = returns.shape[1]
        long = rows[list(KEYS)].loc[rows.index.repeat(points)].reset_index(drop=True)
        long["point"] = np.tile(np.arange(points), len(rows))
        long["env_steps"], long["return_mean"], long["score"] = at.ravel(), returns.ravel(), scores.ravel()
        parts.append(long)
    return pd.concat(parts, ignore_index=True)[list(SCHEMAS["curves"].all)]


def _score_environment(plan: Plan, scale: Scale, rows: pd.DataFrame) -> pd.DataFrame:
    _, scores, at = _arrays(plan, scale, rows)
    episodes = [np.stack(rows[name].to_numpy()) for name in ("final", "greedy")]
    sampled, greedy = (c.normalize(returns, scale.random, scale.reference) for returns in episodes)
    diverged = rows["diverged"].to_numpy(dtype=bool)
    sampled, greedy = (np.where(diverged[:, None], 0.0, returns) for returns in (sampled, greedy))
    final = c.final(scores)
    weak = final < plan.config.failure_below
    threshold = scale.score(scale.threshold)
    columns = {
        "failure": np.where(diverged, "diverged", np.where(weak, f"below {plan.config.failure_below:.0%}", "")),
        "failed_at": np.where(diverged, rows["env_steps"].to_numpy(dtype=float), np.nan),
        "env_steps": rows["env_steps"].to_numpy(),
        "auc": c.auc(scores),
        "final": final,
        "best": scores.max(1),
        "greedy": greedy.mean(1),
        "dt": c.dispersion_across_time(scores),
        "srt": c.short_term_risk(scores),
        "lrt": c.long_term_risk(scores),
        "max_drawdown": c.max_drawdown(scores),
        "retention": c.retention(scores),
        "collapsed": c.collapsed(scores),
        "solved": sampled.mean(1) >= threshold,
        "steps_to_threshold": c.steps_to_threshold(scores, at, threshold),
        "df": c.iqr(sampled),
        "rf": c.cvar_low(sampled),
    }
    return rows[list(KEYS)].assign(**columns)


def _arrays(plan: Plan, scale: Scale, rows: pd.DataFrame) -> tuple[Array, Array, Array]:
    """Returns, scores and nominal steps (0, 2, ..., 100 % of the budget) of the evaluations, ``(runs, K)`` each.

    A diverged run has no returns from then on, and scores 0.
    """
    returns = np.stack(rows["returns"].to_numpy()).astype(np.float64)
    steps = {(case.environment, case.agent): case.config.steps for case in plan.cases}
    budget = np.array([steps[key] for key in rows[["environment", "agent"]].itertuples(index=False, name=None)])
    points = returns.shape[1]
    nominal = budget[:, None] * np.arange(points) / max(1, points - 1)
    scores = c.floor_failed(c.normalize(returns, scale.random, scale.reference))
    return returns, scores, nominal
