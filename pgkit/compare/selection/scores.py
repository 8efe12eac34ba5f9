"""Measures of stored runs, one row per run, by :mod:`pgkit.stats.curves`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pgkit.compare.plan.baselines import ScoreScale
from pgkit.compare.plan.plan import KEYS, Plan
from pgkit.compare.tables import schemas
from pgkit.stats import curves as c

Array = np.ndarray[Any, np.dtype[np.float64]]

_EVERYTHING = schemas(all_tuned=True, greedy=True)


def score_runs(plan: Plan, scale: Mapping[str, ScoreScale], stored: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of the table ``runs`` and all :data:`KEYS`, in the order of ``stored``."""
    parts = [
        _score_case(plan, scale[str(name)], str(agent), rows)
        for (name, agent), rows in stored.groupby(["environment", "agent"], sort=False)
    ]
    if not parts:
        return pd.DataFrame(columns=list(_EVERYTHING["runs"].all))
    return pd.concat(parts).sort_index()


def score_curves(plan: Plan, scale: Mapping[str, ScoreScale], stored: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of the table ``curves`` and all :data:`KEYS`, one row for each run and evaluation."""
    parts = []
    for (name, agent), rows in stored.groupby(["environment", "agent"], sort=False):
        returns, scores, at = _arrays(plan, scale[str(name)], str(agent), rows)
        points = returns.shape[1]
        long = rows[list(KEYS)].loc[rows.index.repeat(points)].reset_index(drop=True)
        long["point"], long["env_steps"] = np.tile(np.arange(points), len(rows)), np.tile(at, len(rows))
        long["return_mean"], long["score"] = returns.ravel(), scores.ravel()
        if plan.greedy:
            returns, scores, _ = _arrays(plan, scale[str(name)], str(agent), rows, "greedy_returns")
            long["greedy_return_mean"], long["greedy_score"] = returns.ravel(), scores.ravel()
        parts.append(long)
    if not parts:
        return pd.DataFrame(columns=list(_EVERYTHING["curves"].all))
    return pd.concat(parts, ignore_index=True)


def curves_of(plan: Plan, scale: ScoreScale, stored: pd.DataFrame) -> Array:
    """Scores ``(runs, K)`` of the runs of one case."""
    return _arrays(plan, scale, str(stored["agent"].iloc[0]), stored)[1]


def _score_case(plan: Plan, scale: ScoreScale, agent: str, rows: pd.DataFrame) -> pd.DataFrame:
    _, scores, at = _arrays(plan, scale, agent, rows)
    diverged = rows["diverged"].to_numpy(dtype=bool)
    sampled, greedy = (
        np.where(diverged[:, None], 0.0, scale.score(np.stack(rows[name].to_numpy()))) for name in ("final", "greedy")
    )
    threshold = float(scale.score(scale.threshold))
    failed = c.has_failed(scores, diverged, plan.config.failure_below)
    below = f"below {100 * plan.config.failure_below:g} %"
    greedy_auc = c.auc(_arrays(plan, scale, agent, rows, "greedy_returns")[1]) if plan.greedy else np.nan
    columns = {
        "failure": np.where(diverged, "diverged", np.where(failed, below, "")),
        "failed_at": np.where(diverged, rows["env_steps"].to_numpy(dtype=float), np.nan),
        "env_steps": rows["env_steps"].to_numpy(),
        "auc": c.auc(scores),
        "final": c.final(scores),
        "best": c.best(scores),
        "greedy": greedy.mean(1),
        "greedy_auc": greedy_auc,
        "dt": c.dispersion_across_time(scores),
        "srt": c.short_term_risk(scores),
        "lrt": c.long_term_risk(scores),
        "max_drawdown": c.max_drawdown(scores),
        "retention": c.retention(scores),
        "collapsed": c.has_collapsed(scores),
        "solved": sampled.mean(1) >= threshold,
        "steps_to_threshold": c.steps_to_threshold(scores, at, threshold),
        "df": c.dispersion_of_final(sampled),
        "rf": c.risk_of_final(sampled),
    }
    return rows[list(KEYS)].assign(**columns)


def _arrays(
    plan: Plan, scale: ScoreScale, agent: str, rows: pd.DataFrame, column: str = "returns"
) -> tuple[Array, Array, Array]:
    """Return returns and scores ``(runs, K)`` of the evaluations of one case, and their steps ``(K,)``.

    A run has no returns after it diverged, and scores 0 from then on.
    """
    returns = np.stack(rows[column].to_numpy()).astype(np.float64)
    case = (rows["environment"].iloc[0], agent)
    budget = next(each.config.steps for each in plan.cases if (each.environment, each.agent) == case)
    at = np.linspace(0, budget, returns.shape[1])
    lost = np.isnan(returns)
    failed_at = np.where(lost.any(1), at[lost.argmax(1)], np.nan)
    return returns, c.apply_floor(scale.score(returns), at, failed_at), at
