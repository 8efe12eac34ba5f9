"""Two arms: how large the difference is, how sure, and whether it matters."""

from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import Any, Literal

import numpy as np
from scipy import stats

from pgkit.stats.intervals import LEVEL, NOTHING, Interval

Array = np.ndarray[Any, np.dtype[np.float64]]
Verdict = Literal["better", "worse", "equivalent", "unresolved"]

EXACT = 200_000
"""Splits of the pooled runs up to which all are enumerated."""

DRAWS = 100_000
"""Random splits where there are more."""

_BATCH = 10_000


def welch_interval(a: Array, b: Array, level: float = LEVEL) -> Interval:
    """Welch's confidence interval of mean(a) - mean(b), unequal variances; NaN for a single run.

    Where neither varies, the interval is the difference itself.
    """
    if min(len(a), len(b)) < 2:
        return NOTHING
    if np.ptp(a) == 0 and np.ptp(b) == 0:
        return (float(a[0] - b[0]),) * 2
    found = stats.ttest_ind(a, b, equal_var=False).confidence_interval(level)
    return float(found.low), float(found.high)


def paired_interval(a: Array, b: Array, level: float = LEVEL) -> Interval:
    """Student's interval of mean(a - b) of runs that share their seeds, in the same order."""
    if len(a) < 2:
        return NOTHING
    if np.ptp(a - b) == 0:
        return (float(a[0] - b[0]),) * 2
    found = stats.ttest_rel(a, b).confidence_interval(level)
    return float(found.low), float(found.high)


def permutation_test(a: Array, b: Array, rng: np.random.Generator) -> float:
    """Two-sided p-value of the difference of means if the labels meant nothing.

    Exact while C(n + m, n) <= 200,000; else from 100,000 random splits, p = (1 + b) / (1 + B) (Phipson and Smyth 2010).
    Splits that differ from the observed one by rounding only count as equally extreme.
    """
    pooled, n = np.concatenate([a, b]), len(a)
    observed, slack = abs(a.mean() - b.mean()), 1e-12 * max(1.0, float(np.abs(pooled).max()))
    if comb(len(pooled), n) <= EXACT:
        chosen = np.array(list(combinations(range(len(pooled)), n)))
        return float((_split_differences(pooled, chosen) >= observed - slack).mean())
    extreme = 0
    for _ in range(DRAWS // _BATCH):
        chosen = rng.random((_BATCH, len(pooled))).argpartition(n, axis=1)[:, :n]
        extreme += int((_split_differences(pooled, chosen) >= observed - slack).sum())
    return (1 + extreme) / (1 + DRAWS)


def paired_permutation_test(a: Array, b: Array, rng: np.random.Generator) -> float:
    """The same for runs that share their seeds: signs of the differences are flipped."""
    found = stats.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", n_resamples=DRAWS, rng=rng
    )
    return float(found.pvalue)


def _split_differences(pooled: Array, chosen: Any) -> Array:
    """|mean of the chosen - mean of the others| of each row of indices."""
    n, total = chosen.shape[1], pooled.sum()
    first = pooled[chosen].sum(1)
    return np.abs(first / n - (total - first) / (len(pooled) - n))


def improvement(a: Array, b: Array) -> float:
    """Probability that a run of a scores higher than a run of b, ties counting half (Mann-Whitney U / n m)."""
    difference = a[:, None] - b[None, :]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def improvement_interval(
    a: Array, b: Array, rng: np.random.Generator, level: float = LEVEL, resamples: int = 2000
) -> Interval:
    """Percentile bootstrap interval of :func:`improvement`, runs of both arms resampled (Agarwal et al. 2021)."""
    order = ((a[:, None] > b[None, :]) + 0.5 * (a[:, None] == b[None, :])).astype(np.float64)
    n, m = order.shape
    rows = rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n
    columns = rng.multinomial(m, np.full(m, 1 / m), size=resamples) / m
    low, high = np.quantile(np.einsum("rn,nm,rm->r", rows, order, columns, optimize=True), _ends(level))
    return float(low), float(high)


def holm(p: Sequence[float]) -> Array:
    """Holm's adjusted p-values (Holm 1979): valid for all of them together."""
    values = np.asarray(p, dtype=np.float64)
    order = values.argsort(kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def verdict(interval: Interval, rope: float) -> Verdict:
    """What a confidence interval of a difference says against the region of practical equivalence [-rope, rope].

    "better" above it, "worse" below it, "equivalent" inside it, else (and without an interval) "unresolved".
    """
    low, high = interval
    if low > rope:
        return "better"
    if high < -rope:
        return "worse"
    return "equivalent" if -rope <= low and high <= rope else "unresolved"


def _ends(level: float) -> list[float]:
    return [(1 - level) / 2, (1 + level) / 2]
