"""Vectorised statistics against plain loops, on random input full of ties; and what must not change a result."""

from fractions import Fraction
from itertools import combinations, pairwise, product
from statistics import mean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from pgkit import stats

many = settings(max_examples=100, deadline=None)
few = settings(max_examples=25, deadline=None)
eighths = st.integers(-8, 12).map(lambda x: x / 8)  # exact in binary, and often equal


def samples(least: int = 1, most: int = 6) -> st.SearchStrategy[list[float]]:
    return st.lists(eighths, min_size=least, max_size=most)


def matrices(rows: int, columns: int) -> st.SearchStrategy[NDArray[np.float64]]:
    """Up to so many rows and columns."""
    shape = st.tuples(st.integers(1, rows), st.integers(1, columns))
    return shape.flatmap(
        lambda s: st.lists(eighths, min_size=s[0] * s[1], max_size=s[0] * s[1]).map(
            lambda numbers: np.reshape(numbers, s)
        )
    )


def slow_quantile(values: list[float], share: Fraction) -> Fraction:
    """Linear interpolation between order statistics, exact."""
    ordered, place = sorted(map(Fraction, values)), share * (len(values) - 1)
    below = int(place)
    above = min(below + 1, len(values) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def slow_iqr(values: list[float]) -> float:
    return float(slow_quantile(values, Fraction(3, 4)) - slow_quantile(values, Fraction(1, 4))) if values else 0.0


@many
@given(matrices(3, 30), st.integers(0, 20))
def test_cvar(values: NDArray[np.float64], twentieths: int):
    share = Fraction(twentieths, 20)
    low = [mean([x for x in row if x <= slow_quantile(row, share)]) for row in values.tolist()]
    high = [mean([x for x in row if x >= slow_quantile(row, 1 - share)]) for row in values.tolist()]
    np.testing.assert_allclose(stats.cvar_low(values, twentieths / 20), low, atol=1e-12)
    np.testing.assert_allclose(stats.cvar_up(values, twentieths / 20), high, atol=1e-12)


@many
@given(matrices(3, 24))
def test_measures_of_curves(scores: NDArray[np.float64]):
    for k, curve in enumerate(scores.tolist()):
        drawdowns = [max(curve[: i + 1]) - x for i, x in enumerate(curve)]
        steps = [b - a for a, b in pairwise(curve)]
        last = curve[-max(1, len(curve) // 10) :]
        np.testing.assert_allclose(stats.drawdown(scores)[k], drawdowns)
        assert stats.max_drawdown(scores)[k] == max(drawdowns)
        assert stats.auc(scores)[k] == pytest.approx(mean(curve))
        assert stats.final(scores)[k] == pytest.approx(mean(last))
        assert stats.dispersion_across_time(scores)[k] == pytest.approx(slow_iqr(steps[len(steps) // 2 :]))
        kept = mean(last) / max(curve) if max(curve) > 0 else np.nan
        assert stats.retention(scores)[k] == pytest.approx(kept, nan_ok=True)
        assert stats.long_term_risk(scores)[k] == pytest.approx(stats.cvar_up(drawdowns))
        assert stats.short_term_risk(scores)[k] == pytest.approx(stats.cvar_low(steps) if steps else 0.0)
        assert stats.has_learnt(scores, np.zeros(len(scores)))[k] == (mean(last) >= 0.1)


@many
@given(matrices(4, 26))
def test_collapse(scores: NDArray[np.float64]):
    for k, curve in enumerate(scores.tolist()):
        collapsed, budget = False, len(curve) - 1
        for i in range(len(curve)):
            back = [j for j in range(i, len(curve)) if max(curve[: j + 1]) - curve[j] < 0.5]
            end = next((j for j in range(i, len(curve)) if 10 * (j - i) >= budget), None)
            collapsed |= end is not None and not any(j <= end for j in back)
        assert stats.has_collapsed(scores)[k] == collapsed


@many
@given(matrices(4, 14), eighths, st.integers(1, 5))
def test_steps_to_threshold(scores: NDArray[np.float64], threshold: float, window: int):
    at = np.arange(scores.shape[1]) * 10.0
    for k, curve in enumerate(scores.tolist()):
        first_step = np.nan
        for i in range(len(curve) - 1, window - 2, -1):
            if sum(curve[i - window + 1 : i + 1]) < threshold * window:
                break
            first_step = at[i]
        np.testing.assert_equal(stats.steps_to_threshold(scores, at, threshold, window)[k], first_step)


@many
@given(matrices(5, 4))
def test_measures_across_runs(scores: NDArray[np.float64]):
    dispersion, risk = stats.dispersion_across_runs(scores), stats.risk_across_runs(scores, 0.5)
    for k, column in enumerate(scores.T.tolist()):
        assert dispersion[k] == pytest.approx(slow_iqr(column)) == pytest.approx(stats.dispersion_of_final(column))
        assert risk[k] == pytest.approx(stats.risk_of_final(column, 0.5))


@many
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 8)), min_size=1, max_size=12))
def test_survival_agrees_with_scipy(runs: list[tuple[int, int]]):
    horizon = np.array([budget for _, budget in runs], dtype=float)
    times = np.array([time if time <= budget else np.nan for time, budget in runs])
    arrived = ~np.isnan(times)
    data = scipy_stats.CensoredData(uncensored=times[arrived], right=horizon[~arrived])
    theirs = scipy_stats.ecdf(data).sf
    ours = stats.kaplan_meier(times, horizon)
    np.testing.assert_allclose(ours.share, theirs.evaluate(ours.times), atol=1e-12)
    tau = horizon.max()
    grid = np.arange(0, tau)  # times are whole numbers
    assert stats.restricted_mean(times, horizon) == pytest.approx(float(np.sum(theirs.evaluate(grid))))
    half = [t for t in ours.times if theirs.evaluate(t) <= 0.5 + 1e-9]
    np.testing.assert_equal(stats.median_time(times, horizon), half[0] if half else np.nan)


@many
@given(st.lists(st.none() | st.integers(0, 50), min_size=1, max_size=12))
def test_restricted_mean_with_one_budget_is_the_plain_mean(times: list[int | None]):
    given_times = [np.nan if time is None else time for time in times]
    plain = mean([50 if time is None else time for time in times])
    assert stats.restricted_mean(given_times, 50) == pytest.approx(plain)


@many
@given(samples(), samples(most=5))
def test_permutation_test_and_improvement(first: list[float], second: list[float]):
    pool, n, m = first + second, len(first), len(second)
    observed = abs(sum(first) * m - sum(second) * n)  # exact: eighths
    splits = [
        abs(sum(pool[i] for i in s) * m - (sum(pool) - sum(pool[i] for i in s)) * n)
        for s in combinations(range(n + m), n)
    ]
    assert stats.permutation_test(first, second, rng=0) == pytest.approx(mean(int(x >= observed) for x in splits))
    wins = [(x > y) + (x == y) / 2 for x, y in product(first, second)]
    value, low, high = stats.probability_of_improvement(first, second)
    assert value == pytest.approx(mean(wins))
    assert 0 <= low <= value <= high <= 1
    assert high - low > 0.2
    mirrored = stats.probability_of_improvement(second, first)
    assert (1 - mirrored.value, 1 - mirrored.high, 1 - mirrored.low) == pytest.approx((value, low, high), abs=1e-9)


@many
@given(st.lists(st.tuples(eighths, eighths), min_size=1, max_size=9))
def test_paired_permutation_test(pairs: list[tuple[float, float]]):
    first, second = (list(x) for x in zip(*pairs, strict=True))
    differences = [a - b for a, b in pairs]
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in product((1, -1), repeat=len(pairs))
    ]
    exact = mean(int(x >= abs(sum(differences))) for x in sums)
    assert stats.paired_permutation_test(first, second, rng=0) == pytest.approx(exact)


def test_drawn_permutations_agree_with_all():
    rng = np.random.default_rng(5)
    first, second = rng.normal(0.7, 1, 8), rng.normal(0, 1, 9)
    for test, b in ((stats.permutation_test, second), (stats.paired_permutation_test, second[:8])):
        exact, drawn = test(first, b, rng=0), test(first, b, rng=0, exact_limit=0)
        assert 0.02 < exact < 0.9
        assert drawn == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 100_000))
        assert drawn != exact
    assert stats.permutation_test(first + 100, second, rng=0, draws=99, exact_limit=0) == 0.01
    assert stats.paired_permutation_test(first + 100, second[:8], rng=0, draws=99, exact_limit=0) <= 0.03  # 2 in 2^8


@many
@given(samples(), samples(most=5), st.sampled_from([-1e6, 1e3, 1e8]))
def test_permutation_test_does_not_hang_on_where_zero_is(first: list[float], second: list[float], shift: float):
    a, b = np.array(first), np.array(second)
    expected = stats.permutation_test(a, b, rng=0)
    assert stats.permutation_test(a + shift, b + shift, rng=0) == expected
    assert stats.permutation_test(a / 10, b / 10, rng=0) == expected
    assert stats.permutation_test(-b, -a, rng=0) == expected


def test_permutations_are_enumerated_up_to_the_limit():
    first, second = [0, 1, 2, 3], [1, 2, 5, 4]
    for test, ways in ((stats.permutation_test, 70), (stats.paired_permutation_test, 16)):
        assert test(first, second, 0, 99, ways) == test(first, second, 1, 99, ways) == test(first, second, 0)
        drawn = {test(first, second, seed, 99, ways - 1) for seed in range(5)}
        assert len(drawn) > 1
        assert all(100 * p == pytest.approx(round(100 * p)) for p in drawn)


def test_tails_hold_a_twentieth():
    values = np.arange(101.0)
    assert (stats.cvar_low(values), stats.cvar_up(values)) == (2.5, 97.5)
    assert (stats.risk_of_final(values), stats.dispersion_of_final(values)) == (2.5, 50)
    assert stats.risk_across_runs(values[:, None]) == 2.5
    steps = np.concatenate([[0.0], np.cumsum(values - 50)])
    assert stats.short_term_risk(steps) == pytest.approx(2.5 - 50)
    assert stats.long_term_risk(-values) == 97.5


@many
@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm(p: list[float]):
    adjusted = stats.holm(p)
    for i, this in enumerate(p):
        smaller = [x for j, x in enumerate(p) if (x, j) <= (this, i)]
        steps = [min(1.0, (len(p) - rank) * x) for rank, x in enumerate(sorted(smaller))]
        assert adjusted[i] == pytest.approx(max(steps))


@many
@given(samples(most=7))
def test_expected_best(values: list[float]):
    slow = [mean(max(chosen) for chosen in combinations(values, k)) for k in range(1, len(values) + 1)]
    np.testing.assert_allclose(stats.expected_best(values), slow, atol=1e-12)


@many
@given(samples(most=9))
def test_measures_of_sensitivity(curve: list[float]):
    decades = [i / 2 - 5 for i in range(len(curve))]
    rates = [10**x for x in decades]
    top, best = curve.index(max(curve)), max(curve)
    low = high = top
    while low > 0 and curve[low - 1] >= 0.9 * best:
        low -= 1
    while high + 1 < len(curve) and curve[high + 1] >= 0.9 * best:
        high += 1
    expected = decades[high] - decades[low] if best > 0 else 0.0
    assert stats.width(curve, rates) == pytest.approx(expected, abs=1e-9)
    assert stats.area(curve, rates) == pytest.approx(sum(a + b for a, b in pairwise(curve)) / 4)
    for step in (-1, 1):
        neighbour = curve[top + step] if 0 <= top + step < len(curve) else np.nan
        np.testing.assert_equal(stats.beside_best(curve, rates, step / 2), neighbour)
    between = (curve[top] + curve[top + 1]) / 2 if top + 1 < len(curve) else np.nan
    assert stats.beside_best(curve, rates, 0.25) == pytest.approx(between, nan_ok=True)
    failed = [value < 0 for value in curve]
    safe = [rate for rate, bad in zip(rates, failed, strict=True) if not bad]
    ratio = max(safe) / rates[top] if safe else np.nan
    assert stats.safe_ratio(curve, failed, rates) == pytest.approx(ratio, nan_ok=True)


@few
@given(matrices(4, 3))
def test_selection_against_every_resample(scores: NDArray[np.float64]):
    seeds, shares = scores.shape[1], np.zeros(len(scores))
    every = list(product(range(seeds), repeat=seeds))
    for drawn in every:
        sums = [Fraction(0)] * len(scores)
        for s in drawn:
            sums = [total + Fraction(row[s]) for total, row in zip(sums, scores.tolist(), strict=True)]
        winners = [i for i, total in enumerate(sums) if total == max(sums)]
        shares[winners] += 1 / len(winners) / len(every)
    chosen = stats.select(scores, rng=0, resamples=4_000)
    np.testing.assert_allclose(chosen.chosen_share, shares, atol=0.04)
    assert chosen.best == int(np.argmax(np.round(scores.mean(axis=1), 9)))
    assert chosen.in_set[chosen.best]
    assert chosen.chosen_share.sum() == pytest.approx(1)
    assert (chosen.second is None) == (chosen.in_set.sum() == 1)


@few
@given(st.lists(samples(most=3), min_size=1, max_size=3))
def test_ranks_against_every_resample(arms: list[list[float]]):
    expected, every = np.zeros((len(arms), len(arms))), 0
    for drawn in product(*(product(arm, repeat=len(arm)) for arm in arms)):
        means = [mean(map(Fraction, values)) for values in drawn]
        every += 1
        for a, this in enumerate(means):
            better, tied = sum(x > this for x in means), sum(x == this for x in means)
            expected[a, better : better + tied] += 1 / tied
    ranking = stats.rank_arms(arms, rng=0, resamples=4_000)
    np.testing.assert_allclose(ranking.probability, expected / every, atol=0.045)
    np.testing.assert_allclose(ranking.probability.sum(axis=0), 1)
    np.testing.assert_allclose(ranking.probability.sum(axis=1), 1)
    np.testing.assert_allclose(ranking.p_best, ranking.probability[:, 0])
    assert ranking.mean_rank.sum() == pytest.approx(len(arms) * (len(arms) + 1) / 2)


@many
@given(matrices(4, 3))
def test_phi_is_what_tuning_for_each_environment_gains(scores: NDArray[np.float64]):
    tuned = mean(max(row) for row in scores.tolist())
    shared = max(mean(column) for column in scores.T.tolist())
    value, low, high = stats.phi(scores[:, :, None], rng=0, resamples=10)
    assert value == pytest.approx(tuned - shared, abs=1e-12)
    assert low == pytest.approx(value) == pytest.approx(high)
    assert value >= -1e-12


@few
@given(matrices(5, 4))
def test_aggregates_and_profile(scores: NDArray[np.float64]):
    values = sorted(scores.ravel().tolist())
    cut = len(values) // 4
    result = stats.aggregates(scores, rng=0, resamples=50)
    columns = [mean(column) for column in scores.T.tolist()]
    expected = (
        mean(values[cut : len(values) - cut]),
        mean(values),
        float(np.median(columns)),
        1 - mean(min(x, 1.0) for x in values),
    )
    np.testing.assert_allclose([x.value for x in result], expected, atol=1e-12)
    profile = stats.performance_profile(scores, rng=0, resamples=50)
    np.testing.assert_allclose(profile.tau, [i / 100 for i in range(121)], atol=1e-12)
    np.testing.assert_allclose(profile.share, [mean(int(x > tau) for x in values) for tau in profile.tau], atol=1e-12)
    assert (profile.low <= profile.share + 1e-12).all() or len(scores) > 1
    assert (profile.low <= profile.high).all()


def test_profile_intervals_are_those_of_a_plain_bootstrap():
    rng = np.random.default_rng(0)
    scores, taus = rng.random((6, 3)), [0.3, 0.6]
    drawn = []
    for _ in range(4_000):
        again = np.column_stack([column[rng.integers(0, 6, 6)] for column in scores.T])
        drawn.append([np.mean(again > tau) for tau in taus])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    profile = stats.performance_profile(scores, 0, taus, resamples=4_000)
    np.testing.assert_allclose(profile.low, low, atol=0.06)
    np.testing.assert_allclose(profile.high, high, atol=0.06)


def test_leaving_one_environment_out_is_aggregating_without_it():
    scores = np.random.default_rng(0).random((5, 3))
    left = stats.leave_one_out(scores, rng=1, resamples=200)
    assert len(left) == 3
    assert left[1] == stats.aggregates(scores[:, [0, 2]], rng=1, resamples=200)
    assert len(stats.leave_one_out(scores[:, :2], rng=1, resamples=2)) == 2


def test_curves_of_any_rank():
    scores = np.random.default_rng(0).normal(0.5, 0.4, (3, 2, 21))
    at = np.linspace(0, 1000, 21)
    functions = (
        stats.auc, stats.best, stats.final, stats.retention, stats.dispersion_across_time, stats.short_term_risk,
        stats.long_term_risk, stats.max_drawdown, stats.has_collapsed, lambda s: stats.steps_to_threshold(s, at, 0.4),
    )  # fmt: skip
    for function in functions:
        whole = function(scores)
        assert whole.shape == (3, 2)
        np.testing.assert_equal(whole[2, 1], function(scores[2, 1]))
    assert stats.dispersion_across_runs(scores).shape == stats.risk_across_runs(scores).shape == (3, 21)


def test_order_of_runs_and_arms_changes_no_bit():
    rng = np.random.default_rng(0)
    arms, shuffle = rng.normal(size=(3, 20)), rng.permutation(20)
    a, b = arms[0], arms[1]
    mixed = a[shuffle]
    assert stats.t_interval(a) == stats.t_interval(mixed)
    assert stats.bca_interval(a, 1) == stats.bca_interval(mixed, 1)
    assert stats.skewness(a) == stats.skewness(mixed)
    assert stats.welch(a, b) == stats.welch(mixed, b)
    assert stats.welch(a, b).value == -stats.welch(b, a).value
    p = {stats.permutation_test(x, y, 7) for x, y in ((a, b), (b, a), (mixed, b), (b, mixed))}
    assert len(p) == 1
    assert stats.permutation_test(a, b, 7) != stats.permutation_test(a, b, 8)
    ranking, other = stats.rank_arms(arms, 3), stats.rank_arms(arms[[2, 0, 1]][:, shuffle], 3)
    np.testing.assert_array_equal(ranking.probability[[2, 0, 1]], other.probability)
    np.testing.assert_equal(stats.aggregates(arms.T, 2, 500), stats.aggregates(arms.T[shuffle], 2, 500))
    seeds, rates, failed = arms[:, :5], [0.1, 0.2, 0.3], arms[:, :5] < -1
    order = rng.permutation(5)
    again = stats.rate_sensitivity(seeds[:, order], failed[:, order], rates, 4)
    assert repr(stats.rate_sensitivity(seeds, failed, rates, 4)) == repr(again)  # NaN equals NaN
    assert repr(stats.select(seeds, 4)) == repr(stats.select(seeds[:, order], 4))
    assert stats.expected_best_intervals(seeds, 4) == stats.expected_best_intervals(seeds[:, order], 4)


def test_a_generator_is_advanced_and_a_seed_is_not():
    values, rng = np.random.default_rng(0).normal(size=12), np.random.default_rng(1)
    first = stats.bca_interval(values, rng)
    assert first == stats.bca_interval(values, 1)
    assert first != stats.bca_interval(values, rng)
