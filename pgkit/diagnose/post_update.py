"""Returns after updates that a point would have done, and one update taken apart into signal, overshoot and noise.

Each of M copies of a point does K updates of its own; all policies then play the same E episodes (common random
numbers): column e of every array is the same episode. A difference of two policies is therefore taken per episode
first. Where a number depends on both which copies and which episodes were drawn, its interval resamples both (the
two-way bootstrap of Owen 2007, Annals of Applied Statistics 1, "The pigeonhole bootstrap"), which is a little too wide.

>>> rng = np.random.default_rng(0)
>>> before = rng.normal(500, 1, 20)  # E = 20 episodes
>>> harm = np.where(np.arange(64) < 16, 400.0, 0.0)  # M = 64 copies: the updates of 16 ruin the policy
>>> after = before - harm[:, None]
>>> measured = post_update_returns(after[:, :10], after[:, 10:], before, random=20.0)
>>> round(measured["half_share"].value, 3), round(measured["half_share"].low, 3)
(0.25, 0.16)
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as scipy_stats

from pgkit.diagnose.evidence import mean_quantity
from pgkit.diagnose.results import Quantity
from pgkit.stats import LEVEL, cvar_low, t_interval, wilson
from pgkit.stats.samples import FloatArray, Rng, as_array, as_sample, generator, percentile_interval

RESAMPLES = 2_000
"""Resamples of a bootstrap."""

TAIL = 0.1
"""The share of copies whose mean return is the conditional value at risk."""

NO_FALL = "the return before is not resolved above that of random actions, so half of it means nothing"


class _Resamples(NamedTuple):
    """Bootstrap resamples of copies and, within blocks, of episodes."""

    copies: FloatArray  # (B, M) weights, sum 1
    episodes: FloatArray  # (B, E) weights, sum 1 in each block
    chosen: np.ndarray[tuple[int, int], np.dtype[np.intp]]  # (B, M) the copies themselves


def post_update_returns(
    block_a: ArrayLike,
    block_b: ArrayLike,
    before: ArrayLike,
    random: Quantity | float,
    kl: ArrayLike | None = None,
    norm: ArrayLike | None = None,
    rng: Rng = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Quantity]:
    """Describe the returns of M copies after K updates (Rahn et al. 2023, arXiv 2309.14597, for K = 1).

    - ``mean``, and ``change``: the same minus the return before, per episode first; bootstrap of copies and episodes;
    - ``std``: sqrt of ``Cov_i(A_i, B_i)``, A_i and B_i the copy's means over the two blocks. Evaluation noise is
      independent between blocks, so it does not count; a negative covariance is 0;
    - ``cvar10``: mean of the worst tenth. Too low: among the copies that look worst, many were only unlucky;
    - ``cvar10_crossed``: the worst tenth of one block, averaged over the other, both ways. Too high, because the copies
      are ranked with noise. The truth lies between the two;
    - ``min``: the worst copy; no interval, because the worst of more copies lies lower;
    - ``half_share``: see :func:`half_share`;
    - ``kl`` and ``norm``: medians over copies, with :func:`median_quantity`'s interval.

    An example is in the module's notes.

    Args:
        block_a: ``(M, E/2)`` returns of each copy in the first half of the episodes; M >= 2, E/2 >= 2. A copy that
            failed counts with the return that it would have got: the numbers must be finite.
        block_b: ``(M, E/2)`` in the second half, on other seeds.
        before: ``(E,)`` returns of the point itself, on the same episodes, A then B.
        random: mean return of random actions, with its interval if it has one.
        kl: ``(M,)`` KL divergence of each copy's policy from the point's, in nats.
        norm: ``(M,)`` norm of each copy's change of parameters.
        rng: generator or seed of the bootstrap.
        resamples: at least 1.

    Returns:
        Quantities by the names above.

    Raises:
        ValueError: shapes do not fit, there are fewer than two copies or episodes a block, or a number is not finite.
    """
    a = as_array(block_a, "(M, E/2)", "block_a")
    b = as_array(block_b, "(M, E/2)", "block_b")
    returns = np.concatenate([a, b], axis=1) if len(a) == len(b) else a
    start = _episodes(before, "before", returns.shape[1])
    if a.shape != b.shape or min(a.shape) < 2:
        raise ValueError(f"expected two blocks (M, E/2) with M, E/2 >= 2, got {a.shape} and {b.shape}")
    draws = _resample(a.shape, 2, rng, resamples)
    results = {
        "mean": _crossed_mean(returns, draws),
        "change": _crossed_mean(returns - start, draws),
        **_spread(returns, draws),
        "min": Quantity(float(returns.mean(axis=1).min()), n=len(returns)),
        "half_share": half_share(returns, start, random),
    }
    for name, values in (("kl", kl), ("norm", norm)):
        results[name] = Quantity.missing("not measured") if values is None else median_quantity(values)
    return results


def mean_return(returns: ArrayLike, rng: Rng = 0, resamples: int = RESAMPLES) -> Quantity:
    """Average returns over copies and episodes, with the bootstrap of both.

    >>> mean_return([[1.0, 2.0], [3.0, 4.0]]).value
    2.5

    Args:
        returns: ``(M, E)``.
        rng: generator or seed.
        resamples: at least 1.
    """
    values = as_array(returns, "(M, E)", "returns")
    return _crossed_mean(values, _resample(values.shape, 1, rng, resamples))


def half_share(returns: ArrayLike, before: ArrayLike, random: Quantity | float) -> Quantity:
    """Return P_K(half): the share of copies with ``J_i - R_random < (J_0 - R_random) / 2``, with Wilson's interval.

    The interval is that of M independent copies; that J_i and J_0 are means of E episodes is not in it. Missing where
    ``J_0 - R_random`` is not resolved: its lower limit is at or below 0, with the two intervals' widths combined as
    ``sqrt(w_1^2 + w_2^2)``.

    >>> half_share([[100.0, 110.0], [30.0, 40.0]], [100.0, 110.0], random=20.0).value
    0.5

    Args:
        returns: ``(M, E)`` after the updates.
        before: ``(E,)`` on the same episodes.
        random: mean return of random actions; an interval of NaN counts as none.

    Raises:
        ValueError: shapes do not fit or a number is not finite.
    """
    values = as_array(returns, "(M, E)", "returns")
    start = _episodes(before, "before", values.shape[1])
    floor = random if isinstance(random, Quantity) else Quantity(float(random))
    if math.isnan(floor.value):
        return Quantity.missing(f"no return of random actions: {floor.reason}")
    level = float(start.mean())
    error = 0.0 if math.isnan(floor.high) else floor.high - floor.value
    if not level - floor.value > math.hypot(level - t_interval(start).low, error):
        return Quantity.missing(NO_FALL)
    count = int(np.sum(values.mean(axis=1) - floor.value < (level - floor.value) / 2))
    return Quantity(*wilson(count, len(values)), len(values))


def median_quantity(values: ArrayLike) -> Quantity:
    """Return the median, with the order statistics between which the true one lies with at least 95 %.

    For n < 6 no order statistics do, and the interval is infinite (David and Nagaraja 2003, section 7.1). NaN counts as
    infinite: the KL divergence of a copy that has blown up is larger than all others.

    >>> median_quantity(range(11))
    Quantity(value=5.0, low=1.0, high=9.0, n=11, reason=None)

    Args:
        values: ``(n,)``.

    Raises:
        ValueError: not ``(n,)``.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"values must have shape (n,) with n >= 1, got {numbers.shape}")
    sample = np.sort(np.where(np.isnan(numbers), np.inf, numbers))
    n = len(sample)
    # P(fewer than `rank` values lie below the median) = P(Binomial(n, 1/2) < rank) must be at most 2.5 %.
    rank = int(scipy_stats.binom.ppf((1 - LEVEL) / 2, n, 0.5))
    ends = (-math.inf, math.inf) if rank < 1 else (float(sample[rank - 1]), float(sample[n - rank]))
    return Quantity(float((sample[(n - 1) // 2] + sample[n // 2]) / 2), *ends, n)


def update_parts(
    theta: ArrayLike,
    plus: ArrayLike,
    minus: ArrayLike,
    copies: ArrayLike,
    rng: Rng = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Quantity]:
    """Split the mean change of the return by one update into signal, overshoot and what noise costs.

    With d_i the update of copy i and d their mean, ``E J(theta + d_i) - J(theta) = odd + even + gap`` exactly:

        odd = [J(theta + d) - J(theta - d)] / 2,    even = [J(theta + d) + J(theta - d)] / 2 - J(theta),
        gap = mean_i J(theta + d_i) - J(theta + d).

    To second order, ``odd = g'd``, ``even = d'Hd / 2`` and ``gap = tr(H Cov d_i) / 2``, so that ``gap / even`` is
    McCandlish et al. 2018 (arXiv 1812.06162, eq. 2.8)'s ``B_noise / B``, and ``best_multiple = odd / (-2 even)`` is the
    best multiple of the mean update (:func:`best_multiple`). d keeps 1/M of the noise, which counts as even instead
    of gap: M >= 64. At a ceiling of the return, repeat with 8 d.

    >>> def J(x):  # a parabola with its maximum at x = 2
    ...     return -((x - 2.0) ** 2)
    >>> episodes = np.array([0.0, 0.1, 0.2, 0.4])  # what differs between episodes cancels
    >>> updates = np.array([0.9, 1.1])
    >>> parts = update_parts(J(0) + episodes, J(1) + episodes, J(-1) + episodes, J(updates)[:, None] + episodes)
    >>> [round(parts[name].value, 6) for name in ("odd", "even", "gap", "total", "best_multiple")]
    [4.0, -1.0, -0.01, 2.99, 2.0]

    Args:
        theta: ``(E,)`` returns of the point.
        plus: ``(E,)`` with the mean update added.
        minus: ``(E,)`` with it subtracted.
        copies: ``(M, E)`` with the update of each copy added.
        rng: generator or seed of the bootstrap.
        resamples: at least 1.

    Returns:
        ``odd`` and ``even`` with t intervals over episodes; ``gap`` and ``total`` with the bootstrap of copies and
        episodes; ``best_multiple``.

    Raises:
        ValueError: shapes do not fit, E < 2, or a number is not finite.
    """
    after = as_array(copies, "(M, E)", "copies")
    count = after.shape[1]
    start, up, down = (
        _episodes(values, name, count) for values, name in ((theta, "theta"), (plus, "plus"), (minus, "minus"))
    )
    draws = _resample(after.shape, 1, rng, resamples)
    odd = (up - down) / 2
    even = (up + down) / 2 - start
    return {
        "odd": mean_quantity(odd),
        "even": mean_quantity(even),
        "gap": _crossed_mean(after - up, draws),
        "total": _crossed_mean(after - start, draws),
        "best_multiple": best_multiple(odd, even),
    }


def best_multiple(odd: ArrayLike, even: ArrayLike) -> Quantity:
    """Return ``mean(odd) / (-2 mean(even))``, where the parabola through J(-d), J(0) and J(d) has its top.

    The interval is Fieller's (1954). Where the curvature is not resolved there is no value, but a resolved gain still
    bounds the best multiple from below: ``[low, inf]``. Where it is resolved to curve up, there is no bound either.

    >>> round(best_multiple([0.9, 1.1, 1.0], [-0.1, -0.1, -0.1]).value, 6)
    5.0

    Args:
        odd: ``(E,)`` first-order gain in each episode.
        even: ``(E,)`` overshoot in each episode.

    Raises:
        ValueError: not ``(E,)`` each, E < 2, or a number is not finite.
    """
    gain = as_sample(odd, "odd")
    fall = -2 * _episodes(even, "even", len(gain))
    n = len(gain)
    a, b = float(gain.mean()), float(fall.mean())
    square = float(scipy_stats.t.ppf((1 + LEVEL) / 2, n - 1)) ** 2 / n
    (var_a, cov), (_, var_b) = np.cov(gain, fall) * square
    # Fieller: the ratios x with (a - x b)^2 <= t^2 Var(a - x b), i.e. p x^2 - 2 q x + r <= 0.
    p, q, r = b * b - float(var_b), a * b - float(cov), a * a - float(var_a)
    if p > 0:
        if b < 0:
            return Quantity.missing("the return curves up along the mean update: a parabola without a top")
        root = math.sqrt(max(q * q - p * r, 0.0))
        return Quantity(a / b, (q - root) / p, (q + root) / p, n)
    if r <= 0 or p == 0:  # neither part is resolved, or there is nothing to divide by
        return Quantity(math.nan, n=n, reason="neither gain nor curvature along the mean update is resolved")
    roots = sorted((q + sign * math.sqrt(q * q - p * r)) / p for sign in (-1, 1))
    ends = (roots[1], math.inf) if a > 0 else (-math.inf, roots[0])
    return Quantity(math.nan, *ends, n, "the curvature along the mean update is not resolved")


def _spread(returns: FloatArray, draws: _Resamples) -> dict[str, Quantity]:
    """Return the standard deviation between copies and both estimates of the lower tail."""
    half = returns.shape[1] // 2
    blocks = [returns[:, :half], returns[:, half:]]
    weights = [draws.episodes[:, :half], draws.episodes[:, half:]]
    a, b = (block.mean(axis=1) for block in blocks)
    drawn = [np.take_along_axis(w @ block.T, draws.chosen, 1) for w, block in zip(weights, blocks, strict=True)]
    estimates: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
        "std": _std,
        "cvar10": lambda one, other: cvar_low((one + other) / 2, TAIL),
        "cvar10_crossed": lambda one, other: (_crossed_tail(one, other) + _crossed_tail(other, one)) / 2,
    }
    return {
        name: Quantity(float(estimate(a, b)), *percentile_interval(estimate(*drawn)), len(returns))
        for name, estimate in estimates.items()
    }


def _std(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the root of the covariance of two blocks over copies, ``(..., M)`` to ``(...)``."""
    centred = (a - a.mean(axis=-1, keepdims=True)) * (b - b.mean(axis=-1, keepdims=True))
    return np.sqrt(np.maximum(centred.sum(axis=-1) / (a.shape[-1] - 1), 0.0))


def _crossed_tail(ranked: FloatArray, averaged: FloatArray) -> FloatArray:
    """Return the mean in one block of the copies that are worst in the other, ``(..., M)`` to ``(...)``.

    Ties at the edge of the tail belong to it, as in :func:`pgkit.stats.cvar_low`.
    """
    rank = math.floor(TAIL * (ranked.shape[-1] - 1) + 1e-9)
    tail = ranked <= np.partition(ranked, rank, axis=-1)[..., rank, None]
    return np.sum(np.where(tail, averaged, 0.0), axis=-1) / np.sum(tail, axis=-1)


def _crossed_mean(values: FloatArray, draws: _Resamples) -> Quantity:
    """Return the mean of ``(M, E)`` with the bootstrap of copies and episodes."""
    resampled = np.sum((draws.copies @ values) * draws.episodes, axis=1) / draws.episodes.sum(axis=1)
    return Quantity(float(values.mean()), *percentile_interval(resampled), len(values))


def _resample(shape: tuple[int, ...], blocks: int, rng: Rng, resamples: int) -> _Resamples:
    """Draw M copies, and ``shape[1]`` episodes in each block, with replacement."""
    source = generator(rng)
    copies, episodes = shape[0], shape[1]
    chosen = source.integers(0, copies, (resamples, copies))
    drawn = [_weights(source.integers(0, episodes, (resamples, episodes)), episodes) for _ in range(blocks)]
    return _Resamples(_weights(chosen, copies), np.concatenate(drawn, axis=1), chosen)


def _weights(chosen: np.ndarray[tuple[int, int], np.dtype[np.intp]], count: int) -> FloatArray:
    """Return how often each of ``count`` was drawn in each resample, over the number of draws, ``(B, count)``."""
    rows = np.arange(len(chosen))[:, None] * count
    counts = np.bincount((chosen + rows).ravel(), minlength=len(chosen) * count)
    return counts.reshape(len(chosen), count) / chosen.shape[1]


def _episodes(values: ArrayLike, name: str, count: int) -> FloatArray:
    """Return ``(E,)`` returns.

    Raises:
        ValueError: not one for each of the ``count`` episodes, or fewer than two.
    """
    sample = as_sample(values, name)
    if len(sample) != count or count < 2:
        raise ValueError(f"{name} must have one return for each of {count} episodes (two or more), got {len(sample)}")
    return sample
