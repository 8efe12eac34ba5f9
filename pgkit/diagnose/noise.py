"""Gradient noise: how much of one batch's gradient is signal, with intervals. Pure functions of arrays.

``g_i``, ``i = 1 ... M``, is the gradient of one whole training batch, before clipping, of M copies of one point. The
batch is the unit, so this holds for normalised advantages and batch baselines, too, which couple samples. All that is
needed of the gradients is the Gram matrix ``K_ij = g_i . g_j`` (:func:`gram`), called ``products`` below. Those of the
layers of a network add up to that of the network.

    U  = sum_{i != j} K_ij / (M (M - 1))     signal |G|^2, unbiased, may be negative
    S2 = mean_i K_ii - U                     noise tr Cov(g), unbiased
    NSR = S2 / U                             noise-to-signal ratio of a batch

McCandlish et al. 2018 (arXiv 1812.06162, appendix A.1) get the same from two batch sizes. The squared norm of the mean
gradient would be too large by S2 / M. A resolved gradient need not be right: a wrong critic has one, too, see
:mod:`pgkit.diagnose.estimator_comparison`.

>>> noise_scale([[1.0, 0.0], [3.0, 0.0], [2.0, 2.0], [2.0, -2.0]], steps_per_batch=100, rng=0)["nsr"].reason
'the gradient is not resolved (p = 0.125 by sign flips)'
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from pgkit.diagnose.results import Quantity
from pgkit.stats.samples import LEVEL, BoolArray, FloatArray, Interval, Rng, as_array, batches, check_share, generator

MIN_BATCHES = 4
"""The fewest batches for which there are estimates with intervals."""

FLIPS = 999
"""The number of random sign flips of the test of G = 0."""

SIGNIFICANCE = 0.05
"""A gradient is resolved if the p value of the sign flips is at most this."""

ROUNDING = 1e-12
"""Variances below this share of the squared norms are rounding errors."""

NAMES = ("signal", "noise", "nsr", "noise_scale", "pairwise_cosine", "true_cosine", "p_flip", "grad_norm")
"""The quantities of :func:`noise_scale`."""


class Moments(NamedTuple):
    """Signal and noise of M gradients.

    Attributes:
        noise: S2, an unbiased estimate of the trace of their covariance.
        signal: U, an unbiased estimate of the squared norm of their expectation; may be negative.
        covariance: ``(2, 2)``, of the two estimates in this order, by the jackknife.
        n: M.
    """

    noise: float
    signal: float
    covariance: FloatArray
    n: int


def gram(gradients: ArrayLike) -> FloatArray:
    """Compute the inner products of gradients, ``(M, D) -> (M, M)``, in float64. O(M^2 D); the rest is O(M^2).

    >>> gram([[1.0, 0.0], [3.0, 4.0]])
    array([[ 1.,  3.],
           [ 3., 25.]])

    Raises:
        ValueError: not ``(M, D)``.
    """
    rows = np.asarray(gradients, dtype=np.float64)
    if rows.ndim != 2:
        raise ValueError(f"gradients must have shape (M, D), got {rows.shape}")
    with np.errstate(invalid="ignore", over="ignore"):  # gradients that are not finite give such products
        return rows @ rows.T


def flaw(products: FloatArray) -> str | None:
    """Say in words why gradients with these products have no statistics; None if they have.

    >>> flaw(gram([[1.0], [float("nan")], [2.0], [3.0]]))
    '1 of 4 gradients are not finite'
    """
    if products.ndim != 2 or products.shape[0] != products.shape[1]:
        raise ValueError(f"products must have shape (M, M), got {products.shape}")
    count = len(products)
    broken = count - int(np.isfinite(np.diagonal(products)).sum())
    if count < MIN_BATCHES:
        return f"{count} batches: at least {MIN_BATCHES} are needed"
    if broken:
        return f"{broken} of {count} gradients are not finite"
    return None if products.any() else "all gradients are zero"


def moments(products: ArrayLike) -> Moments:
    """Estimate signal and noise, and how exact the estimates are (jackknife over batches, Efron and Stein 1981).

    >>> estimate = moments(gram([[1.0, 0.0], [3.0, 0.0], [2.0, 2.0], [2.0, -2.0]]))
    >>> round(estimate.noise, 4), round(estimate.signal, 4)
    (3.3333, 3.1667)

    Args:
        products: ``(M, M)``, M at least 3.
    """
    k = as_array(products, "(M, M)", "products")
    off_diagonal = _others(k)
    count = len(k)
    signal = off_diagonal.sum() / (count * (count - 1))
    noise = np.trace(k) / count - signal
    return Moments(float(noise), float(signal), jackknife_covariance(delete_one(k)), count)


def delete_one(products: FloatArray) -> FloatArray:
    """Compute (S2, U) without each of the batches in turn, ``(M, M) -> (M, 2)``, M at least 3."""
    count = len(products)
    others = _others(products)
    signal = (others.sum() - 2 * others.sum(1)) / ((count - 1) * (count - 2))
    diagonal = np.diagonal(products)
    noise = (diagonal.sum() - diagonal) / (count - 1) - signal
    return np.stack([noise, signal], 1)


def jackknife_covariance(replicates: FloatArray) -> FloatArray:
    """Compute the jackknife's covariance of k statistics, ``(M, k) -> (k, k)``.

    ``(M - 1) / M sum_i (x_i - mean)(x_i - mean)'``, ``x_i`` the statistics without unit i (Efron and Tibshirani 1993,
    eq. 11.5).
    """
    count = len(replicates)
    centred = replicates - replicates.mean(0)
    return (count - 1) / count * centred.T @ centred


def with_error(value: float, variance: float, n: int, level: float = LEVEL) -> Quantity:
    """Return an estimate with ``value -+ t_{n-1} sqrt(variance)``.

    >>> with_error(1.0, 0.25, 1000).excludes(0.0)
    True
    """
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * math.sqrt(variance)
    return Quantity(float(value), float(value) - half, float(value) + half, n)


def fieller(numerator: float, denominator: float, covariance: FloatArray, df: int, level: float = LEVEL) -> Interval:
    """Fieller's interval of a ratio: all rho for which ``numerator - rho denominator`` does not differ from 0.

    ``(x - rho y)^2 <= t^2 (v_xx - 2 rho v_xy + rho^2 v_yy)`` (Fieller 1954, JRSS B 16). Where the interval of the
    denominator holds 0, the ratio has no bound on the side of the numerator's sign, and none at all if the interval of
    the numerator holds 0, too.

    >>> fieller(2.0, 4.0, np.zeros((2, 2)), df=10)
    Interval(low=0.5, high=0.5)
    >>> fieller(4.0, 1.0, np.diag([0.1, 1.0]), df=10).high
    inf

    Args:
        numerator: x.
        denominator: y, an estimate of a number that is known to be positive.
        covariance: ``(2, 2)``, of x and y.
        df: degrees of freedom of the covariance.
        level: confidence level in (0, 1).
    """
    check_share("level", level)
    units = np.sqrt(np.array([numerator, denominator]) ** 2 + np.diagonal(covariance))
    if not units[0] or not units[1]:
        return Interval(0.0, 0.0) if units[1] else Interval(-math.inf, math.inf)
    x, y = np.array([numerator, denominator]) / units  # squares of squares of tiny gradients would be 0
    margin = float(stats.t.ppf((1 + level) / 2, df)) ** 2 * covariance / np.outer(units, units)
    a = float(y * y - margin[1, 1])
    b = float(x * y - margin[0, 1])
    c = float(x * x - margin[0, 0])
    root = math.sqrt(max(b * b - a * c, 0.0))  # a rho^2 - 2 b rho + c <= 0
    scale = float(units[0] / units[1])
    if a > 0:
        return Interval((b - root) / a * scale, (b + root) / a * scale)
    if c <= 0:
        return Interval(-math.inf, math.inf)
    if x > 0:
        return Interval(c / (root + b) * scale, math.inf)
    return Interval(-math.inf, -c / (root - b) * scale)


def chen_qin(products: ArrayLike) -> float:
    """Compute ``T = sum_{i != j} K_ij / sqrt(2 sum_{i != j} K_ij^2)``, of variance about 1 if G = 0; 0 where it is 0/0.

    Source: Chen and Qin 2010, Annals of Statistics 38. It is normal in many dimensions and skewed in few, where
    :func:`flip_test` still holds.
    """
    others = _others(as_array(products, "(M, M)", "products"))
    squares = float((others * others).sum())
    return float(others.sum()) / math.sqrt(2 * squares) if squares else 0.0


def flip_test(products: ArrayLike, rng: Rng, flips: int = FLIPS) -> float:
    """Test G = 0 against a signal: the share of sign flips ``e`` with ``e'Ke >= 1'K1``.

    Exact if gradients are symmetric about G = 0. All flips where there are at most ``flips`` (e and -e count once),
    else random ones with ``p = (1 + b) / (1 + flips)``, valid for any number (Phipson and Smyth 2010).

    >>> flip_test(gram([[1.0, 0.0], [3.0, 0.0], [2.0, 2.0], [2.0, -2.0]]), rng=0)  # 2 of 16
    0.125

    Args:
        products: ``(M, M)``.
        rng: generator or seed; not used when enumerating.
        flips: the number of random flips.
    """
    others = _others(as_array(products, "(M, M)", "products"))
    count = len(others)
    observed = others.sum() - ROUNDING * np.abs(others).sum()  # flips that tie with it may differ in the last bits
    if 2 ** (count - 1) <= flips:
        bits = np.arange(2 ** (count - 1))[:, None] >> np.arange(count) & 1  # the last sign stays
        return float(np.mean(_quadratic(1.0 - 2.0 * bits, others) >= observed))
    source = generator(rng)
    extreme = 0
    for size in batches(flips, count):
        signs = 2.0 * source.integers(0, 2, (size, count)) - 1.0
        extreme += int(np.sum(_quadratic(signs, others) >= observed))
    return (1 + extreme) / (1 + flips)


def pairwise_cosine(products: ArrayLike) -> Quantity:
    """Estimate the mean cosine of the gradients of two batches (Ilyas et al. 2018, arXiv 1811.02553).

    Isotropic noise gives 1 / (1 + NSR); far from it, noise has heavy tails. Gradients that are zero have no direction
    and are left out. Jackknife interval.

    Args:
        products: ``(M, M)``.
    """
    k = _with_direction(as_array(products, "(M, M)", "products"))
    if len(k) < MIN_BATCHES:
        return Quantity.missing(f"{len(k)} gradients are not zero: at least {MIN_BATCHES} are needed")
    norms = np.sqrt(np.diagonal(k))
    cosines = moments(k / np.outer(norms, norms))  # of unit vectors, the signal is the mean cosine
    return with_error(cosines.signal, cosines.covariance[1, 1], cosines.n)


def true_cosine(products: ArrayLike) -> Quantity:
    """Estimate the mean cosine of the gradient of one batch and the expected gradient.

    ``mean_i g_i . R / (|g_i| sqrt(U_R))``, R the mean of the half that i is not in, U_R the signal in that half: Ilyas
    et al. 2018, corrected for the noise of the reference. Isotropic noise gives (1 + NSR)^(-1/2). Beyond 1 by noise at
    times. Gradients that are zero are left out. Jackknife interval.

    Args:
        products: ``(M, M)``; the halves are the first and the last batches.
    """
    k = _with_direction(as_array(products, "(M, M)", "products"))
    count = len(k)
    if count < 2 * 3:  # a half has a signal without one of its batches, too
        return Quantity.missing(f"{count} gradients are not zero: at least 6 are needed")
    first = np.arange(count) < count // 2
    sums = np.stack([_cosines(k, first), _cosines(k, ~first)])
    if np.isnan(sums).any():
        return Quantity.missing("half of the batches do not resolve the gradient")
    total = sums.sum(0)
    replicates = total[1:] / (count - 1)
    return with_error(total[0] / count, float(jackknife_covariance(replicates[:, None])[0, 0]), count)


def median_norm(products: ArrayLike) -> Quantity:
    """Compute the median norm of the gradients; its interval from order statistics (`scipy.stats.quantile_test`).

    The ends are zero and infinite where there are too few batches for an interval.
    """
    norms = np.sqrt(np.diagonal(as_array(products, "(M, M)", "products")))
    low, high = stats.quantile_test(norms, p=0.5).confidence_interval(LEVEL)
    ends = (0.0 if math.isnan(low) else float(low), math.inf if math.isnan(high) else float(high))
    return Quantity(float(np.median(norms)), *ends, len(norms))


def noise_scale(gradients: ArrayLike, steps_per_batch: ArrayLike, rng: Rng) -> dict[str, Quantity]:
    """Measure signal and noise of M gradients at one point, by the names of ``results.QUANTITIES``.

    ``nsr`` is S2 / U with Fieller's interval, and ``noise_scale`` is that times the valid steps of a batch: the number
    of environment steps in which noise equals signal, tr Sigma / |G|^2 (McCandlish et al. 2018, arXiv 1812.06162, eq.
    2.9). Where the gradient is not resolved (p > 0.05 in :func:`flip_test`) these have no value; their lower end is the
    one of S2 over the upper end of U. NSR grows without bound at every optimum: a large one is no fault by itself.

    >>> i = np.arange(64.0)
    >>> result = noise_scale(np.stack([1 + np.cos(i), 1 + np.sin(2 * i)], 1), steps_per_batch=200, rng=0)
    >>> round(result["nsr"].value, 4), round(result["noise_scale"].value, 2)
    (0.5026, 100.51)

    Args:
        gradients: ``(M, D)``, of one network or layer, M independent batches.
        steps_per_batch: valid steps of a batch, a number or ``(M,)`` to be averaged.
        rng: generator or seed of the sign flips.

    Returns:
        A quantity for each of :data:`NAMES`; a reason where there is no value.

    Raises:
        ValueError: ``gradients`` is not ``(M, D)``.
    """
    return noise_scale_of_products(gram(gradients), steps_per_batch, rng)


def noise_scale_of_products(products: ArrayLike, steps_per_batch: ArrayLike, rng: Rng) -> dict[str, Quantity]:
    """Measure the same from inner products ``(M, M)``, see :func:`gram` and :func:`noise_scale`."""
    k = np.asarray(products, dtype=np.float64)
    reason = flaw(k)
    if reason is not None:  # a norm of 0 is one: such a policy is dead
        norm = Quantity.missing(reason) if len(k) < MIN_BATCHES or k.any() else median_norm(k)
        return dict.fromkeys(NAMES, Quantity.missing(reason)) | {"grad_norm": norm}
    p = flip_test(k, rng)
    estimate = moments(k)
    unresolved = unresolved_reason(p, estimate)
    signal = with_error(estimate.signal, estimate.covariance[1, 1], estimate.n)
    noise = with_error(estimate.noise, estimate.covariance[0, 0], estimate.n)
    ratio = _noise_to_signal(estimate, noise, signal, unresolved)
    steps = float(np.asarray(steps_per_batch, dtype=np.float64).mean())
    return {
        "signal": signal,
        "noise": noise,
        "nsr": ratio,
        "noise_scale": ratio._replace(value=ratio.value * steps, low=ratio.low * steps, high=ratio.high * steps),
        "pairwise_cosine": pairwise_cosine(k),
        "true_cosine": Quantity.missing(unresolved) if unresolved else true_cosine(k),
        "p_flip": Quantity(p, n=estimate.n),
        "grad_norm": median_norm(k),
    }


def unresolved_reason(p: float, estimate: Moments) -> str | None:
    """Say in words that a gradient with this p value of :func:`flip_test` is not resolved; None if it is."""
    resolved = p <= SIGNIFICANCE and estimate.signal > 0
    return None if resolved else f"the gradient is not resolved (p = {p:.3g} by sign flips)"


def update_snr(updates: ArrayLike) -> Quantity:
    """Estimate the signal-to-noise ratio of one update: ``|E d|^2 / tr Cov d``, with Fieller's interval.

    ``d_i`` is what the optimizer, with its state, makes of gradient i. Momentum hides noise of gradients: most of such
    an update is the same in all copies. The estimate may be negative.

    >>> update_snr([[1.0, 0.1], [1.0, -0.1], [1.2, 0.0], [0.8, 0.0]]).value > 10
    True

    Args:
        updates: ``(M, D)``.
    """
    k = gram(updates)
    reason = flaw(k)
    if reason is not None:
        return Quantity.missing(reason.replace("gradients", "updates"))
    estimate = moments(k)
    if estimate.noise <= ROUNDING * np.trace(k) / len(k):
        return Quantity.missing("all updates are the same")
    swapped = estimate.covariance[::-1, ::-1]
    interval = fieller(estimate.signal, estimate.noise, swapped, estimate.n - 1)
    return Quantity(estimate.signal / estimate.noise, *interval, estimate.n)


def _noise_to_signal(estimate: Moments, noise: Quantity, signal: Quantity, unresolved: str | None) -> Quantity:
    """The ratio with Fieller's interval, or a bound from below where the signal is not resolved."""
    if unresolved is None:
        low, high = fieller(estimate.noise, estimate.signal, estimate.covariance, estimate.n - 1)
        return Quantity(estimate.noise / estimate.signal, max(low, 0.0), high, estimate.n)
    bound = max(noise.low, 0.0) / signal.high if signal.high > 0 else 0.0
    return Quantity(math.nan, bound, math.inf, estimate.n, unresolved)


def _others(products: FloatArray) -> FloatArray:
    """The products with zeros on the diagonal."""
    others = products.copy()
    np.fill_diagonal(others, 0.0)
    return others


def _with_direction(products: FloatArray) -> FloatArray:
    """The products of the gradients that are not zero."""
    rows = np.diagonal(products) > 0
    return products[np.ix_(rows, rows)]


def _quadratic(signs: NDArray[np.floating], matrix: FloatArray) -> FloatArray:
    """``e'Ke`` for each row e of ``signs``."""
    return ((signs @ matrix) * signs).sum(1)


def _cosines(products: FloatArray, half: BoolArray) -> FloatArray:
    """Sum the cosines of the batches outside ``half`` to the mean in it: with all batches, then without each, (1 + M,).

    NaN where the signal of the half is not positive.
    """
    inside = products[np.ix_(half, half)]
    count = len(inside)
    total = _others(inside).sum() / (count * (count - 1))
    signals = np.append(total, delete_one(inside)[:, 1])
    lengths = np.sqrt(np.where(signals > 0, signals, np.nan))
    across = products[np.ix_(~half, half)] / np.sqrt(np.diagonal(products)[~half])[:, None]
    result = np.empty(1 + len(products))
    result[0] = across.sum() / (count * lengths[0])
    result[1:][half] = (across.sum() - across.sum(0)) / ((count - 1) * lengths[1:])
    result[1:][~half] = (across.sum() - across.sum(1)) / (count * lengths[0])
    return result
