"""Gradient noise against small samples worked by hand, closed forms, quadrature and enumeration."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from helpers.gradient_oracles import Bandit, Lqr

from pgkit.diagnose import noise

SMALL = np.array([[1.0, 0.0], [3.0, 0.0], [2.0, 2.0], [2.0, -2.0]])
INDEX = np.arange(64.0)
WAVES = np.stack([1 + np.cos(INDEX), 1 + np.sin(2 * INDEX)], 1)
BANDIT = Bandit()


def test_four_gradients_by_hand():
    products = noise.gram(SMALL)
    estimate = noise.moments(products)
    assert estimate.signal == pytest.approx(19 / 6)
    assert estimate.noise == pytest.approx(10 / 3)
    assert math.sqrt(estimate.covariance[0, 0]) == pytest.approx(math.sqrt(3))
    assert math.sqrt(estimate.covariance[1, 1]) == pytest.approx(1.848423, abs=1e-6)
    assert estimate.covariance[0, 1] == pytest.approx(-1.5)
    assert noise.chen_qin(products) == pytest.approx(2.013996, abs=1e-6)
    assert noise.flip_test(products, rng=0) == 2 / 16


def test_four_gradients_do_not_resolve_a_ratio():
    result = noise.noise_scale(SMALL, 100, rng=0)
    nsr = result["nsr"]
    assert math.isnan(nsr.value)
    assert "not resolved" in nsr.reason
    assert nsr.high == math.inf
    assert nsr.low == pytest.approx(max(result["noise"].low, 0) / result["signal"].high)
    assert result["noise_scale"].low == pytest.approx(100 * nsr.low)
    assert "not resolved" in result["true_cosine"].reason


def test_sixty_four_gradients():
    result = noise.noise_scale(WAVES, [150, 250], rng=0)
    assert set(result) == set(noise.NAMES)
    assert result["noise"].value == pytest.approx(1.018153, abs=1e-6)
    assert result["signal"].value == pytest.approx(2.025955, abs=1e-6)
    assert result["nsr"].value == pytest.approx(0.502555, abs=1e-6)
    assert result["pairwise_cosine"].value == pytest.approx(0.767517, abs=1e-6)
    assert result["p_flip"].value == 1 / 1000
    assert result["noise_scale"].value == pytest.approx(200 * result["nsr"].value)
    assert result["grad_norm"].value == pytest.approx(np.median(np.linalg.norm(WAVES, axis=1)))
    for name in set(noise.NAMES) - {"p_flip"}:
        assert result[name].low < result[name].value < result[name].high
        assert result[name].n == 64


def test_the_gram_matrix_is_enough_and_those_of_layers_add_up():
    layers = noise.gram(WAVES[:, :1]) + noise.gram(WAVES[:, 1:])
    assert noise.noise_scale_of_products(layers, 200, rng=3)["nsr"].value == pytest.approx(
        noise.noise_scale(WAVES, 200, rng=3)["nsr"].value, rel=1e-12
    )
    assert np.array_equal(noise.gram(torch.from_numpy(WAVES)), noise.gram(WAVES))


@pytest.mark.parametrize("statistic", [noise.pairwise_cosine, noise.true_cosine])
def test_jackknife_intervals_are_those_of_leaving_each_batch_out(statistic):
    products = noise.gram(WAVES[:13])  # an odd number, so that the halves differ
    result = statistic(products)
    replicates = [_cosine_by_definition(statistic, WAVES[:13], left_out) for left_out in range(13)]
    error = math.sqrt(12 / 13 * np.sum((np.array(replicates) - np.mean(replicates)) ** 2))
    assert result.value == pytest.approx(_cosine_by_definition(statistic, WAVES[:13], None), rel=1e-12)
    assert (result.high - result.value) / 2.178813 == pytest.approx(error, rel=1e-6)  # t of 12 degrees of freedom


def _cosine_by_definition(statistic, gradients, left_out):
    kept = [i for i in range(len(gradients)) if i != left_out]
    if statistic is noise.pairwise_cosine:
        return np.mean([_cosine(gradients[i], gradients[j]) for i in kept for j in kept if i != j])
    halves = [[i for i in kept if i < len(gradients) // 2], [i for i in kept if i >= len(gradients) // 2]]
    cosines = []
    for half, other in (halves, halves[::-1]):
        reference = gradients[half]
        inner = reference @ reference.T
        signal = (inner.sum() - np.trace(inner)) / (len(half) * (len(half) - 1))
        mean = reference.mean(0)
        cosines += [gradients[i] @ mean / np.linalg.norm(gradients[i]) / np.sqrt(signal) for i in other]
    return np.mean(cosines)


def _cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_signal_and_noise_are_unbiased():
    values = np.array([[0.1, 0.4], [-1.0, 0.3], [2.0, 0.0]])
    chances = np.array([0.5, 0.3, 0.2])
    mean = chances @ values
    trace = chances @ (values**2).sum(1) - mean @ mean
    expected = np.zeros(2)
    for drawn in product(range(3), repeat=4):  # all that four batches can be
        estimate = noise.moments(noise.gram(values[list(drawn)]))
        expected += chances[list(drawn)].prod() * np.array([estimate.noise, estimate.signal])
    assert expected == pytest.approx([trace, mean @ mean], rel=1e-12)
    assert mean @ mean < 0.2 * trace  # or the plug-in estimate would not be far off


def test_the_squared_norm_of_the_mean_is_too_large_by_noise_over_m():
    estimate = noise.moments(noise.gram(WAVES))
    plug_in = float(WAVES.mean(0) @ WAVES.mean(0))
    assert plug_in - estimate.signal == pytest.approx(estimate.noise / 64)
    assert plug_in - estimate.signal > 0.01


def test_isotropic_noise_has_the_cosines_of_its_ratio():
    dimensions, ratio = 2000, 3.0
    mean = np.zeros(dimensions)
    mean[0] = 1.0
    gradients = mean + math.sqrt(ratio / dimensions) * np.random.default_rng(0).normal(size=(400, dimensions))
    result = noise.noise_scale(gradients, 1, rng=0)
    assert result["nsr"].value == pytest.approx(ratio, rel=0.05)
    assert result["pairwise_cosine"].value == pytest.approx(1 / (1 + ratio), rel=0.05)
    assert result["true_cosine"].value == pytest.approx((1 + ratio) ** -0.5, rel=0.05)


@pytest.mark.parametrize(
    ("gradients", "reason"),
    [
        (np.ones((3, 5)), "3 batches: at least 4 are needed"),
        (np.ones((0, 5)), "0 batches: at least 4 are needed"),
        (np.vstack([np.ones((5, 2)), [[np.nan, 1.0], [np.inf, 0.0]]]), "2 of 7 gradients are not finite"),
        (np.full((5, 2), 1e200), "5 of 5 gradients are not finite"),
    ],
)
def test_flaws_are_reasons_and_no_numbers(gradients, reason):
    result = noise.noise_scale(gradients, 10, rng=0)
    assert {quantity.reason for quantity in result.values()} == {reason}
    assert all(math.isnan(quantity.value) for quantity in result.values())
    assert noise.update_snr(gradients).reason == reason.replace("gradients", "updates")


def test_a_dead_policy_has_a_norm_of_zero_and_nothing_else():
    result = noise.noise_scale(np.zeros((8, 3)), 10, rng=0)
    assert result.pop("grad_norm").value == 0
    assert {quantity.reason for quantity in result.values()} == {"all gradients are zero"}


def test_every_missing_value_has_a_reason():
    samples = [np.ones((6, 2)), np.vstack([np.zeros((5, 2)), np.ones((3, 2))]), np.eye(12), -SMALL + SMALL.mean(0)]
    for gradients in samples:
        for quantity in noise.noise_scale(gradients, 10, rng=0).values():
            assert math.isnan(quantity.value) == (quantity.reason is not None)


def test_gradients_of_any_size_have_one_ratio():
    usual = noise.noise_scale(WAVES, 1, rng=0)
    for size in (1e-38, 1e38):  # the range of float32
        scaled = noise.noise_scale(size * WAVES, 1, rng=0)
        for name in ("nsr", "pairwise_cosine", "true_cosine", "p_flip"):
            assert scaled[name][:2] == pytest.approx(usual[name][:2], rel=1e-9, nan_ok=True)
        assert scaled["nsr"].high == pytest.approx(usual["nsr"].high, rel=1e-9)
        assert scaled["grad_norm"].value == pytest.approx(size * usual["grad_norm"].value, rel=1e-9)


def test_wrong_shapes_are_errors():
    with pytest.raises(ValueError, match=r"\(M, D\)"):
        noise.noise_scale(np.ones(5), 1, rng=0)
    with pytest.raises(ValueError, match=r"\(M, M\)"):
        noise.noise_scale_of_products(np.ones((5, 4)), 1, rng=0)


def test_fieller_holds_every_ratio_that_is_not_rejected():
    covariance = np.array([[0.4, -0.1], [-0.1, 0.2]])
    low, high = noise.fieller(3.0, 2.0, covariance, df=20)
    ratios = np.linspace(low - 5, high + 5, 100_001)
    deviations = (3.0 - ratios * 2.0) ** 2
    variances = 0.4 + 0.2 * ratios + 0.2 * ratios**2
    inside = deviations <= 2.085963**2 * variances  # t of 20 degrees of freedom
    assert ratios[inside].min() == pytest.approx(low, abs=1e-3)
    assert ratios[inside].max() == pytest.approx(high, abs=1e-3)


@pytest.mark.parametrize("numerator", [3.0, -3.0])
def test_fieller_has_no_bound_where_the_denominator_may_be_zero(numerator):
    low, high = noise.fieller(numerator, 1.0, np.diag([0.1, 1.0]), df=20)
    end = min(abs(low), abs(high))
    assert max(abs(low), abs(high)) == math.inf
    assert math.copysign(1, low + high) == math.copysign(1, numerator)
    assert (3.0 - end) ** 2 == pytest.approx(2.085963**2 * (0.1 + end**2), rel=1e-5)  # on the edge
    assert noise.fieller(0.1, 1.0, np.diag([1.0, 1.0]), df=20) == (-math.inf, math.inf)
    assert noise.fieller(0.0, 0.0, np.zeros((2, 2)), df=20) == (-math.inf, math.inf)


def test_random_flips_agree_with_all_flips():
    gradients = np.random.default_rng(1).normal(0.3, 1.0, size=(9, 2))
    products = noise.gram(gradients)
    every = noise.flip_test(products, rng=0)
    assert 0.02 < every < 0.98
    assert every == pytest.approx(noise.flip_test(products, rng=0, flips=255), abs=0.1)  # 256 flips: random ones
    assert noise.flip_test(products, rng=1, flips=200) != noise.flip_test(products, rng=2, flips=200)


def test_the_snr_of_updates_is_the_inverse_ratio():
    snr = noise.update_snr(WAVES)
    nsr = noise.noise_scale(WAVES, 1, rng=0)["nsr"]
    assert snr.value == pytest.approx(1 / nsr.value)
    assert (snr.low, snr.high) == pytest.approx((1 / nsr.high, 1 / nsr.low))
    assert noise.update_snr(np.ones((8, 3))).reason == "all updates are the same"


def test_momentum_hides_gradient_noise():
    rng = np.random.default_rng(2)
    gradients = rng.normal(0.1, 1.0, size=(64, 50))
    momentum = rng.normal(size=50)  # the same in all copies
    assert noise.update_snr(gradients).high < 0.2
    assert noise.update_snr(0.9 * momentum + 0.1 * gradients).low > 10


def test_the_bandits_moments_are_those_of_quadrature_and_of_the_specification():
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    noise_grid = np.stack(np.meshgrid(nodes, nodes), -1)
    chances = np.outer(weights, weights) / weights.sum() ** 2
    for baseline, expected in (
        (0.0, [[11.4375, -1], [-1, 15.1875]]),
        (BANDIT.mean_reward, [[4.125, -1], [-1, 5.625]]),
        (BANDIT.best_baseline, [[3.9375, -1], [-1, 4.6875]]),
    ):
        gradients = noise_grid / BANDIT.sigma * (BANDIT.reward(noise_grid) - baseline)[..., None]
        mean = np.einsum("ij,ijk->k", chances, gradients)
        second = np.einsum("ij,ijk,ijl->kl", chances, gradients, gradients)
        np.testing.assert_allclose(second - np.outer(mean, mean), expected, rtol=1e-10)
        np.testing.assert_allclose(BANDIT.covariance(baseline), expected, rtol=1e-10)
    assert BANDIT.gradient.tolist() == [-1, 1]
    assert (BANDIT.mean_reward, BANDIT.best_baseline, BANDIT.reward_variance) == (-1.125, -1.5, 0.65625)
    scales = [BANDIT.nsr(baseline) for baseline in (0.0, BANDIT.mean_reward, BANDIT.best_baseline)]
    assert scales == pytest.approx([13.3125, 4.875, 4.3125])
    assert scales[1] / 16 == pytest.approx(0.3046875)


@pytest.mark.parametrize(("baseline", "scale"), [(0.0, 13.3125), (-1.125, 4.875), (-1.5, 4.3125)])
def test_the_noise_scale_of_the_bandit_is_in_its_interval(baseline, scale):
    result = noise.noise_scale(BANDIT.draw(np.random.default_rng(0), 2000, baseline), 1, rng=0)["noise_scale"]
    assert result.low < scale < result.high
    assert result.high - result.low < 0.6 * scale


@pytest.mark.parametrize(
    ("gain", "mean_return", "slope", "variance", "nsr"),
    [
        (0.0, -5.4236, 9.912, 997.951865, 10.157),
        (0.5, -2.4461, 2.983, 134.379187, 15.102),
        (1.0, -1.7306, 0.314, 31.162191, 316.06),
    ],
)
def test_two_steps_of_linear_control(gain, mean_return, slope, variance, nsr):
    exact = Lqr(gain).exact()
    assert exact[0] == pytest.approx(mean_return, abs=5e-5)
    assert exact[1] == pytest.approx(slope, abs=5e-4)
    assert exact[2] == pytest.approx(variance, abs=5e-7)
    assert exact[2] / exact[1] ** 2 == pytest.approx(nsr, abs=6e-3 if nsr > 100 else 6e-4)
    result = noise.noise_scale(Lqr(gain).draw(np.random.default_rng(1), 1000), 1, rng=0)
    assert result["noise"].low < variance < result["noise"].high
    assert result["signal"].low < slope**2 < result["signal"].high
    assert result["nsr"].low < nsr < result["nsr"].high


def test_at_an_optimum_the_ratio_has_no_bound():
    mean_return, slope, variance = Lqr(1.10033049).exact()
    assert mean_return == pytest.approx(-1.71505983, abs=5e-9)
    assert abs(slope) < 1e-7
    assert variance == pytest.approx(28.594968, abs=5e-7)
    result = noise.noise_scale(Lqr(1.10033049).draw(np.random.default_rng(0), 200), 1, rng=0)
    assert result["nsr"].high == math.inf
    assert "not resolved" in result["nsr"].reason
    assert result["nsr"].low > 5
    assert result["noise"].low < variance < result["noise"].high


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "shrink", "nsr", "share"),
    [(64, 1.0, 4.875, 0.93), (256, 1.0, 4.875, 0.89), (64, 0.3, 23.8333, 0.99), (256, 0.3, 23.8333, 0.96)],
)
def test_coverage_of_the_ratio(count, shrink, nsr, share):
    """Unresolved ratios count as covered. Rewards are squares, so tails are heavy and coverage is below .95."""
    bandit = Bandit(theta=shrink * BANDIT.theta)
    truth = bandit.nsr(bandit.mean_reward)
    assert truth == pytest.approx(nsr, rel=1e-5)
    rng = np.random.default_rng(count)
    covered = 0
    for _ in range(400):
        gradients = bandit.draw(rng, count, bandit.mean_reward)
        result = noise.noise_scale(gradients, 1, rng)["nsr"]
        covered += result.reason is not None or result.low < truth < result.high
    assert covered / 400 == pytest.approx(share, abs=0.04)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "share"), [(16, 0.041), (64, 0.049), (256, 0.040)])
def test_flips_hold_their_level_without_a_signal(count, share):
    bandit = Bandit(theta=np.zeros(2))
    rng = np.random.default_rng(count)
    products = [noise.gram(bandit.draw(rng, count, bandit.mean_reward)) for _ in range(400)]
    rejected = np.mean([noise.flip_test(k, rng) <= 0.05 for k in products])
    assert rejected == pytest.approx(share, abs=0.03)


@pytest.mark.slow
def test_flips_have_power_where_the_jackknife_has_little():
    rng = np.random.default_rng(0)
    flipped, jackknifed = [], []
    for _ in range(600):
        products = noise.gram(BANDIT.draw(rng, 16, BANDIT.mean_reward))
        estimate = noise.moments(products)
        flipped.append(noise.flip_test(products, rng) <= 0.05)
        jackknifed.append(estimate.signal > 1.645 * math.sqrt(estimate.covariance[1, 1]))
    assert np.mean(flipped) == pytest.approx(0.93, abs=0.04)
    assert np.mean(jackknifed) == pytest.approx(0.32, abs=0.06)
