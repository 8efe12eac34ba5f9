"""Comparison of two arms seed by seed, for plans that declare it beforehand.

Values are ``(n,)`` for each arm, entry i of both from seed i; higher is better.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from pgkit.stats.pairs import DRAWS, EXACT_LIMIT, Difference, certain, from_error
from pgkit.stats.samples import LEVEL, Estimate, FloatArray, Rng, as_sample, batches, check_share, generator


def paired_difference(first: ArrayLike, second: ArrayLike, level: float = LEVEL) -> Difference:
    """The mean of ``x_i - y_i`` with Student's interval and test (`scipy.stats.ttest_rel`).

    With one seed everything but the value is NaN; where all differences are equal the interval is the point.
    """
    check_share("level", level)
    differences = _differences(first, second)
    value = float(differences.mean())
    if len(differences) == 1:
        return Difference(value, *[float("nan")] * 5)
    if not np.ptp(differences):
        return certain(float(differences[0]))
    error = float(np.std(differences, ddof=1) / np.sqrt(len(differences)))
    return from_error(value, error, len(differences) - 1, level)


def paired_permutation_test(
    first: ArrayLike, second: ArrayLike, rng: Rng, draws: int = DRAWS, exact_limit: int = EXACT_LIMIT
) -> float:
    """The share of ways to exchange arms within seeds whose mean difference is at least as large (two-sided).

    All ``2^n`` while there are at most ``exact_limit``, else random ones with ``p = (1 + b) / (1 + B)`` (Fisher 1935,
    section 21; Phipson and Smyth 2010). Arguments as :func:`pgkit.stats.pairs.permutation_test`.
    """
    differences = np.sort(np.abs(_differences(first, second)))
    total = float(np.sum(differences))
    observed = abs(float(np.sum(_differences(first, second)))) - 1e-12 * total  # ties may differ in the last bit
    n = len(differences)
    if n < 63 and 2**n <= exact_limit:
        flips = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return float(np.mean(np.abs(total - 2 * np.sum(flips * differences, axis=1)) >= observed))
    source = generator(rng)
    extreme = 0
    for count in batches(draws, n):
        flips = source.integers(0, 2, (count, n))
        extreme += int(np.sum(np.abs(total - 2 * np.sum(flips * differences, axis=1)) >= observed))
    return (1 + extreme) / (1 + draws)


def paired_improvement(first: ArrayLike, second: ArrayLike, level: float = LEVEL) -> Estimate:
    """The share of seeds on which the first arm is better, a tie counting half, with Wilson's score interval.

    With q the share, ``(q + z^2/2n -+ z sqrt(q (1 - q)/n + z^2/4n^2)) / (1 + z^2/n)`` (Wilson 1927). Ties make it too
    wide, never too narrow.
    """
    check_share("level", level)
    differences = _differences(first, second)
    n = len(differences)
    share = float(np.mean((np.sign(differences) + 1) / 2))
    z = float(stats.norm.ppf((1 + level) / 2))
    centre = share + z * z / (2 * n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = (float(min(max(end / (1 + z * z / n), 0.0), 1.0)) for end in (centre - half, centre + half))
    return Estimate(share, low, high)


def _differences(first: ArrayLike, second: ArrayLike) -> FloatArray:
    """Return ``x_i - y_i``, sorted.

    Raises:
        ValueError: the arms do not have the same number of runs.
    """
    a = as_sample(first, "first")
    b = as_sample(second, "second")
    if a.shape != b.shape:
        raise ValueError(f"paired arms need one value a seed each, got {a.shape} and {b.shape}")
    return np.sort(a - b)
