"""Measures of learning curves, for any number of runs at once.

Curves are *scores* ``(..., K)``: evaluations at K equally spaced points of the budget, the first before training, the
last at its end. Scores are normalised, 0 the random policy and 1 the reference return, so every measure here is in
units of the range between them, never of a run's own range. All functions raise ValueError when a score is not finite:
:func:`apply_floor` comes first.

The measures of risk and dispersion are those of Chan et al. 2019 ("Measuring the Reliability of Reinforcement Learning
Algorithms", arXiv 1912.05663, table 1), with two changes: nothing is divided by a run's own range, and
the risk of drawdown is taken over its *upper* tail: a drawdown is never negative, and its lower tail is 0.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from pgkit.stats.samples import BoolArray, FloatArray, as_array

ALPHA = 0.05
"""Default share of values in a tail."""

FAILURE_BELOW = 0.1
"""The final score below which a run did not learn."""


def normalize(returns: ArrayLike, random: float, reference: float) -> FloatArray:
    """``(R - R_random) / (R_reference - R_random)``, not clipped; any shape. NaN stays NaN.

    Args:
        returns: undiscounted returns.
        random: mean return of the random policy.
        reference: the return that counts as solved, above ``random``.

    Raises:
        ValueError: ``reference`` is not above ``random``, or either is not finite.
    """
    if not (math.isfinite(random) and math.isfinite(reference) and reference > random):
        raise ValueError(f"reference must be above random, both finite, got {reference} and {random}")
    return (np.asarray(returns, dtype=np.float64) - random) / (reference - random)


def apply_floor(scores: ArrayLike, at: ArrayLike, failed_at: ArrayLike, floor: float = 0.0) -> FloatArray:
    """Replace scores from the point on at which numbers became non-finite, NaN included, by ``floor``; ``(..., K)``.

    So a failed run stays in every statistic, with the scores that it reached before. :func:`floor_unlearnt` is the same
    for runs that did not learn.

    Args:
        scores: ``(..., K)``.
        at: ``(K,)`` environment steps of the evaluations.
        failed_at: ``(...)`` environment steps at which runs failed; NaN where they did not.
        floor: the random policy's score.

    Raises:
        ValueError: shapes do not fit, or a score before the failure is not finite.
    """
    scores, at, failed_at = (np.asarray(x, dtype=np.float64) for x in (scores, at, failed_at))
    if scores.ndim == 0 or at.shape != scores.shape[-1:] or failed_at.shape != scores.shape[:-1]:
        shapes = f"{scores.shape}, {at.shape} and {failed_at.shape}"
        raise ValueError(f"expected scores (..., K), at (K,) and failed_at (...), got {shapes}")
    return as_array(np.where(at >= failed_at[..., None], floor, scores), "(..., K)", "scores")


def auc(scores: ArrayLike) -> FloatArray:
    """The area under the curve as the mean over its points, ``(..., K)`` to ``(...)``."""
    return np.mean(as_array(scores, "(..., K)"), axis=-1)


def best(scores: ArrayLike) -> FloatArray:
    """The best point, ``(..., K)`` to ``(...)``; optimistic, because it is chosen after the fact."""
    return np.max(as_array(scores, "(..., K)"), axis=-1)


def final(scores: ArrayLike, share: float = 0.1) -> FloatArray:
    """The mean over the last ``share`` of the points, rounded down, at least one; ``(..., K)`` to ``(...)``.

    Five of 51 points.
    """
    array = as_array(scores, "(..., K)")
    return np.mean(array[..., -_final_points(array, share) :], axis=-1)


def _final_points(scores: FloatArray, share: float) -> int:
    """Return the number of points in the last ``share`` of curves ``(..., K)``."""
    return max(1, math.floor(share * scores.shape[-1] + 1e-9))


def has_learnt(scores: ArrayLike, failed: ArrayLike, below: float = FAILURE_BELOW) -> BoolArray:
    """Whether runs learnt: they did not fail, and :func:`final` is at least ``below``; ``(..., K)`` to ``(...)``.

    Args:
        scores: ``(..., K)``, with the floor of failed runs.
        failed: ``(...)``, whether a loss, gradient or parameter became non-finite.
        below: limit on the normalised scale.

    Raises:
        ValueError: shapes do not fit, or a score is not finite.
    """
    last = final(scores)
    lost = np.asarray(failed, dtype=bool)
    if lost.shape != last.shape:
        raise ValueError(f"expected failed {last.shape}, got {lost.shape}")
    return np.logical_and(~lost, last >= below)


def floor_unlearnt(scores: ArrayLike, below: float = FAILURE_BELOW, floor: float = 0.0) -> FloatArray:
    """Replace the scores of runs that did not learn by ``floor`` from where they stay low; ``(..., K)``.

    A run that did not learn has a :func:`final` score below ``below``. It counts with ``floor`` from the first window
    of evaluations, as long as that of :func:`final`, from which on the mean of every window is below ``below``. Without
    it a return far below that of the random policy has no bound, and few runs decide the mean of all.

    Args:
        scores: ``(..., K)``.
        below: limit on the normalised scale.
        floor: the random policy's score.

    Raises:
        ValueError: a score is not finite.
    """
    array = as_array(scores, "(..., K)")
    low = np.mean(np.lib.stride_tricks.sliding_window_view(array, _final_points(array, 0.1), axis=-1), axis=-1) < below
    low[..., -1] = final(array) < below  # the last window, rounded as in final
    start = np.where(low.all(axis=-1), 0, low.shape[-1] - np.argmax(~low[..., ::-1], axis=-1))
    unlearnt = low[..., -1, None] & (np.arange(array.shape[-1]) >= start[..., None])
    return np.where(unlearnt, floor, array)


def retention(scores: ArrayLike, share: float = 0.1) -> FloatArray:
    """:func:`final` over :func:`best`, ``(..., K)`` to ``(...)``: 1 when a run ends as good as it ever was.

    NaN where the best is not above 0: a run that never beat the random policy has nothing to keep.
    """
    last = final(scores, share)
    top = best(scores)
    return np.divide(last, top, out=np.full_like(top, np.nan), where=top > 0)


def dispersion_across_time(scores: ArrayLike, share: float = 0.5) -> FloatArray:
    """DT: the interquartile range of the differences ``s_k - s_{k-1}``, ``(..., K)`` to ``(...)``.

    Differences take the trend out. Over the last ``share`` of them, rounded up, because learning itself is no lack of
    stability; 1 is the whole run. 0 for a curve of one point.
    """
    differences = np.diff(as_array(scores, "(..., K)"), axis=-1)
    count = math.ceil(share * differences.shape[-1] - 1e-9)
    return _iqr(differences[..., differences.shape[-1] - count :])


def short_term_risk(scores: ArrayLike, alpha: float = ALPHA) -> FloatArray:
    """SRT: :func:`cvar_low` of the differences ``s_k - s_{k-1}``, the worst drops from one point to the next.

    ``(..., K)`` to ``(...)``; negative where the curve drops. 0 for a curve of one point.
    """
    array = as_array(scores, "(..., K)")
    return cvar_low(np.diff(array, axis=-1), alpha) if array.shape[-1] > 1 else np.zeros(array.shape[:-1])


def drawdown(scores: ArrayLike) -> FloatArray:
    """``max_{j <= k} s_j - s_k``, how far each point lies below the best so far; ``(..., K)``, never negative."""
    array = as_array(scores, "(..., K)")
    return np.maximum.accumulate(array, axis=-1) - array


def long_term_risk(scores: ArrayLike, alpha: float = ALPHA) -> FloatArray:
    """LRT: :func:`cvar_up` of the :func:`drawdown`, ``(..., K)`` to ``(...)``. Higher is worse."""
    return cvar_up(drawdown(scores), alpha)


def max_drawdown(scores: ArrayLike) -> FloatArray:
    """The largest :func:`drawdown`, ``(..., K)`` to ``(...)``."""
    return np.max(drawdown(scores), axis=-1)


def has_collapsed(scores: ArrayLike, size: float = 0.5, within: float = 0.1) -> BoolArray:
    """Whether a drawdown of at least ``size`` was not recovered from ``within`` a share of the budget.

    A run recovers when its drawdown is below ``size`` again. With 51 points a tenth of the budget is five intervals, so
    six points in a row at ``size`` or more are a collapse. A fall too close to the end to leave that much time does not
    count; :func:`max_drawdown` and :func:`retention` show it.

    Args:
        scores: ``(..., K)``.
        size: on the normalised scale, where 1 is the range from the random policy to the reference.
        within: share of the budget.

    Returns:
        ``(...)``.
    """
    down = drawdown(scores) >= size
    count = math.ceil(within * (down.shape[-1] - 1) - 1e-9) + 1
    if count > down.shape[-1]:
        return np.zeros(down.shape[:-1], dtype=bool)
    windows = np.lib.stride_tricks.sliding_window_view(down, count, axis=-1)
    return np.asarray(windows.all(axis=-1).any(axis=-1))


def steps_to_threshold(scores: ArrayLike, at: ArrayLike, threshold: float, window: int = 5) -> FloatArray:
    """The environment steps of the first point from which on the running mean stays at or above ``threshold``.

    The running mean at point k is over points ``k - window + 1 ... k``, so none exists before point ``window - 1``.
    A threshold that is reached and lost again does not count.

    Args:
        scores: ``(..., K)``.
        at: ``(K,)`` environment steps of the points.
        threshold: on the scale of the scores.
        window: points, at least 1.

    Returns:
        ``(...)``; NaN where a run never gets there, which means *later than the budget*, not missing: see
        :func:`pgkit.stats.survival.restricted_mean` and :func:`pgkit.stats.survival.median_time`.

    Raises:
        ValueError: ``at`` does not have one entry a point, ``window`` is below 1, or a score is not finite.
    """
    array = as_array(scores, "(..., K)")
    steps = as_array(at, "(K,)", "at")
    if len(steps) != array.shape[-1] or window < 1:
        raise ValueError(f"expected at ({array.shape[-1]},) and window >= 1, got {steps.shape} and {window}")
    if window > len(steps):
        return np.full(array.shape[:-1], np.nan)
    running = np.mean(np.lib.stride_tricks.sliding_window_view(array, window, axis=-1), axis=-1)
    below = running < threshold - 1e-12  # the mean of equal scores may round
    first = np.where(below.any(axis=-1), below.shape[-1] - np.argmax(below[..., ::-1], axis=-1), 0)
    return np.append(steps[window - 1 :], np.nan)[first]


def dispersion_across_runs(scores: ArrayLike) -> FloatArray:
    """DR: the interquartile range over runs at each point, ``(..., n, K)`` to ``(..., K)``."""
    return _iqr(np.moveaxis(as_array(scores, "(..., n, K)"), -2, -1))


def risk_across_runs(scores: ArrayLike, alpha: float = ALPHA) -> FloatArray:
    """RR: :func:`cvar_low` over runs at each point, ``(..., n, K)`` to ``(..., K)``."""
    return cvar_low(np.moveaxis(as_array(scores, "(..., n, K)"), -2, -1), alpha)


def dispersion_of_final(episodes: ArrayLike) -> FloatArray:
    """DF: the interquartile range over episodes of the final policy, ``(..., E)`` to ``(...)``."""
    return _iqr(as_array(episodes, "(..., E)", "episodes"))


def risk_of_final(episodes: ArrayLike, alpha: float = ALPHA) -> FloatArray:
    """RF: :func:`cvar_low` over episodes of the final policy, ``(..., E)`` to ``(...)``."""
    return cvar_low(as_array(episodes, "(..., E)", "episodes"), alpha)


def cvar_low(values: ArrayLike, alpha: float = ALPHA) -> FloatArray:
    """The mean of the values at or below their ``alpha``-quantile, ``(..., n)`` to ``(...)``; its low tail.

    Conditional value at risk (expected shortfall), as Chan et al. 2019 use it. The quantile interpolates linearly
    between order statistics, at ``alpha (n - 1)`` counted from 0, so the values meant are those at or below the order
    statistic at the integer part of that.

    Raises:
        ValueError: ``alpha`` is not in [0, 1], or a value is not finite.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    array = np.sort(as_array(values, "(..., n)"), axis=-1)
    rank = math.floor(alpha * (array.shape[-1] - 1) + 1e-9)  # a comparison with the quantile would hang on its last bit
    tail = array <= array[..., rank, None]
    return np.sum(np.where(tail, array, 0.0), axis=-1) / np.sum(tail, axis=-1)


def cvar_up(values: ArrayLike, alpha: float = ALPHA) -> FloatArray:
    """The mean of the values at or above their ``(1 - alpha)``-quantile: :func:`cvar_low` seen from above."""
    return -cvar_low(-np.asarray(values, dtype=np.float64), alpha) + 0.0  # no negative zero


def _iqr(array: FloatArray) -> FloatArray:
    """Interquartile range over the last axis, 0 where it is empty."""
    if not array.shape[-1]:
        return np.zeros(array.shape[:-1])
    low, high = np.quantile(array, [0.25, 0.75], axis=-1)
    return high - low
