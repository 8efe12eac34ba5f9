"""Measures of one learning curve, and of many at the same point: level, stability, failure.

Curves are arrays ``(..., K)`` of K evaluations, evenly spaced over the budget; leading axes are runs. Scores are
normalised, 0 the random policy and 1 the reference, so every measure is in units of that range and never of a run's
own. Sources: Chan et al. 2019 (arXiv 1912.05663) for the measures of dispersion and risk; where the published code
takes the lower tail of drawdowns, which are never negative, the upper tail is taken here, as their text means.
"""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

ALPHA = 0.05
"""Share of the tail in a conditional value at risk."""

WINDOW = 5
"""Evaluations in a running mean."""


def normalize(returns: Array, random: float, reference: float) -> Array:
    """Scores ``(R - random) / (reference - random)``, not clipped.

    Raises:
        ValueError: random and reference are the same.
    """
    if random == reference:
        raise ValueError(f"random and reference are both {random}: they must differ")
    return (np.asarray(returns, dtype=np.float64) - random) / (reference - random)


def floor_failed(scores: Array) -> Array:
    """Scores ``(..., K)`` with 0 from the first missing one (NaN) on: a failed run stays, at the floor."""
    failed = np.logical_or.accumulate(np.isnan(scores), axis=-1)
    return np.where(failed, 0.0, scores)


def auc(scores: Array) -> Array:
    """Normalised area under the curve: the mean over its points, ``(..., K) -> (...)``."""
    return scores.mean(-1)


def final(scores: Array, share: float = 0.1) -> Array:
    """Mean of the last 10 % of the points (at least one), ``(..., K) -> (...)``."""
    return scores[..., -_points(scores, share) :].mean(-1)


def cvar_low(x: Array, alpha: float = ALPHA) -> Array:
    """Mean of the numbers at or below the alpha-quantile (linear interpolation) of the last axis."""
    return _mean_where(x, x <= np.quantile(x, alpha, axis=-1, keepdims=True))


def cvar_up(x: Array, alpha: float = ALPHA) -> Array:
    """Mean of the numbers at or above the (1 - alpha)-quantile (linear interpolation) of the last axis."""
    return _mean_where(x, x >= np.quantile(x, 1 - alpha, axis=-1, keepdims=True))


def iqr(x: Array, axis: int = -1) -> Array:
    """Interquartile range, by linear interpolation."""
    high, low = np.quantile(x, [0.75, 0.25], axis=axis)
    return high - low


def dispersion_across_time(scores: Array) -> Array:
    """DT: interquartile range of the first differences over the last half of training, ``(..., K) -> (...)``."""
    return iqr(np.diff(scores[..., scores.shape[-1] // 2 :], axis=-1))


def short_term_risk(scores: Array, alpha: float = ALPHA) -> Array:
    """SRT: lower CVaR of the first differences: the worst drops from one evaluation to the next."""
    return cvar_low(np.diff(scores, axis=-1), alpha)


def drawdown(scores: Array) -> Array:
    """Best so far minus now, ``(..., K) -> (..., K)``, never negative."""
    return np.maximum.accumulate(scores, axis=-1) - scores


def long_term_risk(scores: Array, alpha: float = ALPHA) -> Array:
    """LRT: upper CVaR of the drawdown."""
    return cvar_up(drawdown(scores), alpha)


def max_drawdown(scores: Array) -> Array:
    """The largest drawdown."""
    return drawdown(scores).max(-1)


def retention(scores: Array) -> Array:
    """Final over best so far: 1 when nothing was lost; NaN when the best is not above 0."""
    best = scores.max(-1)
    return np.divide(final(scores), best, out=np.full(np.shape(best), np.nan), where=best > 0)


def collapsed(scores: Array, depth: float = 0.5, share: float = 0.1) -> Array:
    """bool: a drawdown of at least ``depth`` lasted longer than 10 % of the budget, ``(..., K) -> (...)``.

    One that begins later than that before the end counts if it lasts to the end.
    """
    low = drawdown(scores) >= depth
    length = min(_points(scores, share) + 1, scores.shape[-1])
    runs = np.lib.stride_tricks.sliding_window_view(low, length, axis=-1).all(-1).any(-1)
    return np.asarray(runs | low[..., -1])


def steps_to_threshold(scores: Array, env_steps: Array, threshold: float, window: int = WINDOW) -> Array:
    """Environment steps of the first point after which the running mean of 5 points stays at or above the threshold.

    The running mean at a point is that of the 5 points that end there.

    Args:
        scores: ``(..., K)``.
        env_steps: of the points, broadcastable to ``(..., K)``.
        threshold: in the units of the scores.
        window: points of the running mean.

    Returns:
        ``(...)``, NaN (censored) where there is no such point.
    """
    if scores.shape[-1] < window:
        return np.full(scores.shape[:-1], np.nan)
    means = np.lib.stride_tricks.sliding_window_view(scores, window, axis=-1).mean(-1)
    stays = np.logical_and.accumulate((means >= threshold)[..., ::-1], axis=-1)[..., ::-1]
    steps = np.broadcast_to(env_steps, scores.shape)[..., window - 1 :]
    first = np.take_along_axis(steps, stays.argmax(-1)[..., None], axis=-1)[..., 0]
    return np.where(stays.any(-1), first, np.nan)


def dispersion_across_runs(scores: Array) -> Array:
    """DR: interquartile range over runs at each point, ``(runs, K) -> (K,)``."""
    return iqr(scores, axis=0)


def risk_across_runs(scores: Array, alpha: float = ALPHA) -> Array:
    """RR: lower CVaR over runs at each point, ``(runs, K) -> (K,)``."""
    return cvar_low(np.moveaxis(scores, 0, -1), alpha)


def _points(scores: Array, share: float) -> int:
    return max(1, round(share * scores.shape[-1]))


def _mean_where(x: Array, where: Any) -> Array:
    return np.asarray(np.where(where, x, 0.0).sum(-1) / where.sum(-1))
