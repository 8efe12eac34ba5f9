"""Returns after updates, against closed forms: squares of normal numbers, and the Gaussian bandit of a quadratic."""

import numpy as np
import pytest
from scipy import stats

from pgkit.diagnose.post_update import (
    NO_FALL,
    best_multiple,
    half_share,
    mean_return,
    median_quantity,
    post_update_returns,
    update_parts,
)
from pgkit.diagnose.results import QUANTITIES, Quantity
from pgkit.stats import wilson

RATE = 0.1
Q = np.diag([1.0, 2.0])
THETA = np.array([1.0, -0.5])
GRADIENT = np.array([-1.0, 1.0])
COVARIANCE = np.array([[4.125, -1.0], [-1.0, 5.625]])  # of one episode's gradient, baseline E r, sigma = .5
EPISODES = np.linspace(-3, 3, 20)  # what differs between episodes and cancels in differences


def bandit_return(theta):
    """J of the Gaussian bandit, ``-theta'Q theta / 2 - sigma^2 tr Q / 2`` with sigma = .5, ``(..., 2) -> (...)``."""
    return -np.einsum("...i,ij,...j->...", theta, Q, theta) / 2 - 0.25 * np.trace(Q) / 2


def bandit_parts(updates):
    """Take apart updates ``(M, 2)`` of the bandit."""
    mean = updates.mean(axis=0)
    played = [bandit_return(THETA + step) + EPISODES for step in (0 * mean, mean, -mean)]
    return update_parts(*played, bandit_return(THETA + updates)[:, None] + EPISODES)


def with_exact_moments(n):
    """Four updates whose mean and covariance are exactly those of SGD with batches of n episodes."""
    root = np.linalg.cholesky(COVARIANCE / n) * np.sqrt(2)
    return RATE * (GRADIENT + np.concatenate([root.T, -root.T]))


def squares(copies, noise=0.0, seed=0):
    """``-x^2 / 2`` of normal x for each copy, played in two blocks of ten episodes; ``noise`` is a block mean's sd."""
    rng = np.random.default_rng(seed)
    returns = -(rng.normal(size=(copies, 1)) ** 2) / 2
    return [returns + rng.normal(0, noise * np.sqrt(10), (copies, 10)) for _ in range(2)]


def test_the_bandit_is_the_one_of_the_reference():
    assert bandit_return(THETA) == pytest.approx(-1.125)
    np.testing.assert_allclose(-Q @ THETA, GRADIENT)


def test_parts_of_an_sgd_step_on_a_quadratic():
    parts = bandit_parts(with_exact_moments(16))
    expected = {"odd": 0.2, "even": -0.015, "gap": -0.0048046875, "total": 0.1801953125, "best_multiple": 20 / 3}
    assert {name: part.value for name, part in parts.items()} == pytest.approx(expected, abs=1e-12)
    assert parts["even"].low == pytest.approx(-0.015)  # the episodes' differences cancel
    one = bandit_parts(with_exact_moments(1))
    assert one["gap"].value / one["even"].value == pytest.approx(5.125)


def test_parts_add_up_to_the_total():
    rng = np.random.default_rng(1)
    theta, plus, minus = rng.normal(size=(3, 20))
    parts = update_parts(theta, plus, minus, rng.normal(size=(8, 20)))
    assert parts["odd"].value + parts["even"].value + parts["gap"].value == pytest.approx(parts["total"].value)
    assert {f"parts/{name}" for name in parts} <= set(QUANTITIES)


def test_the_gap_has_an_interval_over_copies_and_episodes():
    rng = np.random.default_rng(2)
    zero = np.zeros(20)
    only_copies = update_parts(zero, zero, zero, np.repeat(rng.normal(size=(64, 1)), 20, axis=1))["gap"]
    only_episodes = update_parts(zero, zero, zero, np.repeat(rng.normal(size=(1, 20)), 64, axis=0))["gap"]
    assert (only_copies.high - only_copies.low) / 2 == pytest.approx(1.96 / 8, rel=0.3)
    assert (only_episodes.high - only_episodes.low) / 2 == pytest.approx(1.96 / np.sqrt(20), rel=0.3)


def test_best_multiple_has_fiellers_interval():
    rng = np.random.default_rng(3)
    odd, even = 4 + rng.normal(size=20), -1 + 0.3 * rng.normal(size=20)
    best = best_multiple(odd, even)
    for end in (best.low, best.high):  # at the ends, odd + 2 x even is at the edge of being different from 0
        rest = odd + 2 * end * even
        assert abs(rest.mean()) / (rest.std(ddof=1) / np.sqrt(20)) == pytest.approx(2.093024, abs=1e-5)
    assert best.low < best.value < best.high
    assert best.value == pytest.approx(odd.mean() / (-2 * even.mean()))


def test_best_multiple_is_open_above_where_the_curvature_is_not_resolved():
    rng = np.random.default_rng(4)
    odd, even = 4 + rng.normal(size=20), rng.normal(size=20)
    even -= even.mean()
    for shift in (-0.01, 0.01):
        best = best_multiple(odd, even + shift)
        assert 0 < best.low < best.high == np.inf
        rest = odd + 2 * best.low * (even + shift)
        assert abs(rest.mean()) / (rest.std(ddof=1) / np.sqrt(20)) == pytest.approx(2.093024, abs=1e-5)
        assert np.isnan(best.value)
    downhill = best_multiple(-odd, even - 0.01)
    assert (downhill.low, downhill.high < 0) == (-np.inf, True)
    unknown = best_multiple(even, even[::-1])
    assert (np.isnan(unknown.low), "neither" in str(unknown.reason)) == (True, True)
    assert "curves up" in str(best_multiple(odd, even + 5).reason)


def test_mean_tail_and_share_of_squares():
    quantiles = (np.arange(100_000) + 0.5) / 100_000
    returns = -(stats.norm.ppf(quantiles) ** 2) / 2
    blocks = np.repeat(returns[:, None], 2, axis=1)
    measured = post_update_returns(blocks, blocks, [-1e-9, 0, 1e-9, 0], random=-2.0, resamples=2)
    assert measured["mean"].value == pytest.approx(-0.5, abs=1e-4)
    assert measured["change"].value == pytest.approx(-0.5, abs=1e-4)
    assert measured["std"].value == pytest.approx(np.sqrt(0.5), abs=1e-3)
    assert measured["cvar10"].value == pytest.approx(-2.196430, abs=1e-3)
    assert measured["cvar10_crossed"].value == pytest.approx(-2.196430, abs=1e-3)
    assert measured["half_share"].value == pytest.approx(0.157299, abs=2e-5)


def test_evaluation_noise_pushes_the_tails_to_either_side_and_leaves_the_spread():
    many = [post_update_returns(*squares(256, 0.5, seed), np.zeros(20), 0.0, resamples=2) for seed in range(200)]
    means = {name: np.mean([each[name].value for each in many]) for name in ("cvar10", "cvar10_crossed")}
    assert means["cvar10"] == pytest.approx(-2.26, abs=0.04)
    assert means["cvar10_crossed"] == pytest.approx(-2.00, abs=0.04)
    assert np.mean([each["std"].value ** 2 for each in many]) == pytest.approx(0.5, abs=0.02)


def test_without_evaluation_noise_both_tails_agree():
    measured = post_update_returns(*squares(64), np.zeros(20), 0.0)
    assert measured["cvar10"] == pytest.approx(measured["cvar10_crossed"])
    assert measured["cvar10"].low < measured["cvar10"].value < measured["cvar10"].high


def test_the_spread_of_equal_copies_is_zero():
    noise = np.random.default_rng(0).normal(size=(64, 20))
    spreads = [post_update_returns(x[:, :10], x[:, 10:], np.zeros(20), 0.0)["std"] for x in (noise, noise + 5)]
    assert spreads[0].low == 0
    assert spreads[0].value < noise.mean(axis=1).std()  # what a plain standard deviation would say
    assert spreads[1].value == pytest.approx(spreads[0].value)


def test_names_are_those_of_a_diagnosis():
    measured = post_update_returns(*squares(8), np.zeros(20), 0.0, kl=range(8), norm=range(1, 9))
    known = {name.removeprefix("post_update/<K>/") for name in QUANTITIES if name.startswith("post_update/")}
    assert known <= set(measured) <= known | {"change"}
    assert (measured["kl"].value, measured["norm"].value) == (3.5, 4.5)
    assert measured["min"].value == np.concatenate(squares(8), axis=1).mean(axis=1).min()
    assert np.isnan(measured["min"].low)


def test_what_was_not_measured_is_missing():
    assert post_update_returns(*squares(8), np.zeros(20), 0.0)["kl"].reason == "not measured"


def test_half_share_counts_strictly_below_half_of_the_distance_to_random():
    before = np.full(4, 100.0)
    returns = np.repeat([[59.0], [60.0], [61.0]], 4, axis=1)
    share = half_share(returns, before, 20.0)
    assert share[:3] == tuple(wilson(1, 3))
    assert half_share(returns, before, 18.0).value == 0
    assert half_share(returns, before, 22.0).value == pytest.approx(2 / 3)


def test_half_share_is_missing_where_the_return_is_not_above_random():
    before = np.array([99.0, 101.0, 99.0, 101.0])  # 100 +- 3.182 x .577
    returns = np.zeros((3, 4))
    edge = 100 - 3.182446 / np.sqrt(3)
    assert half_share(returns, before, edge - 0.01).reason is None
    assert half_share(returns, before, edge + 0.01).reason == NO_FALL
    assert half_share(returns, before, Quantity(edge - 0.01, edge - 1, edge + 1)).reason == NO_FALL
    assert "not played" in str(half_share(returns, before, Quantity.missing("not played")).reason)


def test_median_interval_is_the_binomial_one():
    assert median_quantity(np.arange(1.0, 12))[:4] == (6, 2, 10, 11)  # as tabulated: ranks 2 and 10 of 11
    assert median_quantity([1.0, 2, 3, 4, 5])[:3] == (3, -np.inf, np.inf)
    assert median_quantity([1.0, 2, 3, 4, 5, 6])[1:3] == (1, 6)  # 2 / 2^6 = .031


def test_a_copy_that_blew_up_has_an_infinite_kl():
    assert median_quantity([1.0, 2, 3, np.nan, np.inf, 2, 1, 1])[:3] == (2, 1, np.inf)
    assert median_quantity([np.nan, np.nan, 1.0]).value == np.inf
    with pytest.raises(ValueError, match="shape"):
        median_quantity([])


def test_a_seed_gives_one_result():
    data = (*squares(16, 1.0), np.zeros(20), 0.0)
    assert post_update_returns(*data, rng=1)["mean"] == post_update_returns(*data, rng=1)["mean"]
    assert post_update_returns(*data, rng=1)["mean"] != post_update_returns(*data, rng=2)["mean"]


@pytest.mark.parametrize(
    ("a", "b", "before"),
    [
        ((8, 10), (8, 9), 20),
        ((8, 10), (7, 10), 20),
        ((8, 10), (8, 10), 19),
        ((1, 10), (1, 10), 20),
        ((8, 1), (8, 1), 2),
    ],
)
def test_shapes_that_do_not_fit_are_refused(a, b, before):
    with pytest.raises(ValueError, match=r"E|episodes"):
        post_update_returns(np.zeros(a), np.zeros(b), np.zeros(before), 0.0)


def test_returns_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        post_update_returns(np.full((8, 2), np.nan), np.zeros((8, 2)), np.zeros(4), 0.0)


@pytest.mark.slow
def test_parts_of_sampled_updates_of_the_bandit():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(200_000, 16, 2))
    reward = bandit_return(THETA + 0.5 * noise) + 0.375  # -a'Qa / 2
    updates = RATE * (noise / 0.5 * (reward + 1.125)[..., None]).mean(axis=1)
    played = [np.full(2, bandit_return(THETA + sign * updates.mean(axis=0))) for sign in (0, 1, -1)]
    parts = update_parts(*played, np.repeat(bandit_return(THETA + updates)[:, None], 2, axis=1), resamples=2)
    assert parts["total"].value == pytest.approx(0.1801953125, abs=4 * 0.00015)
    assert parts["gap"].value == pytest.approx(-0.0048046875, abs=1e-4)


@pytest.mark.slow
def test_intervals_cover():
    """Copies, episodes and their interplay all vary; the truth is known for mean and spread."""
    rng = np.random.default_rng(0)
    covered = {"mean": 0, "change": 0, "std": 0}
    truth = {"mean": 3.0, "change": -2.0, "std": 1.0}
    for _ in range(300):
        episode = rng.normal(0, 1, 20)
        returns = 3 + rng.normal(size=(64, 1)) + episode + rng.normal(0, 2, (64, 20))
        before = 5 + episode + rng.normal(0, 1, 20)
        measured = post_update_returns(returns[:, :10], returns[:, 10:], before, 0.0, rng=rng, resamples=500)
        for name in covered:
            covered[name] += measured[name].low <= truth[name] <= measured[name].high
    shares = {name: count / 300 for name, count in covered.items()}
    assert all(0.9 <= share <= 0.99 for share in shares.values()), shares


def test_mean_return_of_copies():
    assert mean_return([[1.0, 2.0], [3.0, 4.0]]).value == 2.5
    assert mean_return([[1.0, 1.0], [1.0, 1.0]])[1:3] == (1, 1)
