"""Statistics at values computed by hand or with NumPy and SciPy elsewhere, and at SciPy's own functions."""

from itertools import product

import numpy as np
import pytest
from scipy import stats as scipy_stats

from pgkit import stats
from pgkit.stats.aggregate import mean, median
from pgkit.stats.samples import percentile_interval

A = np.array([[0, 0.9], [0.2, 1.0], [0.4, 1.1], [1.0, 1.2]])
FIRST, SECOND = [500, 500, 480, 450, 300], [500, 420, 380, 200, 120]
CURVES = np.array(
    [
        [0, 20, 40, 30, 60, 80, 50, 90, 100, 70],
        [0, 10, 30, 50, 40, 60, 70, 80, 60, 90],
        [0, 5, 5, 10, 5, 10, 15, 10, 20, 10],
    ]
)


def test_aggregates_of_four_runs_on_two_environments():
    assert mean(A) == pytest.approx(0.725)
    assert median(A) == pytest.approx(0.725)
    assert stats.iqm(A) == pytest.approx(0.825)
    assert stats.optimality_gap(A) == pytest.approx(0.3125)
    profile = stats.performance_profile(A, 0, [0, 0.25, 0.5, 0.75, 1, 1.1])
    np.testing.assert_allclose(profile.share, [0.875, 0.75, 0.625, 0.625, 0.25, 0.125])


def test_interquartile_mean_of_one_sample():
    assert stats.iqm(np.reshape([*range(1, 10), 100], (-1, 1))) == pytest.approx(5.5)
    squares = [stats.iqm(np.arange(1, n + 1)[:, None] ** 2) for n in range(3, 11)]
    np.testing.assert_allclose(squares, [4.666667, 6.5, 9.666667, 13.5, 18, 21.5, 27, 33.166667], atol=5e-7)


def test_bootstrap_agrees_with_full_enumeration():
    values = np.array([0.0, 1, 2, 10])
    every = np.array(list(product(values, repeat=4)))
    means, trimmed = every.mean(axis=1), stats.iqm(every[:, :, None])
    assert percentile_interval(means) == (0.5, 7.75)
    assert means.std() == pytest.approx(np.sqrt(15.6875) / 2)  # 1.980372: the standard error of the mean
    assert percentile_interval(trimmed) == (0, 10)
    assert trimmed.mean() == pytest.approx(2.59375)
    drawn = stats.aggregates(values[:, None], rng=0)
    assert drawn.mean == (3.25, 0.5, 7.75)
    assert drawn.iqm == (1.5, 0, 10)


def test_a_pair():
    difference = stats.welch(FIRST, SECOND)
    expected = (122, -73.528, 317.528, 1.521202, 6.091684, 0.178294)
    np.testing.assert_allclose(difference, expected, rtol=2e-6)
    assert stats.permutation_test(FIRST, SECOND, rng=0) == pytest.approx(52 / 252, abs=1e-12)
    improvement = stats.probability_of_improvement(FIRST, SECOND).value
    assert improvement == pytest.approx(0.76)
    assert improvement * 25 == pytest.approx(scipy_stats.mannwhitneyu(FIRST, SECOND).statistic) == pytest.approx(19)
    assert stats.probability_of_improvement([3, 5, 5, 8], [2, 5, 6]).value == pytest.approx(7 / 12)


@pytest.mark.parametrize("size", [(20, 20), (3, 8), (2, 2)])
def test_pairs_agree_with_scipy(size: tuple[int, int]):
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.6, 1, size[0]), rng.normal(0, 3, size[1])
    ours, theirs = stats.welch(a, b, 0.9), scipy_stats.ttest_ind(a, b, equal_var=False)
    interval = theirs.confidence_interval(0.9)
    expected = (a.mean() - b.mean(), interval.low, interval.high, theirs.statistic, theirs.df, theirs.pvalue)
    np.testing.assert_allclose(ours, expected)
    n = min(size)
    paired, theirs = stats.paired_difference(a[:n], b[:n]), scipy_stats.ttest_rel(a[:n], b[:n])
    np.testing.assert_allclose(paired[1:3], theirs.confidence_interval())
    np.testing.assert_allclose(paired[3:], (theirs.statistic, theirs.df, theirs.pvalue))


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [
        (0, 10, 0, 0.2775),
        (1, 10, 0.0179, 0.4042),
        (3, 10, 0.1078, 0.6032),
        (0, 20, 0, 0.1611),
        (2, 20, 0.0279, 0.3010),
        (0, 30, 0, 0.1135),
    ],
)
def test_wilson(count: int, n: int, low: float, high: float):
    assert stats.wilson(count, n) == pytest.approx((count / n, low, high), abs=5e-5)
    wins = np.arange(n) < count
    assert stats.paired_improvement(wins, ~wins) == pytest.approx((count / n, low, high), abs=5e-5)


@pytest.mark.parametrize(("n", "confidence"), [(10, 0.2639), (20, 0.6083), (30, 0.8163), (45, 0.9476), (46, 0.9520)])
def test_tolerance_confidence(n: int, confidence: float):
    assert stats.tolerance_confidence(n) == pytest.approx(confidence, abs=5e-5)
    assert stats.tolerance_confidence(n) == pytest.approx(scipy_stats.beta.sf(0.9, n - 1, 2))
    assert (stats.tolerance_confidence(n) >= 0.95) == (n >= stats.MIN_TOLERANCE_RUNS)
    assert stats.tolerance_interval(np.arange(n)) == (0, n - 1, 0.9, stats.tolerance_confidence(n))


def test_expected_best():
    expected = [65, 104.666667, 135.5, 160.666667, 181.666667, 200]
    np.testing.assert_allclose(stats.expected_best([50, 20, 200, 10, 90, 20]), expected, atol=5e-7)


def test_measures_of_curves():
    np.testing.assert_allclose(stats.dispersion_across_time(CURVES, share=1), [30, 10, 10])
    np.testing.assert_allclose(stats.short_term_risk(CURVES), [-30, -20, -10])
    np.testing.assert_allclose(stats.short_term_risk(CURVES, 0.25), [-70 / 3, 0, -20 / 3])
    np.testing.assert_allclose(stats.long_term_risk(CURVES), [30, 20, 10])
    np.testing.assert_allclose(stats.long_term_risk(CURVES, 0.25), [70 / 3, 3, 20 / 3])
    np.testing.assert_allclose(stats.max_drawdown(CURVES), [30, 20, 10])
    np.testing.assert_allclose(stats.dispersion_across_runs(CURVES)[[4, 9]], [27.5, 40])
    np.testing.assert_allclose(stats.risk_across_runs(CURVES)[[4, 9]], [5, 10])
    np.testing.assert_allclose(stats.risk_across_runs(CURVES, 0.5)[[4, 9]], [22.5, 40])


def test_intervals_agree_with_scipy():
    values = np.sort(np.random.default_rng(0).exponential(size=25))
    theirs = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert stats.t_interval(values, 0.9) == pytest.approx((theirs.low, theirs.high))
    result = scipy_stats.bootstrap((values,), np.mean, n_resamples=10_000, rng=np.random.default_rng(3))
    assert stats.bca_interval(values, 3) == pytest.approx(tuple(result.confidence_interval))
    assert stats.skewness(values) == pytest.approx(scipy_stats.skew(values, bias=False))


def test_holm():
    np.testing.assert_allclose(stats.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(stats.holm([0.01, np.nan, 0.9]), [0.02, np.nan, 0.9])
    assert stats.holm([]).shape == (0,)


def test_standardized_difference_averages_variances():
    assert stats.standardized_difference([1, 3], [0, 8]) == pytest.approx(-2 / np.sqrt((2 + 32) / 2))
    assert stats.standardized_difference(FIRST, SECOND) == pytest.approx(1.521202 * np.sqrt(2 / 5), rel=1e-6)


def test_profile_interval_of_two_runs():
    # One of four resamples has no run above, two have one, one has both.
    half = stats.performance_profile([[0], [1]], 0, [0.5], level=0.4)
    assert (half.share, half.low, half.high) == (0.5, 0.5, 0.5)
    wide = stats.performance_profile([[0], [1]], 0, [0.5], level=0.9)
    assert (wide.share, wide.low, wide.high) == (0.5, 0, 1)


def test_normalize():
    np.testing.assert_allclose(stats.normalize([22.2, 500, 22.2 - 477.8], 22.2, 500), [0, 1, -1], atol=1e-12)


def test_newcombe_interval_solves_its_equation():
    value, low, high = stats.probability_of_improvement(FIRST, SECOND)
    for theta in (low, high):
        variance = theta * (1 - theta) * (1 + 4 * (1 - theta) / (2 - theta) + 4 * theta / (1 + theta)) / 25
        assert abs(theta - value) == pytest.approx(1.959963985 * np.sqrt(variance))
    assert low < value < high
