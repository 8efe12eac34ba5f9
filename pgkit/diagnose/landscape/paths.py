"""The straight path between two policies, and the barrier on it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pgkit.diagnose.evidence import mean_quantity
from pgkit.diagnose.results import Quantity
from pgkit.stats.samples import FloatArray

POINTS = 21
"""Policies on a path, both ends included."""


class Barrier(NamedTuple):
    """The deepest dip below the chord between the ends.

    Attributes:
        depth: in units of the return, with its t interval over common episodes; below 0 if the path lies above the
            chord everywhere. The interval holds for all points at once (Bonferroni), as the deepest one is chosen.
        at: where it is, 0 < t < 1.
    """

    depth: Quantity
    at: float


def path_coordinates(points: int = POINTS) -> FloatArray:
    """``t = 0, ..., 1`` evenly, ``(K, 1)``: the policies ``(1 - t) theta_a + t theta_b``."""
    return np.linspace(0, 1, points)[:, None]


def chord(returns: ArrayLike, t: ArrayLike) -> FloatArray:
    """``(1 - t) J_a + t J_b`` of each episode, ``(K, E)``.

    Args:
        returns: ``(K, E)``, the first of one end, the last of the other.
        t: ``(K,)``.
    """
    values = np.asarray(returns, dtype=np.float64)
    share = np.asarray(t, dtype=np.float64).reshape(-1, 1)
    return (1 - share) * values[0] + share * values[-1]


def barrier(returns: ArrayLike, t: ArrayLike | None = None) -> Barrier:
    """Measure ``max_t [(1 - t) J_a + t J_b - J(t)]`` inside the path.

    The difference is taken for each episode first: all policies play the same ones. Source: linear interpolation
    between two networks, Frankle et al. 2020 (arXiv 1912.05671), for the return in place of a loss.

    >>> barrier([[500.0, 500.0], [268.0, 268.0], [500.0, 500.0]])
    Barrier(depth=Quantity(value=232.0, low=232.0, high=232.0, n=2, reason=None), at=0.5)

    Args:
        returns: ``(K, E)``, K at least 3.
        t: ``(K,)`` from 0 to 1; by default evenly spaced.

    Raises:
        ValueError: there is no point between the ends.
    """
    values = np.asarray(returns, dtype=np.float64)
    if values.ndim != 2 or len(values) < 3:
        raise ValueError(f"expected returns (K, E) of at least 3 points, got {values.shape}")
    share = path_coordinates(len(values))[:, 0] if t is None else np.asarray(t, dtype=np.float64)
    dips = (chord(values, share) - values)[1:-1]
    deepest = int(dips.mean(1).argmax())
    return Barrier(mean_quantity(dips[deepest], looks=len(dips)), float(share[1 + deepest]))
