"""One arm across environments: scores ``(n, E)``, n runs in each of E environments, normalised.

For three or more environments. On one environment the interquartile mean is not to be used: it drops the worst
quarter of the runs, the very failures that stability is about. All measures are those of Agarwal et al. 2021 ("Deep
Reinforcement Learning at the Edge of the Statistical Precipice", arXiv 2108.13264, section 4; their library is
rliable). Intervals are percentiles of a bootstrap stratified by environment: runs are drawn with replacement within
each environment.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from pgkit.stats.samples import LEVEL, Estimate, FloatArray, Rng, as_array, batches, generator, percentile_interval

MIN_ENVIRONMENTS = 3
"""The fewest environments to aggregate; with fewer, report them one by one."""

RESAMPLES = 50_000
PROFILE_RESAMPLES = 2_000
TAUS = np.linspace(0.0, 1.2, 121)
"""Scores at which performance profiles are evaluated."""


class Aggregates(NamedTuple):
    """An arm's measures across environments, with intervals."""

    iqm: Estimate
    mean: Estimate
    median: Estimate
    optimality_gap: Estimate


class Profile(NamedTuple):
    """The share of runs above each score ``tau``, with a pointwise interval; four arrays of one length."""

    tau: FloatArray
    share: FloatArray
    low: FloatArray
    high: FloatArray


def iqm(scores: ArrayLike) -> FloatArray:
    """The interquartile mean over all runs of all environments, ``(..., n, E)`` to ``(...)``.

    The mean of what is left after dropping the ``floor(n E / 4)`` lowest and as many of the highest
    (`scipy.stats.trim_mean`). For one sample, give ``(n, 1)``.
    """
    return np.asarray(stats.trim_mean(_pooled(scores), 0.25, axis=-1))


def mean(scores: ArrayLike) -> FloatArray:
    """The mean over all runs of all environments, ``(..., n, E)`` to ``(...)``."""
    return np.mean(_pooled(scores), axis=-1)


def median(scores: ArrayLike) -> FloatArray:
    """The median over environments of the mean over runs, ``(..., n, E)`` to ``(...)``."""
    return np.median(np.mean(as_array(scores, "(..., n, E)"), axis=-2), axis=-1)


def optimality_gap(scores: ArrayLike, target: float = 1.0) -> FloatArray:
    """``target - mean(min(score, target))``, by how much runs fall short of the target; ``(..., n, E)`` to ``(...)``.

    Lower is better, and what exceeds the target does not make up for what falls short.
    """
    return target - np.mean(np.minimum(_pooled(scores), target), axis=-1)


def aggregates(scores: ArrayLike, rng: Rng, resamples: int = RESAMPLES, level: float = LEVEL) -> Aggregates:
    """:func:`iqm`, :func:`mean`, :func:`median` and :func:`optimality_gap`, with stratified bootstrap intervals.

    Args:
        scores: ``(n, E)``. With one run the interval is the point, which says nothing.
        rng: generator or seed.
        resamples: 0 leaves intervals NaN.
        level: confidence level in (0, 1).
    """
    array = np.sort(as_array(scores, "(n, E)", "scores"), axis=0)
    functions = (iqm, mean, median, optimality_gap)
    drawn = [[function(batch) for function in functions] for batch in _resampled(array, generator(rng), resamples)]
    columns = [np.concatenate(parts) for parts in zip(*drawn, strict=True)] or [np.array([])] * len(functions)
    return Aggregates(
        *(
            Estimate(float(function(array)), *percentile_interval(column, level))
            for function, column in zip(functions, columns, strict=True)
        )
    )


def leave_one_out(
    scores: ArrayLike, rng: Rng, resamples: int = RESAMPLES, level: float = LEVEL
) -> tuple[Aggregates, ...]:
    """:func:`aggregates` without environment e, for each e in turn: whether one environment decides the answer.

    Arguments as :func:`aggregates`; an integer seed makes each the same as a call without that environment.

    Raises:
        ValueError: there is one environment only.
    """
    array = as_array(scores, "(n, E)", "scores")
    if array.shape[1] < 2:
        raise ValueError("leaving one environment out needs two or more")
    return tuple(aggregates(np.delete(array, e, axis=1), rng, resamples, level) for e in range(array.shape[1]))


def performance_profile(
    scores: ArrayLike, rng: Rng, taus: ArrayLike = TAUS, resamples: int = PROFILE_RESAMPLES, level: float = LEVEL
) -> Profile:
    """The share of runs, over all environments, with a score *above* tau: ``(1/nE) sum [x > tau]``.

    Pointwise percentile intervals of the stratified bootstrap.

    Args:
        scores: ``(n, E)``.
        rng: generator or seed.
        taus: ``(T,)``.
        resamples: at least 1.
        level: confidence level in (0, 1).
    """
    array = np.sort(as_array(scores, "(n, E)", "scores"), axis=0)
    tau = as_array(taus, "(T,)", "taus")
    runs, environments = array.shape
    above = (array[:, :, None] > tau).astype(np.float64)
    source = generator(rng)
    drawn = []
    for count in batches(resamples, environments * max(runs, len(tau))):
        times = source.multinomial(runs, np.full(runs, 1 / runs), size=(environments, count))
        drawn.append(sum(times[e] @ above[:, e] for e in range(environments)) / array.size)
    low, high = np.quantile(np.concatenate(drawn), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Profile(tau, above.mean(axis=(0, 1)), low, high)


def _resampled(array: FloatArray, rng: np.random.Generator, resamples: int) -> Iterator[FloatArray]:
    """Yield batches of resamples ``(b, n, E)``; runs are drawn anew within each environment."""
    for count in batches(resamples, array.size):
        yield np.take_along_axis(array[None], rng.integers(0, len(array), (count, *array.shape)), axis=1)


def _pooled(scores: ArrayLike) -> FloatArray:
    array = as_array(scores, "(..., n, E)", "scores")
    return array.reshape(*array.shape[:-2], -1)
