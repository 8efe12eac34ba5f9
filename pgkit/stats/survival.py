"""Times to a threshold. NaN means *not within the budget*; such runs are censored, never dropped."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pgkit.stats.samples import BoolArray, FloatArray


class Survival(NamedTuple):
    """A step function: from ``times[i]`` on, ``share[i]`` of the runs have not arrived; before the first, all."""

    times: FloatArray
    share: FloatArray


def kaplan_meier(times: ArrayLike, horizon: ArrayLike) -> Survival:
    """The share of runs that have not reached the threshold, by time (Kaplan and Meier 1958).

    ``S(t) = prod_{t_i <= t} (1 - d_i / n_i)`` with d_i runs arriving at t_i, n_i runs neither arrived nor out of
    budget before t_i.

    Args:
        times: ``(n,)`` environment steps, NaN for runs that never arrive.
        horizon: the budget, a number or one a run ``(n,)``; positive.

    Returns:
        The distinct times of arrival, ascending, and the share after each; empty when none arrives.

    Raises:
        ValueError: shapes differ, or a time exceeds its horizon.
    """
    last, arrived, _ = _observed(times, horizon)
    distinct = np.unique(last[arrived])
    at_risk = np.sum(last >= distinct[:, None], axis=1)
    arriving = np.sum(arrived & (last == distinct[:, None]), axis=1)
    return Survival(distinct, np.cumprod(1 - arriving / at_risk))


def median_time(times: ArrayLike, horizon: ArrayLike) -> float:
    """The first time at which at most half of the runs have not arrived (Kaplan-Meier); NaN when half never do.

    Arguments as :func:`kaplan_meier`.
    """
    curve = kaplan_meier(times, horizon)
    reached = curve.times[curve.share <= 0.5 + 1e-12]
    return float(reached[0]) if len(reached) else float("nan")


def restricted_mean(times: ArrayLike, horizon: ArrayLike) -> float:
    """The mean of min(time, tau): the area under :func:`kaplan_meier` from 0 to tau, the longest horizon.

    Royston and Parmar 2013 ("Restricted mean survival time"). Where all runs have one budget it is the plain mean with
    that budget in place of what was not reached, so an arm that never gets there has tau, not nothing. Where budgets
    differ, the last share is carried on to tau. Arguments as :func:`kaplan_meier`; environment steps.
    """
    curve = kaplan_meier(times, horizon)
    tau = _observed(times, horizon)[2].max()
    edges = np.concatenate([[0.0], curve.times, [tau]])
    return float(np.sum(np.diff(edges) * np.concatenate([[1.0], curve.share])))


def _observed(times: ArrayLike, horizon: ArrayLike) -> tuple[FloatArray, BoolArray, FloatArray]:
    """Return each run's last observed time, whether it arrived then, and its horizon."""
    array = np.asarray(times, dtype=np.float64)
    if array.ndim != 1 or not len(array) or np.shape(horizon) not in ((), array.shape):
        raise ValueError(f"expected times (n,) and a horizon or (n,) of them, got {array.shape}, {np.shape(horizon)}")
    budget = np.broadcast_to(np.asarray(horizon, dtype=np.float64), array.shape)
    arrived = ~np.isnan(array)
    if not (np.isfinite(budget) & (budget > 0)).all() or (array[arrived] > budget[arrived]).any():
        raise ValueError("horizons must be positive and finite, and no time behind its own")
    return np.where(arrived, array, budget), arrived, budget
