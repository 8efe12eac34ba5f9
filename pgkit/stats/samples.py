"""Shared parts of the statistics: types of results, checks of arguments, random numbers.

Functions that draw take ``rng``: a :class:`numpy.random.Generator`, which they advance, or an integer seed. Given a
seed, the result is a function of the data alone. Values are sorted before anything is drawn, so that the order in
which runs are listed changes nothing, not even the last bit.
"""

from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray: TypeAlias = NDArray[np.float64]
BoolArray: TypeAlias = NDArray[np.bool_]
Rng: TypeAlias = np.random.Generator | int
Verdict: TypeAlias = Literal["better", "worse", "equivalent", "unresolved"]

LEVEL = 0.95
"""Default confidence level of intervals."""

MIN_EVALUATION_SEEDS = 10
"""The fewest runs for which a report shows intervals; below, it shows every run, minimum, median and maximum."""

BATCH_NUMBERS = 500_000
"""The most resampled numbers held in memory at once (4 MB)."""


class Interval(NamedTuple):
    """A confidence interval in the unit of the values; both ends NaN where there is none."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A number with its confidence interval, all in one unit; ends NaN where there is none."""

    value: float
    low: float
    high: float


def generator(rng: Rng) -> np.random.Generator:
    """Return the generator itself, or a new one from an integer seed."""
    return rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)


def as_array(values: ArrayLike, axes: str, name: str = "values") -> FloatArray:
    """Convert to a finite float64 array with the rank of ``axes`` and no empty axis.

    ``axes`` is text such as ``(runs, K)``; ``(..., K)`` allows any rank from one.

    Raises:
        ValueError: another rank, an empty axis, or a number that is not finite.
    """
    array = np.asarray(values, dtype=np.float64, order="C")  # in another order sums round differently
    rank = len(axes.strip("(,)").split(","))
    least = axes.startswith("(...")
    wrong = array.ndim < rank - 1 if least else array.ndim != rank
    if wrong or array.ndim == 0 or 0 in array.shape:
        raise ValueError(f"{name} must have shape {axes} with no axis empty, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite: give failed runs their floor first")
    return array


def as_sample(values: ArrayLike, name: str = "values") -> FloatArray:
    """Convert to a finite float64 array ``(n,)`` with n at least 1.

    Raises:
        ValueError: as :func:`as_array`.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name} must have shape (n,) with n >= 1, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite: give failed runs their floor first")
    return array


def check_share(name: str, share: float) -> None:
    """Raise ValueError unless ``share`` lies strictly between 0 and 1."""
    if not 0 < share < 1:
        raise ValueError(f"{name} must be between 0 and 1, got {share}")


def batches(count: int, size: int) -> list[int]:
    """Split ``count`` resamples of ``size`` numbers into batches of bounded memory; return the batch sizes."""
    part = max(1, min(count, BATCH_NUMBERS // max(1, size)))
    return [min(part, count - start) for start in range(0, count, part)]


def percentile_interval(resampled: ArrayLike, level: float = LEVEL) -> Interval:
    """Return quantiles of the resampled statistic, the percentile bootstrap (Efron and Tibshirani 1993, section 13.3).

    Resamples in which the statistic does not exist (NaN) are left out.

    Args:
        resampled: ``(B,)``.
        level: confidence level in (0, 1).
    """
    check_share("level", level)
    array = np.asarray(resampled, dtype=np.float64)
    array = array[~np.isnan(array)]
    if not len(array):
        return Interval(np.nan, np.nan)
    low, high = np.quantile(array, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def sort_columns(matrix: NDArray[Any]) -> NDArray[np.intp]:
    """Return the order ``(S,)`` of columns that sorts them by their first row, ties by the next row, and so on."""
    return np.lexsort(matrix.reshape(-1, matrix.shape[-1])[::-1])
