"""Bootstrap probabilities of the rank of each arm."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pgkit.stats.samples import FloatArray, Rng, as_sample, batches, generator

RESAMPLES = 10_000
DECIMALS = 12
"""Means that agree to this many decimals tie, because sums in another order differ in the last bits."""


class Ranking(NamedTuple):
    """``p_best (A,)``, ``mean_rank (A,)`` with 1 the best, and ``probability (A, A)`` of arm a having rank r + 1."""

    p_best: FloatArray
    mean_rank: FloatArray
    probability: FloatArray


def rank_arms(scores: Sequence[ArrayLike], rng: Rng, resamples: int = RESAMPLES) -> Ranking:
    """The probability of each rank, ``P(arm a has rank r)``, by drawing each arm's runs anew and ranking the means.

    k arms that tie share their k ranks equally, so each row and each column of ``probability`` sums to 1. An arm with
    one run does not vary, and looks surer than it is. Naming or ordering arms otherwise only moves the rows.

    Args:
        scores: for each of A arms ``(n_a,)``, higher is better; all runs of one environment.
        rng: generator or seed.
        resamples: at least 1.

    Raises:
        ValueError: no arm, or an arm without runs.
    """
    if len(scores) == 0:
        raise ValueError("there is no arm to rank")
    arms = [np.sort(as_sample(values, f"scores[{a}]")) for a, values in enumerate(scores)]
    order = sorted(range(len(arms)), key=lambda a: (len(arms[a]), arms[a].tolist()))
    means = np.empty((len(arms), resamples))
    source = generator(rng)
    for a in order:
        means[a] = np.concatenate(
            [
                np.mean(arms[a][source.integers(0, len(arms[a]), (count, len(arms[a])))], axis=1)
                for count in batches(resamples, len(arms[a]))
            ]
        )
    probability = _rank_shares(np.round(means, DECIMALS))
    return Ranking(probability[:, 0], probability @ np.arange(1, len(arms) + 1), probability)


def _rank_shares(means: FloatArray) -> FloatArray:
    """Return how often arm a has rank r, ties shared: ``(A, B)`` to ``(A, A)``."""
    count = len(means)
    ranks = np.arange(len(means))
    shares = np.empty((count, count))
    for a in range(count):
        better = np.sum(means > means[a], axis=0)
        tied = np.sum(means == means[a], axis=0)
        for r in ranks:
            has = (better <= r) & (r < better + tied)
            shares[a, r] = np.mean(has / tied)
    return shares
