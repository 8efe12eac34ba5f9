"""The statistics at work on synthetic comparisons whose answer is known.

Replications are fixed by a seed; bounds are at least three standard errors of the estimate wide.
"""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from pgkit import stats
from pgkit.stats import aggregate, curves, pairs, selection, sensitivity

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]


def normal(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Scores of an arm that always learns."""
    return rng.normal(0.8, 0.1, n)


def failing(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Scores of an arm of which one run in five fails."""
    return np.where(rng.random(n) < 0.2, 0.0, normal(rng, n))


def test_defaults_are_those_of_the_protocol():
    assert (stats.LEVEL, stats.ROPE, stats.SKEW_LIMIT) == (0.95, 0.05, 1)
    assert (stats.MIN_EVALUATION_SEEDS, stats.MIN_ENVIRONMENTS) == (10, 3)
    assert (pairs.EXACT_LIMIT, pairs.DRAWS) == (200_000, 100_000)
    assert (selection.RESAMPLES, selection.CHOSEN, sensitivity.NEAR_BEST) == (1_000, 0.05, 0.9)
    assert (aggregate.RESAMPLES, aggregate.PROFILE_RESAMPLES) == (50_000, 2_000)
    assert (len(aggregate.TAUS), aggregate.TAUS[0], aggregate.TAUS[-1]) == (121, 0, 1.2)
    assert (curves.ALPHA, curves.FAILURE_BELOW) == (0.05, 0.1)


@pytest.mark.parametrize("draw", [normal, failing])
def test_an_arm_against_itself_is_rarely_called_better(draw: Draw):
    rng = np.random.default_rng(11)
    pairs = [(draw(rng, 20), draw(rng, 20)) for _ in range(200)]
    intervals = [stats.welch(a, b) for a, b in pairs]
    verdicts = [stats.verdict(d.low, d.high, stats.ROPE) for d in intervals]
    assert verdicts.count("better") <= 0.05 * 200
    assert verdicts.count("worse") <= 0.05 * 200
    strict = [stats.verdict(d.low, d.high, rope=0) for d in intervals]  # expects 2.5 % on each side
    assert strict.count("better") <= 0.05 * 200
    assert "better" in strict
    assert "equivalent" not in strict
    rejected = sum(stats.permutation_test(a, b, rng=0, draws=2_000) <= 0.05 for a, b in pairs)
    assert stats.wilson(rejected, 200, level=0.999).low <= 0.05
    assert rejected > 0


def test_arms_that_hardly_vary_are_called_equivalent():
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(0.8, 0.02, 20), rng.normal(0.8, 0.02, 20)) for _ in range(50)]
    assert {stats.verdict(*stats.welch(a, b)[1:3]) for a, b in pairs} == {"equivalent"}


def test_a_planted_effect_of_one_standard_deviation_is_found():
    rng = np.random.default_rng(12)
    significant = [stats.welch(rng.normal(1, 1, 20), rng.normal(0, 1, 20)).p < 0.05 for _ in range(4_000)]
    assert np.mean(significant) == pytest.approx(0.87, abs=0.03)


def test_winner_of_tuning_looks_better_than_it_is_and_evaluation_does_not():
    rng, tuning, evaluation = np.random.default_rng(13), [], []
    for _ in range(4_000):
        scores = rng.normal(0, 1, (9, 3))  # nine settings that are equal: the truth is 0
        best = stats.select(scores, rng=0, resamples=20).best
        tuning.append(scores[best].mean())
        evaluation.append(rng.normal(0, 1, (9, 20))[best].mean())  # fresh seeds of the selected setting
    assert np.mean(tuning) == pytest.approx(0.86, abs=0.03)
    assert np.mean(evaluation) == pytest.approx(0, abs=0.03)


def test_uncertainty_set_holds_settings_that_cannot_be_told_apart():
    rng = np.random.default_rng(14)
    deterministic_map = np.concatenate([rng.normal(0, 1, (3, 5)), rng.normal(-9, 1, (4, 5))])
    chosen = stats.select(deterministic_map, rng=0)
    assert chosen.in_set[:3].sum() >= 2
    assert not chosen.in_set[3:].any()
    assert stats.select(deterministic_map + np.arange(7)[:, None] * 100, rng=0).in_set.tolist() == [False] * 6 + [True]


def test_intervals_of_the_mean_cover_it():
    rng, truth = np.random.default_rng(15), 0.8
    samples = [normal(rng, 20) for _ in range(1_000)]
    for interval in (stats.t_interval, lambda values: stats.bca_interval(values, rng=0, resamples=1_000)):
        covered = sum(low <= truth <= high for low, high in map(interval, samples))
        assert 0.91 <= covered / 1_000 <= 0.975


def test_interval_of_improvement_covers_it():
    rng, covered = np.random.default_rng(16), 0
    truth = 0.7602499389065233  # of a normal one standard deviation above another: Phi(1 / sqrt 2)
    for _ in range(1_000):
        _, low, high = stats.probability_of_improvement(rng.normal(1, 1, 20), rng.normal(0, 1, 20))
        covered += low <= truth <= high
    assert 0.93 <= covered / 1_000 <= 0.99


def test_a_run_that_diverges_is_counted_and_scored_zero():
    at, curves = np.arange(51) * 100.0, np.tile(np.linspace(0, 1, 51), (10, 1))
    curves[3, 20:] = np.nan
    failed_at = np.full(10, np.nan)
    failed_at[3] = 1_950
    scores = stats.apply_floor(curves, at, failed_at)
    failed = ~stats.has_learnt(scores, ~np.isnan(failed_at))
    assert stats.wilson(int(failed.sum()), len(failed)).value == 0.1
    areas = stats.auc(scores)
    assert len(areas) == 10
    assert areas[3] == pytest.approx(curves[3, :20].sum() / 51)
    assert np.delete(areas, 3) == pytest.approx(0.5)
    assert stats.final(scores)[3] == 0
    assert stats.has_collapsed(scores).sum() == 0  # it fell by 0.38, less than half the range
    assert stats.risk_across_runs(scores)[-1] == 0
