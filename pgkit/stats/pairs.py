"""Comparison of two arms in one environment: differences, tests, verdicts.

Values are one number per run, ``(n,)`` for the first arm and ``(m,)`` for the second; higher is better. Exchanging the
arms mirrors every result. For plans that declare a paired comparison, see :mod:`pgkit.stats.paired`.
"""

from functools import lru_cache
from itertools import chain, combinations
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from pgkit.stats.samples import LEVEL, Estimate, FloatArray, Rng, Verdict, as_sample, batches, check_share, generator

EXACT_LIMIT = 200_000
"""The most splits that a permutation test enumerates."""

DRAWS = 100_000
"""The number of random splits where there are too many to enumerate."""

ROPE = 0.05
"""The region of practical equivalence: the largest difference of normalised scores that does not matter."""


class Difference(NamedTuple):
    """A difference of means, first minus second, with interval and t test; NaN where there is none."""

    value: float
    low: float
    high: float
    t: float
    df: float
    p: float


def welch(first: ArrayLike, second: ArrayLike, level: float = LEVEL) -> Difference:
    """Welch's interval and test of the difference of means, variances not assumed equal.

    ``d -+ t_{df} se``, ``se^2 = s_1^2/n + s_2^2/m``, ``df = se^4 / (s_1^4/(n^2 (n-1)) + s_2^4/(m^2 (m-1)))``
    (Welch 1947). The same as `scipy.stats.ttest_ind(equal_var=False)`, but for degenerate input: with one run in an
    arm everything but ``value`` is NaN; with no variance in either, the interval is the point and p is 1 or 0.

    Args:
        first: ``(n,)``.
        second: ``(m,)``.
        level: confidence level in (0, 1).
    """
    check_share("level", level)
    a = np.sort(as_sample(first, "first"))
    b = np.sort(as_sample(second, "second"))
    difference = float(a.mean() - b.mean())
    if min(len(a), len(b)) == 1:
        return Difference(difference, *[float("nan")] * 5)
    parts = np.array([np.var(x, ddof=1) / len(x) if np.ptp(x) else 0.0 for x in (a, b)])
    variance = parts.sum()
    if not variance:
        return certain(difference)
    df = float(variance**2 / np.sum(parts**2 / np.array([len(a) - 1, len(b) - 1])))
    return from_error(difference, float(np.sqrt(variance)), df, level)


def from_error(difference: float, error: float, df: float, level: float = LEVEL) -> Difference:
    """Return the interval and the two-sided t test of a difference with a standard error."""
    t = difference / error
    half = float(stats.t.ppf((1 + level) / 2, df)) * error
    return Difference(difference, difference - half, difference + half, t, df, float(2 * stats.t.sf(abs(t), df)))


def certain(difference: float) -> Difference:
    """Return the result for a difference without variance."""
    t = float(np.sign(difference)) * np.inf if difference else 0.0
    return Difference(difference, difference, difference, t, float("nan"), 0.0 if difference else 1.0)


def standardized_difference(first: ArrayLike, second: ArrayLike) -> float:
    """``(mean_1 - mean_2) / sqrt((s_1^2 + s_2^2) / 2)``, Cohen's d with the variances averaged; NaN where it is x/0."""
    a = np.sort(as_sample(first, "first"))
    b = np.sort(as_sample(second, "second"))
    if min(len(a), len(b)) == 1 or not (np.ptp(a) or np.ptp(b)):
        return float("nan")
    return float((a.mean() - b.mean()) / np.sqrt((np.var(a, ddof=1) + np.var(b, ddof=1)) / 2))


def permutation_test(
    first: ArrayLike, second: ArrayLike, rng: Rng, draws: int = DRAWS, exact_limit: int = EXACT_LIMIT
) -> float:
    """The share of splits of all runs into n and m whose means differ at least as much as the arms' do (two-sided).

    All ``C(n + m, n)`` splits while there are at most ``exact_limit``, else B random ones with
    ``p = (1 + b) / (1 + B)``, which is valid for any B (Phipson and Smyth 2010). Tests whether the arms' runs have the
    same distribution. 1 when all values are equal. With n = m no p is below ``2 / C(2n, n)``: .1 for three runs.

    Args:
        first: ``(n,)``.
        second: ``(m,)``.
        rng: generator or seed; not used when enumerating.
        draws: B.
        exact_limit: 0 always draws.
    """
    a = np.sort(as_sample(first, "first"))
    b = np.sort(as_sample(second, "second"))
    pool = np.sort(np.concatenate([a, b]))
    slack = 1e-12 * float(np.sum(np.abs(pool)))  # splits that tie with the arms' may differ in the last bits
    mean = pool.mean()
    few = a if len(a) <= len(b) else b
    pool -= mean
    size = len(few)
    total = len(pool)
    observed = abs(float(np.sum(few - mean))) - slack
    if comb(total, size) <= exact_limit:
        return float(np.mean(np.abs(np.sum(pool[_splits(total, size)], axis=1)) >= observed))
    source = generator(rng)
    extreme = 0
    for count in batches(draws, total):
        shuffled = source.permuted(np.broadcast_to(pool, (count, total)), axis=1)
        extreme += int(np.sum(np.abs(np.sum(shuffled[:, :size], axis=1)) >= observed))
    return (1 + extreme) / (1 + draws)


def probability_of_improvement(first: ArrayLike, second: ArrayLike, level: float = LEVEL) -> Estimate:
    """The probability that a run of the first arm beats one of the second, a tie counting half.

    ``(1/nm) sum_ij [x_i > y_j] + [x_i = y_j] / 2``, the Mann-Whitney statistic over nm (Agarwal et al. 2021, arXiv
    2108.13264, section 4.3). The interval is Newcombe's (2006, Statistics in Medicine 25, 559-573, method 5): the
    theta with ``|theta - estimate| <= z sqrt(V(theta))``, ``V = theta (1 - theta) (1 + N ((1 - theta)/(2 - theta) +
    theta/(1 + theta))) / nm``, ``N = (n + m)/2 - 1``. It has a width where one arm wins every time, which a bootstrap
    has not. Simulated with equal and unequal spread, ties and failures, it covers 90-98 % with 10 runs and 93-97 % with
    20, where the percentile bootstrap covers 84-95 % and 90-96 %.

    Args:
        first: ``(n,)``.
        second: ``(m,)``.
        level: confidence level in (0, 1).
    """
    check_share("level", level)
    a = as_sample(first, "first")
    b = as_sample(second, "second")
    order = np.sort(b)
    wins = np.searchsorted(order, a, "left") + np.searchsorted(order, a, "right")
    value = float(np.sum(wins) / (2 * len(a) * len(b)))
    return Estimate(value, *_newcombe(value, len(a), len(b), level))


def holm(p: ArrayLike) -> FloatArray:
    """Holm's adjusted p-values (Holm 1979): ``max_{j <= i} min(1, (k - j + 1) p_(j))``; ``(k,)`` in the order given.

    They bound the chance of any false claim among the k, whatever the dependence. NaN stays NaN and does not count.

    Raises:
        ValueError: not ``(k,)``, or a value outside [0, 1].
    """
    values = np.asarray(p, dtype=np.float64)
    if values.ndim != 1 or ((values < 0) | (values > 1)).any():
        raise ValueError(f"expected p-values (k,) in [0, 1], got shape {values.shape}")
    result = np.full(values.shape, np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    factors = len(known) - np.arange(len(known))
    result[order] = np.maximum.accumulate(np.minimum(1.0, factors * values[order]))
    return result


def verdict(low: float, high: float, rope: float = ROPE) -> Verdict:
    """Return the verdict that the interval of a difference, first minus second, supports.

    *better*: all of it above the ROPE ``[-rope, rope]``; *worse*: all below; *equivalent*: all inside, ends included;
    *unresolved*: anything else, and where there is no interval (NaN).

    Raises:
        ValueError: ``rope`` is negative, or ``low`` above ``high``.
    """
    if not rope >= 0 or low > high:
        raise ValueError(f"expected rope >= 0 and low <= high, got {rope}, {low} and {high}")
    if low > rope:
        return "better"
    if high < -rope:
        return "worse"
    return "equivalent" if -rope <= low and high <= rope else "unresolved"


@lru_cache(maxsize=2)  # a comparison asks for the same sizes for each of its pairs
def _splits(total: int, size: int) -> NDArray[np.int16]:
    """Return all choices of ``size`` out of ``total``, ``(C(total, size), size)``."""
    count = comb(total, size)
    indices = chain.from_iterable(combinations(range(total), size))
    return np.fromiter(indices, dtype=np.int16, count=count * size).reshape(count, size)


def _newcombe(value: float, n: int, m: int, level: float) -> tuple[float, float]:
    """Return the roots of ``(theta - value)^2 = z^2 V(theta)`` on either side of ``value``."""
    z = float(stats.norm.ppf((1 + level) / 2))
    more = (n + m) / 2 - 1

    def excess(theta: float) -> float:
        tails = (1 - theta) / (2 - theta) + theta / (1 + theta)
        return float((theta - value) ** 2 - z * z * theta * (1 - theta) * (1 + more * tails) / (n * m))

    inside = min(max(value, 1e-12), 1 - 1e-12)  # at 0 and 1 the variance vanishes: value itself is a root
    low = optimize.brentq(excess, 0.0, inside, xtol=1e-12) if value > 0 else 0.0
    high = optimize.brentq(excess, inside, 1.0, xtol=1e-12) if value < 1 else 1.0
    return low, high
