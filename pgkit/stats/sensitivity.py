"""Sensitivity of an arm's score to the learning rate: s(lr) is the mean normalised score over tuning seeds.

Scores are ``(L, S)``: L rates, ascending, by S seeds, the same for every rate. Intervals are percentiles of a bootstrap
over seeds, a seed being drawn with all its rates, because runs of one seed share initial weights and environments. With
the few seeds of a tuning stage such intervals are too narrow (of 95 % they cover 65-80 % with 3-10 seeds): read them as
the least uncertainty there is. Of rates that tie for the best, the lowest counts.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from pgkit.stats.samples import LEVEL, Estimate, FloatArray, Rng, as_array, generator, percentile_interval, sort_columns

RESAMPLES = 2_000
NEAR_BEST = 0.9
"""The share of the best score from which a rate counts as nearly as good."""

_SAME_DECADE = 1e-3
"""Difference of log10 below which two rates are the same: of 3.16e-3, which stands for sqrt(10) / 1000, and that."""


class Sensitivity(NamedTuple):
    """An arm's measures of sensitivity to the learning rate, each with its interval."""

    width: Estimate
    area: Estimate
    times_sqrt10: Estimate
    over_sqrt10: Estimate
    safe_ratio: Estimate


def rate_sensitivity(
    scores: ArrayLike, unlearnt: ArrayLike, rates: ArrayLike, rng: Rng, resamples: int = RESAMPLES, level: float = LEVEL
) -> Sensitivity:
    """Compute all measures of one arm in one environment, with bootstrap intervals over seeds.

    Args:
        scores: ``(L, S)``, runs that failed or did not learn with their floor.
        unlearnt: bool ``(L, S)``, whether a run failed or did not learn.
        rates: ``(L,)``, positive and ascending.
        rng: generator or seed.
        resamples: at least 1.
        level: confidence level in (0, 1).

    Raises:
        ValueError: shapes do not fit, or rates are not positive and ascending.
    """
    array = as_array(scores, "(L, S)", "scores")
    lost = np.asarray(unlearnt, dtype=bool)
    if lost.shape != array.shape:
        raise ValueError(f"expected unlearnt {array.shape}, got {lost.shape}")
    order = sort_columns(np.concatenate([array, lost]))
    array = array[:, order]
    lost = lost[:, order]
    drawn = generator(rng).integers(0, array.shape[1], (resamples, array.shape[1]))
    curves = _means(array, drawn)
    losses = np.any(lost[:, drawn], axis=2).T
    whole = array.mean(axis=1)
    any_lost = np.any(lost, axis=1)
    measures: tuple[Callable[[FloatArray, ArrayLike], FloatArray], ...] = (
        lambda s, _: width(s, rates),
        lambda s, _: area(s, rates),
        lambda s, _: beside_best(s, rates, 0.5),
        lambda s, _: beside_best(s, rates, -0.5),
        lambda s, bad: safe_ratio(s, bad, rates),
    )
    return Sensitivity(
        *(_estimate(float(measure(whole, any_lost)), measure(curves, losses), level) for measure in measures)
    )


def width(curve: ArrayLike, rates: ArrayLike, share: float = NEAR_BEST) -> FloatArray:
    """The width, in decades, of the contiguous set of rates around the best with ``s >= share * best``.

    ``log10(highest / lowest)`` of the set, on the grid: 0 for a single rate, and no finer than the grid. 0 as well
    where the best is not above 0: no rate beats the random policy.

    Args:
        curve: s, ``(..., L)``.
        rates: ``(L,)``.
        share: in (0, 1].

    Returns:
        ``(...)``.
    """
    s, decades = _curve(curve, rates)
    top = np.argmax(s, axis=-1)[..., None]
    best = np.take_along_axis(s, top, axis=-1)
    outside = s < share * best
    index = np.arange(len(decades))
    low = np.max(np.where(outside & (index < top), index, -1), axis=-1) + 1
    high = np.min(np.where(outside & (index > top), index, len(decades)), axis=-1) - 1
    return np.where(best[..., 0] > 0, decades[high] - decades[low], 0.0)


def area(curve: ArrayLike, rates: ArrayLike) -> FloatArray:
    """The area under s over log10 lr by the trapezium rule, ``(..., L)`` to ``(...)``, score times decades.

    0 for a single rate. Comparable between arms only on the same grid. Arguments as :func:`width`.
    """
    s, decades = _curve(curve, rates)
    return np.sum((s[..., 1:] + s[..., :-1]) / 2 * np.diff(decades), axis=-1)


def beside_best(curve: ArrayLike, rates: ArrayLike, decades: float) -> FloatArray:
    """s at the best rate times ``10^decades``: what is left when the rate is missed; ``(..., L)`` to ``(...)``.

    Between grid points linear in log10 lr; NaN outside the grid. Arguments as :func:`width`.
    """
    s, grid = _curve(curve, rates)
    wanted = grid[np.argmax(s, axis=-1)] + decades
    inside = (wanted >= grid[0] - _SAME_DECADE) & (wanted <= grid[-1] + _SAME_DECADE)
    if len(grid) == 1:
        return np.where(inside, s[..., 0], np.nan)
    left = np.clip(np.searchsorted(grid, wanted + _SAME_DECADE, "right") - 1, 0, len(grid) - 2)
    weight = np.clip((wanted - grid[left]) / (grid[left + 1] - grid[left]), 0.0, 1.0)
    weight = np.where(weight < _SAME_DECADE, 0.0, np.where(weight > 1 - _SAME_DECADE, 1.0, weight))
    below, above = (np.take_along_axis(s, np.asarray(i)[..., None], axis=-1)[..., 0] for i in (left, left + 1))
    return np.where(inside, (1 - weight) * below + weight * above, np.nan)


def safe_ratio(curve: ArrayLike, any_unlearnt: ArrayLike, rates: ArrayLike) -> FloatArray:
    """The largest rate at which every run learnt, over the best rate; below 1 when not all did at the best rate.

    NaN when some run of every rate did not learn.

    Args:
        curve: s, ``(..., L)``.
        any_unlearnt: bool ``(..., L)``, whether any run of the rate did not learn.
        rates: ``(L,)``.

    Returns:
        ``(...)``.

    Raises:
        ValueError: shapes do not fit.
    """
    s, decades = _curve(curve, rates)
    safe = ~np.asarray(any_unlearnt, dtype=bool)
    if safe.shape != s.shape:
        raise ValueError(f"expected any_unlearnt {s.shape}, got {safe.shape}")
    last = decades.size - 1 - np.argmax(safe[..., ::-1], axis=-1)
    ratio = 10.0 ** (decades[last] - decades[np.argmax(s, axis=-1)])
    return np.where(safe.any(axis=-1), ratio, np.nan)


def expected_best(values: ArrayLike) -> FloatArray:
    """The expected best of k settings drawn from L without replacement, for k = 1 ... L; ``(..., L)`` to ``(..., L)``.

    ``sum_i x_(i) C(i-1, k-1) / C(L, k)`` with x ascending: what a budget of k trials buys (Tang et al. 2020, "Showing
    Your Work Doesn't Always Work", arXiv 2004.13705). At k = 1 the mean, at k = L the best.

    Args:
        values: a score for each setting.
    """
    array = np.sort(as_array(values, "(..., L)"), axis=-1)
    count = array.shape[-1]
    i = np.arange(1, count + 1)
    k = np.arange(1, count + 1)[:, None]
    weights = special.comb(i - 1, k - 1) / special.comb(count, k)
    return np.sum(array[..., None, :] * weights, axis=-1)


def expected_best_intervals(
    scores: ArrayLike, rng: Rng, resamples: int = RESAMPLES, level: float = LEVEL
) -> tuple[Estimate, ...]:
    """:func:`expected_best` of s for k = 1 ... L, with bootstrap intervals over seeds.

    Arguments as :func:`rate_sensitivity`.
    """
    array = as_array(scores, "(L, S)", "scores")
    array = array[:, sort_columns(array)]
    drawn = generator(rng).integers(0, array.shape[1], (resamples, array.shape[1]))
    curves = expected_best(_means(array, drawn))
    values = expected_best(array.mean(axis=1))
    return tuple(Estimate(float(value), *percentile_interval(curves[:, k], level)) for k, value in enumerate(values))


def phi(scores: ArrayLike, rng: Rng, resamples: int = RESAMPLES, level: float = LEVEL) -> Estimate:
    """``mean_e max_lr s_e(lr) - max_lr mean_e s_e(lr)``: what tuning for each environment gains over one rate for all.

    Adkins, Bowling and White 2024 (arXiv 2412.07165), here with the normalised score of this package, not
    their percentiles, and without other hyperparameters. Never negative, 0 when one rate is best everywhere. Seeds are
    drawn anew within each environment.

    Args:
        scores: ``(E, L, S)``.
        rng: generator or seed.
        resamples: at least 1.
        level: confidence level in (0, 1).
    """
    array = as_array(scores, "(E, L, S)", "scores")
    source = generator(rng)
    seeds = array.shape[2]
    curves = np.stack(
        [_means(part[:, sort_columns(part)], source.integers(0, seeds, (resamples, seeds))) for part in array]
    )

    def value(s: FloatArray) -> FloatArray:
        return np.mean(np.max(s, axis=-1), axis=0) - np.max(np.mean(s, axis=0), axis=-1)

    return Estimate(float(value(array.mean(axis=2))), *percentile_interval(value(curves), level))


def _estimate(value: float, resampled: FloatArray, level: float) -> Estimate:
    """Return a measure with its interval, which is NaN where the measure is."""
    return Estimate(value, *((np.nan, np.nan) if np.isnan(value) else percentile_interval(resampled, level)))


def _means(array: FloatArray, drawn: NDArray[np.int64]) -> FloatArray:
    """Return mean curves ``(B, L)`` of scores ``(L, S)`` over drawn seeds ``(B, S)``."""
    return np.stack([np.mean(row[drawn], axis=1) for row in array], axis=1)


def _curve(curve: ArrayLike, rates: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Check and return s ``(..., L)`` and log10 of the rates ``(L,)``."""
    s = as_array(curve, "(..., L)", "curve")
    grid = as_array(rates, "(L,)", "rates")
    if len(grid) != s.shape[-1] or grid[0] <= 0 or (np.diff(grid) <= 0).any():
        raise ValueError(f"expected {s.shape[-1]} rates, positive and ascending, got {grid.tolist()}")
    return s, np.log10(grid)
