"""Measures of stored runs, one row per run, by :mod:`pgkit.stats.curves`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pgkit.compare.plan.baselines import ScoreScale
from pgkit.compare.plan.plan import KEYS, Plan
from pgkit.compare.tables import FAILED, LEARNT, NOT_LEARNT, schemas
from pgkit.stats import curves as c

Array = np.ndarray[Any, np.dtype[np.float64]]

_EVERYTHING = schemas(all_tuned=True, greedy=True)


class _Curves(NamedTuple):
    """Learning curves: returns and scores ``(runs, K)``, their steps ``(K,)``, and which runs learnt ``(runs,)``."""

    returns: Array
    scores: Array
    at: Array
    learnt: np.ndarray[Any, np.dtype[np.bool_]]


def complete(stored: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that were trained to the end, without those that paused at a share of their steps."""
    return stored[stored["share"] == 1] if "share" in stored else stored


def curves_so_far(scale: Mapping[str, ScoreScale], stored: pd.DataFrame) -> list[Array]:
    """Return the scores ``(K,)`` of each run at its evaluations: 0 from where it failed, NaN from where it paused."""
    if not len(stored):
        return []
    ended = stored["diverged"].astype(bool) | stored.index.isin(complete(stored).index)
    return [
        np.where(np.isnan(returns) & has_ended, 0.0, scale[str(environment)].score(np.asarray(returns, dtype=float)))
        for environment, returns, has_ended in zip(stored["environment"], stored["returns"], ended, strict=True)
    ]


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
        returns, scores, at, _ = _arrays(plan, scale[str(name)], str(agent), rows)
        points = returns.shape[1]
        long = rows[list(KEYS)].loc[rows.index.repeat(points)].reset_index(drop=True)
        long["point"], long["env_steps"] = np.tile(np.arange(points), len(rows)), np.tile(at, len(rows))
        long["return_mean"], long["score"] = returns.ravel(), scores.ravel()
        if plan.greedy:
            returns, scores, *_ = _arrays(plan, scale[str(name)], str(agent), rows, "greedy_returns")
            long["greedy_return_mean"], long["greedy_score"] = returns.ravel(), scores.ravel()
        parts.append(long)
    if not parts:
        return pd.DataFrame(columns=list(_EVERYTHING["curves"].all))
    return pd.concat(parts, ignore_index=True)


def curves_of(plan: Plan, scale: ScoreScale, stored: pd.DataFrame) -> Array:
    """Scores ``(runs, K)`` of the runs of one case."""
    return _arrays(plan, scale, str(stored["agent"].iloc[0]), stored).scores


def _score_case(plan: Plan, scale: ScoreScale, agent: str, rows: pd.DataFrame) -> pd.DataFrame:
    _, scores, at, learnt = _arrays(plan, scale, agent, rows)
    failed = rows["diverged"].to_numpy(dtype=bool)
    sampled, greedy = (
        np.where(failed[:, None], 0.0, scale.score(np.stack(rows[name].to_numpy()))) for name in ("final", "greedy")
    )
    threshold = float(scale.score(scale.threshold))
    steps_to_threshold = c.steps_to_threshold(scores, at, threshold)
    greedy_auc = c.auc(_arrays(plan, scale, agent, rows, "greedy_returns").scores) if plan.greedy else np.nan
    columns = {
        "outcome": np.where(failed, FAILED, np.where(learnt, LEARNT, NOT_LEARNT)),
        "failed_at": np.where(failed, rows["env_steps"].to_numpy(dtype=float), np.nan),
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
        "solved": np.isfinite(steps_to_threshold),
        "steps_to_threshold": steps_to_threshold,
        "df": c.dispersion_of_final(sampled),
        "rf": c.risk_of_final(sampled),
    }
    return rows[list(KEYS)].assign(**columns)


def _arrays(plan: Plan, scale: ScoreScale, agent: str, rows: pd.DataFrame, column: str = "returns") -> _Curves:
    """Return the learning curves of the runs of one case.

    A run has no returns after it failed, and scores 0 from then on. A run that did not learn scores 0 from where its
    scores stay low. No other score is clipped.
    """
    returns = np.stack(rows[column].to_numpy()).astype(np.float64)
    case = (rows["environment"].iloc[0], agent)
    budget = next(each.config.steps for each in plan.cases if (each.environment, each.agent) == case)
    at = np.linspace(0, budget, returns.shape[1])
    lost = np.isnan(returns)
    failed_at = np.where(lost.any(1), at[lost.argmax(1)], np.nan)
    scores = c.apply_floor(scale.score(returns), at, failed_at)
    below = plan.config.failure_below
    learnt = c.has_learnt(scores, rows["diverged"].to_numpy(dtype=bool), below)
    return _Curves(returns, c.floor_unlearnt(scores, below), at, learnt)
