"""Selection of a setting on tuning seeds, and the settings that other seeds might have selected.

Nothing here measures an arm's performance: on the seeds that selected it, the best of several settings looks better
than it is. Fresh seeds measure performance.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pgkit.stats.samples import BoolArray, FloatArray, Rng, as_array, generator, sort_columns

RESAMPLES = 1_000
CHOSEN = 0.05
"""A setting belongs to the uncertainty set when at least this share of resamples selects it."""

DECIMALS = 12
"""Means that agree to this many decimals tie."""


class Selection(NamedTuple):
    """The result of tuning among L settings.

    Attributes:
        best: index of the setting with the highest mean; of those that tie, the first.
        second: index of the next best setting of the uncertainty set, None when the set has one member.
        chosen_share: ``(L,)``, the share of resamples that select each setting; ties are shared. Sums to 1.
        in_set: bool ``(L,)``, the uncertainty set, ``best`` always in it.
    """

    best: int
    second: int | None
    chosen_share: FloatArray
    in_set: BoolArray


def select(scores: ArrayLike, rng: Rng, resamples: int = RESAMPLES, share: float = CHOSEN) -> Selection:
    """Select the setting with the highest mean over tuning seeds, and repeat the choice on resampled seeds.

    A seed is drawn with all its settings. With one seed nothing varies, and the set holds what ties for the best.

    Args:
        scores: ``(L, S)``: L settings, learning rates ascending, by S tuning seeds; failed runs with their floor.
        rng: generator or seed.
        resamples: at least 1.
        share: smallest share of resamples that puts a setting into the set.
    """
    array = as_array(scores, "(L, S)", "scores")
    array = array[:, sort_columns(array)]
    means = np.round(array.mean(axis=1), DECIMALS)
    drawn = generator(rng).integers(0, array.shape[1], (resamples, array.shape[1]))
    curves = np.round(np.stack([np.mean(row[drawn], axis=1) for row in array], axis=1), DECIMALS)
    winners = curves == curves.max(axis=1, keepdims=True)
    chosen = np.mean(winners / winners.sum(axis=1, keepdims=True), axis=0)
    best = int(np.argmax(means))
    in_set = chosen >= share - 1e-12
    in_set[best] = True
    others = np.flatnonzero(in_set & (np.arange(len(means)) != best))
    second = int(others[np.argmax(means[others])]) if len(others) else None
    return Selection(best, second, chosen, in_set)
