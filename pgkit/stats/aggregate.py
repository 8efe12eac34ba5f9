"""Across environments, where there are at least three (Agarwal et al. 2021, arXiv 2108.13264).

``scores (runs, environments)``. On a single environment the interquartile mean is not used: it drops the worst quarter
of the seeds, the very failures that stability is about.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

from pgkit.stats.intervals import LEVEL, Interval

Array = np.ndarray[Any, np.dtype[np.float64]]

FEWEST_ENVIRONMENTS = 3
RESAMPLES = 50_000
PROFILE_RESAMPLES = 2_000
TAUS = np.linspace(0, 1.2, 121)

_BATCH = 2_000


def iqm(scores: Array) -> float:
    """Interquartile mean of all numbers: floor(n / 4) are dropped at each end."""
    return float(stats.trim_mean(scores, 0.25, axis=None))


def optimality_gap(scores: Array, target: float = 1.0) -> float:
    """Mean shortfall: target minus the mean of min(score, target)."""
    return float(target - np.minimum(scores, target).mean())


def profile(scores: Array, taus: Array = TAUS) -> Array:
    """Share of all runs with a score above each tau, ``(taus,)``."""
    return np.asarray((scores.reshape(-1, 1) > taus).mean(0))


def stratified_bootstrap(
    statistic: Callable[[Array], Any], scores: Array, rng: np.random.Generator, resamples: int
) -> Array:
    """The statistic of resamples whose runs are drawn with replacement, environment by environment."""
    runs, environments = scores.shape
    found = []
    for first in range(0, resamples, _BATCH):
        rows = rng.integers(runs, size=(min(_BATCH, resamples - first), runs, environments))
        found += [statistic(sample) for sample in scores[rows, np.arange(environments)]]
    return np.asarray(found)


def interval(
    statistic: Callable[[Array], float],
    scores: Array,
    rng: np.random.Generator,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Interval:
    """Percentile interval of a statistic by the stratified bootstrap."""
    values = stratified_bootstrap(statistic, scores, rng, resamples)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def profile_band(
    scores: Array,
    rng: np.random.Generator,
    taus: Array = TAUS,
    level: float = LEVEL,
    resamples: int = PROFILE_RESAMPLES,
) -> tuple[Array, Array]:
    """Pointwise percentile band of a performance profile, ``(taus,)`` each."""
    values = stratified_bootstrap(lambda sample: profile(sample, taus), scores, rng, resamples)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def leave_one_out(statistic: Callable[[Array], float], scores: Array) -> Array:
    """The statistic without each environment in turn, ``(environments,)``."""
    return np.array([statistic(np.delete(scores, column, axis=1)) for column in range(scores.shape[1])])
