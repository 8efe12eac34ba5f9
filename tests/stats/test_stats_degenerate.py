"""Samples of one, samples without spread, failures everywhere, and input that means nothing."""

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from pgkit import stats

NAN = float("nan")


def same(first: object, second: object) -> bool:
    """Equality in which NaN equals NaN."""
    return repr(first) == repr(second)


def test_one_run_has_no_interval():
    assert same(stats.t_interval([3]), stats.Interval(NAN, NAN))
    assert same(stats.bca_interval([3], 0), stats.Interval(NAN, NAN))
    assert same(stats.welch([3], [1, 2]), stats.Difference(1.5, NAN, NAN, NAN, NAN, NAN))
    assert same(stats.paired_difference([3], [1]), stats.Difference(2.0, NAN, NAN, NAN, NAN, NAN))
    assert np.isnan(stats.skewness([1, 2]))
    assert stats.skewness([0, 0, 1]) == pytest.approx(np.sqrt(3))  # three are enough
    assert np.isnan(stats.standardized_difference([3], [1, 2]))
    assert stats.tolerance_interval([3]) == (3, 3, 0.9, pytest.approx(0))
    assert stats.permutation_test([3], [1], 0) == 1
    assert stats.verdict(NAN, NAN) == "unresolved"


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1 + 0.2, -1 / 3])
def test_equal_values_are_a_point(value: float):
    values = [value] * 7
    assert stats.t_interval(values) == (value, value)
    assert stats.bca_interval(values, 0) == (value, value)
    assert stats.skewness(values) == 0
    assert stats.welch(values, values) == pytest.approx((0, 0, 0, 0, NAN, 1), nan_ok=True)
    assert stats.welch(values, [value - 1] * 3)[:3] == pytest.approx((1, 1, 1))
    assert stats.welch(values, [value - 1] * 3).p == 0
    assert stats.welch([value - 1] * 3, values).t == -np.inf
    assert np.isnan(stats.standardized_difference(values, values))
    assert stats.standardized_difference(values, [value - 1, value + 3]) == pytest.approx(-0.5)  # one arm varies
    assert stats.permutation_test(values, values, 0) == 1
    assert stats.paired_permutation_test(values, values, 0) == 1
    assert stats.paired_difference(values, values) == pytest.approx((0, 0, 0, 0, NAN, 1), nan_ok=True)
    assert stats.probability_of_improvement(values, values).value == 0.5
    np.testing.assert_allclose(stats.rank_arms([values, values[:3]], 0).probability, 0.5)


def test_interval_of_a_statistic_that_never_varies_is_its_point():
    assert stats.bca_interval([0.0, 1, 1, 1, 1, 1, 1, 1, 1, 1], 0, statistic=lambda x, axis: np.max(x, axis)) == (1, 1)


def test_winning_every_time_is_not_certainty():
    value, low, high = stats.probability_of_improvement([5, 6, 7], [1, 2, 3])
    assert (value, high) == (1, 1)
    assert 0.4 < low < 0.9
    assert stats.wilson(0, 0) == pytest.approx((NAN, NAN, NAN), nan_ok=True)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.051, 0.2, "better"),
        (0.05, 0.2, "unresolved"),
        (-0.2, -0.051, "worse"),
        (-0.2, -0.05, "unresolved"),
        (-0.05, 0.05, "equivalent"),
        (-0.051, 0.05, "unresolved"),
        (-1, 1, "unresolved"),
        (0.2, 0.2, "better"),
    ],
)
def test_verdict_and_the_same_from_the_other_side(low: float, high: float, expected: str):
    mirrored = {"better": "worse", "worse": "better"}.get(expected, expected)
    assert stats.verdict(low, high) == expected
    assert stats.verdict(-high, -low) == mirrored


def test_failed_runs_stay_at_the_floor():
    at, scores = [0, 10, 20, 30], [[0.2, 0.8, NAN, NAN], [0.2, 0.4, 0.6, 0.8], [-3, -2, -1, -1]]
    floored = stats.apply_floor(scores, at, [15, NAN, 20])
    np.testing.assert_array_equal(floored, [[0.2, 0.8, 0, 0], [0.2, 0.4, 0.6, 0.8], [-3, -2, 0, 0]])
    np.testing.assert_array_equal(stats.auc(floored), [0.25, 0.5, -1.25])
    np.testing.assert_array_equal(stats.has_learnt(floored, [True, False, False]), [False, True, False])
    np.testing.assert_array_equal(stats.apply_floor(scores[0], at, 0), [0, 0, 0, 0])
    with pytest.raises(ValueError, match="scores must be finite"):
        stats.apply_floor(scores, at, [25, NAN, NAN])
    with pytest.raises(ValueError, match=r"expected scores \(..., K\), at \(K,\)"):
        stats.apply_floor(scores, at[1:], [25, NAN, NAN])


def test_curves_of_one_point():
    assert stats.dispersion_across_time([0.5]) == stats.short_term_risk([0.5]) == stats.long_term_risk([0.5]) == 0
    assert stats.final([0.5]) == 0.5
    assert np.isnan(stats.steps_to_threshold([0.5], [0], 0.1))
    assert stats.steps_to_threshold([0.5], [7], 0.1, window=1) == 7


def test_collapse_needs_time_to_have_passed():
    up, down = [0.0, 1.0], [0.4]
    assert stats.has_collapsed(up * 15 + [1.0] + down * 20)
    assert stats.has_collapsed([1.0] * 30 + down * 6 + [1.0] * 15)  # 51 points: a tenth is five steps
    assert not stats.has_collapsed([1.0] * 30 + down * 5 + [1.0] * 16)
    assert not stats.has_collapsed([1.0] * 46 + down * 5)
    assert stats.has_collapsed([1.0] * 45 + [0.5] * 6)


def test_threshold_must_be_kept():
    at = np.arange(8) * 100.0
    assert stats.steps_to_threshold([0, 1, 1, 1, 1, 1, 1, 1], at, 1) == 500
    assert stats.steps_to_threshold([1] * 8, at, 1) == 400
    assert np.isnan(stats.steps_to_threshold([1, 1, 1, 1, 1, 1, 1, 0], at, 1))
    assert stats.steps_to_threshold([0.1] * 8, at, 0.1) == 400  # their mean rounds to less than 0.1


def test_times_that_are_never_reached():
    never = [NAN] * 4
    assert stats.kaplan_meier(never, 100).times.size == 0
    assert np.isnan(stats.median_time(never, 100))
    assert stats.restricted_mean(never, 100) == 100
    assert stats.restricted_mean([0, 0], 100) == 0
    assert stats.median_time([10, 20, NAN, NAN], 100) == 20
    with pytest.raises(ValueError, match="no time behind its own"):
        stats.restricted_mean([101], 100)


def test_a_single_rate():
    result = stats.rate_sensitivity([[0.4, 0.6]], [[False, True]], [1e-3], 0)
    assert result.width == result.area == (0, 0, 0)
    assert np.isnan([*result.times_sqrt10, *result.over_sqrt10]).all()
    assert np.isnan(result.safe_ratio).all()  # resamples without the failing seed make no interval
    assert stats.expected_best([0.5]).tolist() == [0.5]
    chosen = stats.select([[0.4, 0.6]], 0)
    assert (chosen.best, chosen.second, chosen.in_set.tolist()) == (0, None, [True])


def test_rates_of_three_digits_stand_for_half_decades():
    """3.16e-3 is a little less than half a decade above 1e-3, and 0.316 than half a decade above 0.1."""
    rates = [1e-3, 3.16e-3, 1e-2]
    assert stats.beside_best([0.2, 0.9, 0.4], rates, -0.5) == 0.2
    assert stats.beside_best([0.2, 0.9, 0.4], rates, 0.5) == 0.4
    assert stats.beside_best([0.9, 0.6], [0.1, 0.316], 0.5) == 0.6
    assert np.isnan(stats.beside_best([0.9, 0.6], [0.1, 0.316], -0.5))


def test_every_run_failed():
    scores, rates = np.zeros((3, 4)), [1e-3, 1e-2, 1e-1]
    result = stats.rate_sensitivity(scores, scores == 0, rates, 0)
    assert result.width == result.area == (0, 0, 0)
    assert np.isnan(result.safe_ratio).all()
    chosen = stats.select(scores, 0)
    assert (chosen.best, chosen.second) == (0, 1)
    np.testing.assert_allclose(chosen.chosen_share, 1 / 3)
    assert stats.phi(scores[None], 0) == (0, 0, 0)


def test_rates_half_a_decade_apart_are_neighbours_in_spite_of_rounding():
    rates = [float(f"{10 ** (k / 2 - 5):.6g}") for k in range(11)]
    curve = [0, 0, 0.3, 0.9, 1, 0.7, 0.2, 0, 0, 0, 0]
    assert stats.beside_best(curve, rates, 0.5) == pytest.approx(0.7, abs=1e-4)
    assert stats.beside_best(curve, rates, -0.5) == pytest.approx(0.9, abs=1e-4)
    assert stats.width(curve, rates) == pytest.approx(0.5, abs=1e-4)


def test_aggregates_without_resamples_have_no_interval():
    assert np.isnan([x.low for x in stats.aggregates([[1, 2, 3]], 0, resamples=0)]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.t_interval([]), "n >= 1"),
        (lambda: stats.t_interval([[1, 2]]), r"shape \(n,\)"),
        (lambda: stats.t_interval([1, NAN]), "finite"),
        (lambda: stats.t_interval([1, 2], level=95), "level must be between 0 and 1"),
        (lambda: stats.bca_interval([1, 2], 0, level=95), "level must be between 0 and 1"),
        (lambda: stats.welch([1, 2], [3, 4], level=95), "level must be between 0 and 1"),
        (lambda: stats.probability_of_improvement([1], [2], level=95), "level must be between 0 and 1"),
        (lambda: stats.wilson(1, 2, level=95), "level must be between 0 and 1"),
        (lambda: stats.aggregates([[1, 2]], 0, 10, level=95), "level must be between 0 and 1"),
        (lambda: stats.rate_sensitivity([[1, 2]], [[False, True]], [1], 0, 10, level=95), "level must be between"),
        (lambda: stats.wilson(11, 10), r"count must be in 0 \.\.\. n"),
        (lambda: stats.tolerance_confidence(0), "n must be at least 1"),
        (lambda: stats.tolerance_interval([1, 2], content=90), "content must be between 0 and 1"),
        (lambda: stats.holm([0.5, 2]), r"in \[0, 1\]"),
        (lambda: stats.verdict(1, 0), "low <= high"),
        (lambda: stats.verdict(0, 1, rope=-1), "rope >= 0"),
        (lambda: stats.paired_difference([1, 2], [1]), "one value a seed"),
        (lambda: stats.auc([0.5, np.inf]), "finite"),
        (lambda: stats.auc(0.5), r"shape \(..., K\)"),
        (lambda: stats.cvar_low([1, 2], alpha=5), "alpha must be in"),
        (lambda: stats.normalize([1], 5, 5), "reference must be above random"),
        (lambda: stats.steps_to_threshold([1, 2], [0], 1), "expected at"),
        (lambda: stats.width([1, 2], [1e-2, 1e-3]), "positive and ascending"),
        (lambda: stats.width([1, 2], [0, 1]), "positive and ascending"),
        (lambda: stats.width([1, 2], [1]), "expected 2 rates"),
        (lambda: stats.safe_ratio([1, 2], [True], [1, 2]), "expected any_unlearnt"),
        (lambda: stats.has_learnt([[1, 2], [3, 4]], [True]), "expected failed"),
        (lambda: stats.paired_difference([1, 2], [3, 4], level=95), "level must be between 0 and 1"),
        (lambda: stats.paired_improvement([1, 2], [3, 4], level=95), "level must be between 0 and 1"),
        (lambda: stats.restricted_mean([NAN], 0), "positive and finite"),
        (lambda: stats.restricted_mean([NAN], np.inf), "positive and finite"),
        (lambda: stats.rate_sensitivity([[1, 2]], [[True]], [1], 0), "expected unlearnt"),
        (lambda: stats.rank_arms([], 0), "no arm"),
        (lambda: stats.rank_arms([[1], []], 0), r"scores\[1\]"),
        (lambda: stats.aggregates([1, 2], 0), r"shape \(n, E\)"),
        (lambda: stats.leave_one_out([[1], [2]], 0), "two or more"),
        (lambda: stats.kaplan_meier([1, 2], [1, 2, 3]), "expected times"),
        (lambda: stats.phi([[1, 2]], 0), r"shape \(E, L, S\)"),
    ],
)
def test_input_that_means_nothing(call: Callable[[], object], message: str):
    with pytest.raises(ValueError, match=message):
        call()


def test_loading_statistics_loads_no_tables_and_no_plots():
    check = "import sys, pgkit.stats; sys.exit(bool({'pandas', 'matplotlib', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_runs_that_did_not_learn_stay_at_the_floor_from_where_they_stay_low():
    scores = np.array(
        [
            [-8.0] * 20,  # far below the random policy, all the time: 0
            [0.5] * 10 + [-6.0] * 10,  # learns, and loses it for good: keeps what it had
            [-8.0] * 18 + [0.6, 0.6],  # learns late: not clipped
            [0.5] * 18 + [0.04, 0.06],
            [-8.0] * 5 + [0.3] + [-8.0] * 14,  # a lucky evaluation is not learning
        ]
    )
    floored = stats.floor_unlearnt(scores)
    np.testing.assert_array_equal(floored[0], 0)
    np.testing.assert_array_equal(floored[1], [0.5] * 9 + [0.0] * 11)  # the first low window of two begins at point 9
    np.testing.assert_array_equal(floored[2], scores[2])
    np.testing.assert_array_equal(floored[3], [0.5] * 18 + [0.0, 0.0])
    np.testing.assert_array_equal(floored[4], 0)
    learnt = stats.has_learnt(scores, [False] * 5)
    np.testing.assert_array_equal(learnt, [False, False, True, False, False])
    np.testing.assert_array_equal(stats.final(floored)[~learnt], 0)
    np.testing.assert_array_equal(stats.floor_unlearnt([[0.05], [0.5]]), [[0.0], [0.5]])
    assert stats.auc(scores).mean() < -4 < 0 < stats.auc(floored)[~learnt].mean()


def test_the_worst_tenth_is_rounded_up_and_bounded_by_what_was_seen():
    scores = np.arange(20.0)
    assert stats.worst_tenth(scores, 0)[0] == 0.5
    assert stats.worst_tenth(scores[:10], 0)[0] == 0.0
    value, low, high = stats.worst_tenth(scores[::-1], 0)
    assert 0 == low <= value < high < 6
    assert stats.worst_tenth(scores, 0) == (value, low, high), "the order of runs changes no bit"
    alone = stats.worst_tenth([0.5], 0)
    assert alone[0] == 0.5
    assert np.isnan(alone[1:]).all()
    assert stats.worst_tenth([0.5] * 12, 0) == (0.5, 0.5, 0.5)
