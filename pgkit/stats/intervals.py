"""Intervals for one arm in one environment; values ``(n,)`` are one number per run."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from pgkit.stats.curves import cvar_low
from pgkit.stats.samples import (
    LEVEL,
    Estimate,
    Interval,
    Rng,
    as_sample,
    batches,
    check_share,
    generator,
    percentile_interval,
)

SKEW_LIMIT = 1.0
"""The absolute skewness above which a t interval of few runs misleads."""

MIN_TOLERANCE_RUNS = 46
"""The fewest runs whose extremes hold 90 % of all runs with 95 % confidence."""


class Tolerance(NamedTuple):
    """The extremes of a sample, and the confidence that they contain the share ``content`` of all runs."""

    low: float
    high: float
    content: float
    confidence: float


def t_interval(values: ArrayLike, level: float = LEVEL) -> Interval:
    """Student's interval of the mean: ``mean -+ t_{n-1, (1+level)/2} sd / sqrt(n)``.

    NaN for one value; the point itself when all are equal. Student 1908; `scipy.stats.t`.

    Args:
        values: ``(n,)``.
        level: confidence level in (0, 1).
    """
    check_share("level", level)
    sample = np.sort(as_sample(values))
    if len(sample) == 1:
        return Interval(np.nan, np.nan)
    half = stats.t.ppf((1 + level) / 2, len(sample) - 1) * np.std(sample, ddof=1) / np.sqrt(len(sample))
    return Interval(float(sample.mean() - half), float(sample.mean() + half)) if np.ptp(sample) else _point(sample)


def bca_interval(
    values: ArrayLike,
    rng: Rng,
    statistic: Callable[..., Any] = np.mean,
    resamples: int = 10_000,
    level: float = LEVEL,
) -> Interval:
    """The bias-corrected and accelerated bootstrap interval (Efron 1987; Efron and Tibshirani 1993, section 14.3).

    NaN for one value. Where BCa is 0/0 it is the percentile interval instead: the point itself when all values are
    equal. `scipy.stats.bootstrap`.

    Args:
        values: ``(n,)``.
        rng: generator or seed.
        statistic: called as ``statistic(x, axis=-1)``.
        resamples: at least 1.
        level: confidence level in (0, 1).
    """
    check_share("level", level)
    sample = np.sort(as_sample(values))
    if len(sample) == 1:
        return Interval(np.nan, np.nan)
    if not np.ptp(sample):
        return _point(sample)
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            (sample,),
            statistic,
            n_resamples=resamples,
            batch=batches(resamples, len(sample))[0],
            vectorized=True,
            confidence_level=level,
            method="BCa",
            rng=generator(rng),
        )
    low, high = (float(end) for end in result.confidence_interval)
    exists = np.isfinite([low, high]).all()
    return Interval(low, high) if exists else percentile_interval(result.bootstrap_distribution, level)


def skewness(values: ArrayLike) -> float:
    """The adjusted Fisher-Pearson coefficient ``sqrt(n (n - 1)) / (n - 2) m_3 / m_2^{3/2}`` (`scipy.stats.skew`).

    0 when all values are equal, NaN for fewer than three. Beyond ``SKEW_LIMIT`` on either side, distrust
    :func:`t_interval` and look at every run.
    """
    sample = np.sort(as_sample(values))
    if len(sample) < 3:
        return float("nan")
    centred = sample - sample.mean()
    return float(stats.skew(centred, bias=False)) if np.ptp(sample) else 0.0


def tolerance_confidence(n: int, content: float = 0.9) -> float:
    """The probability that the extremes of n runs hold at least the share ``content`` of all runs.

    ``1 - n c^{n-1} + (n - 1) c^n``, whatever the continuous distribution (Wilks 1941); the content of the range is
    Beta(n - 1, 2). At least 0.95 from n = 46 (``MIN_TOLERANCE_RUNS``) for 90 %.

    Raises:
        ValueError: n is below 1, or ``content`` is not in (0, 1).
    """
    check_share("content", content)
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    return float(1 - n * content ** (n - 1) + (n - 1) * content**n)


def tolerance_interval(values: ArrayLike, content: float = 0.9) -> Tolerance:
    """Return the minimum and maximum as a tolerance interval, with the confidence *achieved*.

    From n = 46 on the confidence reaches 0.95: a 90/95 tolerance interval. Below that, report the confidence with the
    interval: the extremes of 20 runs hold 90 % of all runs with confidence 0.61. Ties (a maximal return) only
    raise it.

    Args:
        values: ``(n,)``.
        content: share of all runs, in (0, 1).
    """
    sample = as_sample(values)
    confidence = tolerance_confidence(len(sample), content)
    return Tolerance(float(sample.min()), float(sample.max()), content, confidence)


def wilson(count: int, n: int, level: float = LEVEL) -> Estimate:
    """The share ``count / n`` with Wilson's score interval (Wilson 1927), which is right at 0 of n, too.

    `scipy.stats.binomtest`. NaN for n = 0.

    Raises:
        ValueError: ``count`` is not in 0 ... n.
    """
    check_share("level", level)
    if not 0 <= count <= n:
        raise ValueError(f"count must be in 0 ... n, got {count} of {n}")
    if n == 0:
        return Estimate(np.nan, np.nan, np.nan)
    interval = stats.binomtest(int(count), int(n)).proportion_ci(confidence_level=level, method="wilson")
    return Estimate(count / n, float(interval.low), float(interval.high))


def worst_tenth(values: ArrayLike, rng: Rng, resamples: int = 10_000, level: float = LEVEL) -> Estimate:
    """The mean of the worst tenth of the runs, :func:`pgkit.stats.cvar_low` at 10 %, with its bootstrap interval.

    Percentile interval (Efron and Tibshirani 1993, section 13.3). No resample holds a value that was never seen: with
    few runs the lower end is the worst run, and the worst of more runs may well lie below it. Ends are NaN for one
    value.

    Args:
        values: ``(n,)``.
        rng: generator or seed.
        resamples: at least 1.
        level: confidence level in (0, 1).
    """
    check_share("level", level)
    sample = np.sort(as_sample(values))
    value = float(cvar_low(sample, 0.1))
    if len(sample) == 1:
        return Estimate(value, np.nan, np.nan)
    draws = generator(rng)
    count = len(sample)
    tails = [cvar_low(sample[draws.integers(0, count, (size, count))], 0.1) for size in batches(resamples, count)]
    return Estimate(value, *percentile_interval(np.concatenate(tails), level))


def _point(sample: Any) -> Interval:
    return Interval(float(sample[0]), float(sample[0]))
