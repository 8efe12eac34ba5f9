"""How good the critic is, against Monte-Carlo returns of whole episodes.

    explained variance = 1 - Var(G - V) / Var(G)

over the steps of episodes, G the discounted return from a step on. What a log calls explained variance is against
bootstrapped targets, which are partly V itself; this one is not. Intervals resample episodes (percentile bootstrap,
Efron and Tibshirani 1993, section 13.3), because steps of one episode are not independent.

Without a resolved Var(G), explained variance is nothing: where all returns are 500, a constant V is right.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pgkit.diagnose.estimator_comparison import check_whole_episodes
from pgkit.diagnose.noise import MIN_BATCHES
from pgkit.diagnose.results import Quantity, Row
from pgkit.returns import EpisodeEnds, reward_to_go
from pgkit.stats.samples import BoolArray, FloatArray, Rng, generator, percentile_interval
from pgkit.types import Rollout

RESAMPLES = 2_000
"""The number of bootstrap resamples."""

REMAINDER = 1 / 20
"""Far from a limit means that the discount has fallen to this there: gamma^k with k = log(20) / (1 - gamma) steps."""

ROUNDING = 1e-6
"""A variance of returns below this share of their mean square is none."""

CELLS = 40
"""Cells along each side of the histogram of values and returns."""

NAMES = (
    "explained_variance",
    "explained_variance_bootstrapped",
    "explained_variance_far",
    "bias",
    "target_variance",
)
"""The quantities of :func:`critic_quality`."""


class Returns(NamedTuple):
    """Monte-Carlo returns and values of each step, float64 ``(T, E)``, E episodes.

    Attributes:
        plain: G, with nothing behind the time limit.
        bootstrapped: G, with V behind the time limit.
        value: V.
        valid: which steps count, bool.
        far: those of them that are far from the time limit, bool.
        truncated: which episodes the limit has cut, bool ``(E,)``.
    """

    plain: FloatArray
    bootstrapped: FloatArray
    value: FloatArray
    valid: BoolArray
    far: BoolArray
    truncated: BoolArray


def monte_carlo(rollout: Rollout, value: Tensor, next_value: Tensor, gamma: float) -> Returns:
    """Compute the returns of whole episodes beside their values, for figures and for :func:`critic_quality`.

    The limit is the length of the longest episode that was truncated. Steps are far from it by their time in the
    episode, whatever became of that: to leave out the ends of truncated episodes alone would leave out good ones.

    >>> never = torch.zeros(2, 1, 1, dtype=torch.bool)  # T = 2, P = 1, N = 1
    >>> last = torch.tensor([False, True]).view(2, 1, 1)
    >>> ones = torch.ones(2, 1, 1)
    >>> rollout = Rollout(torch.zeros(3, 1, 1, 4), ones.long(), ones, never, last, ~never)  # cut by its time limit
    >>> returns = monte_carlo(rollout, 10 * ones, 10 * ones, gamma=1.0)
    >>> returns.plain.tolist(), returns.bootstrapped.tolist()
    ([[2.0], [1.0]], [[12.0], [11.0]])

    Args:
        rollout: one whole episode in each of P * N environments, all played by one policy.
        value: ``(T, P, N)``, V of the observations, see :meth:`pgkit.nn.policy.Policy.values`.
        next_value: ``(T, P, N)``, V of the true next observations.
        gamma: discount per step in [0, 1].

    Raises:
        ValueError: the rollout does not hold whole episodes, or shapes do not fit.
    """
    check_whole_episodes(rollout)
    ends = EpisodeEnds(rollout.terminated, rollout.truncated, rollout.valid)
    reward = rollout.reward.double()
    plain = reward_to_go(reward, torch.zeros_like(reward), ends, gamma)
    bootstrapped = reward_to_go(reward, next_value.double(), ends, gamma)
    columns = (plain, bootstrapped, value.double(), ends.valid, ends.truncated & ends.valid)
    g, g_bootstrapped, v, valid, cut = (column.detach().flatten(1).cpu().numpy() for column in columns)
    truncated = np.asarray(cut.any(0))
    time = valid.cumsum(0)  # the first step of an episode is step 1
    limit = float(time[-1][truncated].max()) if truncated.any() else math.inf
    horizon = -math.log(REMAINDER) / (1 - gamma) if gamma < 1 else math.inf
    far = valid & ((limit - time > horizon) | (limit == math.inf))
    return Returns(g, g_bootstrapped, np.where(valid, v, 0.0), valid, far, truncated)


def value_histogram(returns: Returns, cells: int = CELLS) -> list[Row]:
    """Count steps by value V and return G, with nothing behind the time limit: the rows of ``critic_histogram``.

    Cells are squares, and both axes reach from the smallest to the largest of all values and returns, so that a cell on
    the diagonal is where the critic is right. Empty cells are left out, and steps where a number is not finite.

    >>> one = np.ones((1, 2), dtype=bool)
    >>> g, v = np.array([[2.0, 4.0]]), np.array([[0.0, 4.0]])
    >>> for row in value_histogram(Returns(g, g, v, one, one, one[0]), cells=4):
    ...     print(row)
    {'value': 0.5, 'target': 2.5, 'width': 1.0, 'count': 1}
    {'value': 3.5, 'target': 3.5, 'width': 1.0, 'count': 1}

    Args:
        returns: see :func:`monte_carlo`.
        cells: along each side.

    Returns:
        The middle of a cell (``value``, ``target``), the length of its sides and its number of steps.
    """
    pairs = np.stack([returns.value[returns.valid], returns.plain[returns.valid]])
    pairs = pairs[:, np.isfinite(pairs).all(0)]
    if not pairs.size:
        return []
    edges = np.histogram_bin_edges(pairs, cells)
    counts, *_ = np.histogram2d(pairs[0], pairs[1], bins=(edges, edges))
    middles = ((edges[1:] + edges[:-1]) / 2).tolist()
    width = float(edges[-1] - edges[0]) / cells
    return [
        {"value": middles[i], "target": middles[j], "width": width, "count": int(counts[i, j])}
        for i, j in np.argwhere(counts).tolist()
    ]


def critic_quality(
    rollout: Rollout, value: Tensor, next_value: Tensor, gamma: float, rng: Rng, resamples: int = RESAMPLES
) -> dict[str, Quantity]:
    """Measure how much of the variance of returns the critic explains, and its bias.

    ``explained_variance`` counts nothing behind the time limit, ``explained_variance_bootstrapped`` V there, and
    ``explained_variance_far`` only steps that are further than log(20) / (1 - gamma) from a limit, where it hardly
    matters. ``bias`` is the mean of V - G and ``target_variance`` is Var(G), both with nothing behind the limit.

    >>> never = torch.zeros(1, 1, 8, dtype=torch.bool)  # T = 1, P = 1, N = 8
    >>> reward = torch.arange(8.0).view(1, 1, 8)
    >>> rollout = Rollout(torch.zeros(2, 1, 8, 4), reward.long(), reward, ~never, never, ~never)
    >>> critic_quality(rollout, reward + 1, reward, gamma=0.9, rng=0)["explained_variance"].value
    1.0

    Args:
        rollout: one whole episode in each of P * N environments, all played by one policy.
        value: ``(T, P, N)``, V of the observations, see :meth:`pgkit.nn.policy.Policy.values`.
        next_value: ``(T, P, N)``, V of the true next observations.
        gamma: discount per step in [0, 1].
        rng: generator or seed of the bootstrap.
        resamples: how many there are.

    Returns:
        A quantity for each of :data:`NAMES`; a reason where there is no value. Its ``n`` counts episodes.

    Raises:
        ValueError: as :func:`monte_carlo`.
    """
    returns = monte_carlo(rollout, value, next_value, gamma)
    count = returns.valid.shape[1]
    if count < MIN_BATCHES:
        return dict.fromkeys(NAMES, Quantity.missing(f"{count} episodes: at least {MIN_BATCHES} are needed"))
    if not all(np.isfinite(column[returns.valid]).all() for column in returns[:3]):
        return dict.fromkeys(NAMES, Quantity.missing("values or returns are not finite"))
    draws = generator(rng).multinomial(count, np.full(count, 1 / count), resamples)
    weights = np.concatenate([np.ones((1, count)), draws.astype(np.float64)])  # the sample, then its resamples
    variance, _, bias = _moments(returns.plain, returns.value, returns.valid, weights)
    same = _same_returns(returns, weights)
    return {
        "explained_variance": _explained(returns.plain, returns.value, returns.valid, weights, same),
        "explained_variance_bootstrapped": _explained(
            returns.bootstrapped, returns.value, returns.valid, weights, same
        ),
        "explained_variance_far": _explained(returns.plain, returns.value, returns.far, weights, same),
        "bias": _estimate(bias, count),
        "target_variance": _estimate(variance, count),
    }


def _moments(
    target: FloatArray, value: FloatArray, mask: BoolArray, weights: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Var(G), Var(G - V) and mean V - G over the steps of ``mask``, ``(R,)`` each, for weights of episodes ``(R, E)``.

    NaN in resamples without a step.
    """
    error = value - target
    centre = target[mask].mean()
    shift = error[mask].mean()
    g = np.where(mask, target - centre, 0.0)  # squares of centred numbers lose no digits
    e = np.where(mask, error - shift, 0.0)
    sums = np.stack([mask.sum(0), g.sum(0), (g * g).sum(0), e.sum(0), (e * e).sum(0)], 1)
    steps, *rest = (weights @ sums).T
    steps = np.where(steps > 0, steps, np.nan)
    mean_g, square_g, mean_e, square_e = (total / steps for total in rest)
    return square_g - mean_g**2, square_e - mean_e**2, mean_e + shift


def _explained(
    target: FloatArray, value: FloatArray, mask: BoolArray, weights: FloatArray, same: str | None
) -> Quantity:
    """Explained variance over the steps of ``mask``, or why there is none."""
    count = int(mask.any(0).sum())
    if count < MIN_BATCHES:
        return Quantity.missing(f"{count} episodes have steps far from the time limit: {MIN_BATCHES} are needed")
    if same is not None:
        return Quantity.missing(same)
    variance, unexplained, _ = _moments(target, value, mask, weights)
    if not _resolved(variance, target[mask]):
        return Quantity.missing("the variance of returns is not resolved: a constant critic is right")
    return _estimate(1 - unexplained / np.where(variance > 0, variance, np.nan), count)


def _same_returns(returns: Returns, weights: FloatArray) -> str | None:
    """Say that episodes differ in nothing but how far their time limit is; None if they do, or if there is no limit."""
    if not returns.truncated.any():
        return None
    first = returns.valid & (returns.valid.cumsum(0) == 1)
    variance, _, _ = _moments(returns.plain, returns.value, first, weights)
    resolved = _resolved(variance, returns.plain[first])
    return None if resolved else "all episodes have the same return: a constant critic is right"


def _resolved(variance: FloatArray, target: FloatArray) -> bool:
    """Whether the interval of a variance excludes 0, up to rounding of the numbers that it is of."""
    return percentile_interval(variance[1:]).low > ROUNDING * float(np.mean(target * target))


def _estimate(statistic: FloatArray, count: int) -> Quantity:
    """The statistic of the sample, with the percentile interval of the resamples that follow it."""
    return Quantity(float(statistic[0]), *percentile_interval(statistic[1:]), count)
