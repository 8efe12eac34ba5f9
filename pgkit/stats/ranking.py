"""Which arm is first, and how sure that is."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

RESAMPLES = 10_000


def rank_shares(scores: Sequence[Array], rng: np.random.Generator, resamples: int = RESAMPLES) -> Array:
    """How often each arm has each rank by mean score, runs of every arm resampled: ``(arms, arms)``, rows sum to 1.

    Args:
        scores: of each arm, ``(n_arm,)``.
        rng: each arm draws from a child of its own, so that the others do not matter to it.
        resamples: of the runs.

    Arms that tie share their ranks equally. Column 0 is P(rank = 1).
    """
    children = rng.spawn(len(scores))
    means = np.stack([_means(x, child, resamples) for x, child in zip(scores, children, strict=True)], axis=1)
    above = (means[:, None, :] > means[:, :, None]).sum(2)
    tied = (means[:, None, :] == means[:, :, None]).sum(2)
    ranks = np.arange(len(scores))
    inside = (ranks >= above[..., None]) & (ranks < (above + tied)[..., None])
    return (inside / tied[..., None]).mean(0)


def mean_rank(shares: Array) -> Array:
    """Expected rank of each arm, 1 the best."""
    return shares @ np.arange(1, shares.shape[1] + 1)


def _means(x: Array, rng: np.random.Generator, resamples: int) -> Array:
    counts = rng.multinomial(len(x), np.full(len(x), 1 / len(x)), size=resamples)
    return np.asarray(counts @ x / len(x))
