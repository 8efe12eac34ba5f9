"""How much depends on the learning rate, and how sure the selection of one is.

``scores (S, R)`` are those of S tuning seeds at R rates, ascending. Every measure is a function of the mean scores
``(..., R)``, vectorised over leading axes, so that :func:`interval` can compute it for all bootstrap resamples at once.
Sources: Patterson et al. 2024 (arXiv 2304.01315) and Adkins et al. 2024 (arXiv 2412.07165) for sensitivity; Dodge et
al. 2019 (arXiv 1909.03004) for the expected best of k settings, here without replacement.
"""

from collections.abc import Callable
from math import comb
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

NEAR_BEST = 0.9
"""Share of the best mean score that a rate must reach to count as working."""

IN_SET = 0.05
"""Share of resamples in which a setting must be selected to belong to the uncertainty set."""


def select(means: Array) -> Any:
    """Index of the best rate, ``(..., R) -> (...)``; ties go to the rate closest to the middle of the grid."""
    count = means.shape[-1]
    middle = np.abs(np.arange(count) - (count - 1) / 2)
    tied = means == means.max(-1, keepdims=True)
    return np.where(tied, middle, np.inf).argmin(-1)


def resample_means(scores: Array, resamples: int, rng: np.random.Generator) -> Array:
    """Means over seeds ``(resamples, R)``, seeds drawn with replacement, the same for all rates of a resample."""
    seeds = scores.shape[0]
    counts = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    return counts @ scores / seeds


def selection_shares(scores: Array, rng: np.random.Generator, resamples: int = 1000) -> Array:
    """How often each rate is selected when seeds are resampled, ``(S, R) -> (R,)``.

    Rates with a share of at least ``IN_SET`` are the uncertainty set.
    """
    selected = select(resample_means(scores, resamples, rng))
    return np.bincount(selected, minlength=scores.shape[1]) / resamples


def width(means: Array, rates: Array) -> Array:
    """Decades between the ends of the contiguous set of rates around the best with mean >= 0.9 best.

    A set of one rate has width 0; so has everything when the best mean is not above 0.
    """
    best = select(means)
    near = (means >= NEAR_BEST * means.max(-1, keepdims=True)) & (means.max(-1, keepdims=True) > 0)
    index, count = np.arange(means.shape[-1]), means.shape[-1]
    above = np.where(~near & (index > best[..., None]), index, count).min(-1) - 1
    below = np.where(~near & (index < best[..., None]), index, -1).max(-1) + 1
    logs = np.log10(rates)
    return np.where(means.max(-1) > 0, logs[above] - logs[below], 0.0)


def area(means: Array, rates: Array) -> Array:
    """Area under the mean score over log10 of the rate (trapezoids), per decade: the mean level over the grid."""
    logs = np.log10(rates)
    if len(logs) < 2:
        return means[..., 0]
    return np.trapezoid(means, logs, axis=-1) / (logs[-1] - logs[0])


def beside(means: Array, rates: Array, decades: float) -> Array:
    """Mean score at best rate x 10^decades, linear in log10 of the rate; NaN where that is outside the grid."""
    logs = np.log10(rates)
    places = logs[select(means)] + decades
    inside = (places >= logs[0] - 1e-3) & (places <= logs[-1] + 1e-3)
    right = np.clip(np.searchsorted(logs, places), 1, max(1, len(logs) - 1))
    if len(logs) < 2:
        return np.full(means.shape[:-1], np.nan)
    share = np.clip((places - logs[right - 1]) / (logs[right] - logs[right - 1]), 0, 1)
    low, high = (np.take_along_axis(means, i[..., None], -1)[..., 0] for i in (right - 1, right))
    return np.where(inside, low + share * (high - low), np.nan)


def safe_ratio(means: Array, rates: Array, failed: Array) -> Array:
    """Largest rate at which no run failed, over the best rate; NaN when some run failed at every rate.

    Args:
        means: ``(..., R)``.
        rates: ``(R,)``.
        failed: bool ``(R,)``, whether any run failed at that rate.
    """
    safe = np.flatnonzero(~failed.astype(bool))
    if len(safe) == 0:
        return np.full(means.shape[:-1], np.nan)
    return rates[safe[-1]] / rates[select(means)]


def interval(
    measure: Callable[[Array], Array],
    scores: Array,
    rng: np.random.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval over seeds of a measure of the mean scores; NaN resamples are left out.

    Percentile intervals of few seeds are too short; with 5 seeds take them as a lower bound on the uncertainty.
    """
    values = measure(resample_means(scores, resamples, rng))
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def expected_best(means: Array) -> Array:
    """Expected best of k settings drawn without replacement, k = 1 ... R: ``(..., R) -> (..., R)``.

    sum_i x_(i) C(i - 1, k - 1) / C(R, k), x_(i) the i-th smallest.
    """
    count = means.shape[-1]
    weights = np.array(
        [[comb(i - 1, k - 1) / comb(count, k) for i in range(1, count + 1)] for k in range(1, count + 1)]
    )
    return np.sort(means, axis=-1) @ weights.T


def phi(means: Array) -> float:
    """mean_e max_lr - max_lr mean_e of ``(environments, R)`` mean scores: what is lost by one rate for all of them."""
    return float(means.max(1).mean() - means.mean(0).max())
