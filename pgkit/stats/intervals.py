"""How sure a number is: confidence and tolerance intervals, and the mean and median of censored times."""

from typing import Any

import numpy as np
from scipy import stats

Array = np.ndarray[Any, np.dtype[np.float64]]
Interval = tuple[float, float]

LEVEL = 0.95
RESAMPLES = 10_000

NOTABLE_SKEW = 1.0
"""Skewness beyond which the Student interval of a mean is not to be trusted."""

NOTHING: Interval = (np.nan, np.nan)


def t_interval(x: Array, level: float = LEVEL) -> Interval:
    """Student's confidence interval of the mean of ``(n,)``; NaN for one number."""
    if len(x) < 2:
        return NOTHING
    half = stats.t.ppf((1 + level) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    return float(x.mean() - half), float(x.mean() + half)


def bca_interval(x: Array, rng: np.random.Generator, level: float = LEVEL, resamples: int = RESAMPLES) -> Interval:
    """Bias-corrected and accelerated bootstrap interval of the mean (Efron 1987); NaN for one number.

    Where all numbers are equal, the interval is that number.
    """
    if len(x) < 2:
        return NOTHING
    if np.ptp(x) == 0:
        return float(x[0]), float(x[0])
    found = stats.bootstrap((x,), np.mean, confidence_level=level, n_resamples=resamples, method="BCa", rng=rng)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def skew(x: Array) -> float:
    """Sample skewness, with the correction for small samples; NaN below three numbers, 0 where all are equal."""
    if len(x) < 3:
        return np.nan
    return 0.0 if np.ptp(x) == 0 else float(stats.skew(x, bias=False))


def wilson_interval(successes: int, n: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927)."""
    found = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def tolerance_confidence(n: int, content: float = 0.9) -> float:
    """Confidence that minimum and maximum of n runs enclose a share ``content`` of all runs (Wilks 1941).

    1 - n content^(n - 1) + (n - 1) content^n; for 90 % content it reaches 95 % at n = 46.
    """
    return float(1 - n * content ** (n - 1) + (n - 1) * content**n)


def restricted_mean(times: Array, horizon: float) -> float:
    """Mean of min(time, horizon) of ``(n,)`` times, NaN (censored) ones counting as the horizon.

    All censoring is at the horizon here, so this equals the area under the Kaplan-Meier curve up to it.
    """
    return float(np.minimum(np.where(np.isnan(times), horizon, times), horizon).mean())


def kaplan_meier_median(times: Array) -> float:
    """The time by which half of the runs got there (Kaplan and Meier 1958), censoring being at the horizon only.

    NaN when fewer than half did.
    """
    reached = np.sort(times[~np.isnan(times)])
    needed = -(-len(times) // 2)
    return float(reached[needed - 1]) if len(reached) >= needed else np.nan
