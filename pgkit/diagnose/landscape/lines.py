"""The return along lines through a policy, and cliffs: does a step of the run's size lose half of it?"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pgkit.diagnose.results import Quantity
from pgkit.diagnose.thresholds import Thresholds
from pgkit.stats import t_interval, wilson
from pgkit.stats.samples import BoolArray, FloatArray

_MULTIPLES = 2.0 ** np.arange(-2, 7)

ALPHAS: FloatArray = np.concatenate([-_MULTIPLES[::-1], [0.0], _MULTIPLES])
"""Where lines are played, in lengths of an update: 0, 1/4, 1/2, 1, 2, ..., 64, both signs."""

EPISODES = 50
"""E of each policy on a line."""

LEADING = ("mean_update", "gradient")
"""The directions in which the run would go: a cliff is one of these."""

RANDOM = "random"
"""Names of the directions that a cliff is compared with begin so."""

CliffWord = Literal["cliff", "near", "steep all round", "none", "no return to lose"]


class Band(NamedTuple):
    """The return at each of K policies, ``(K,)``, and the ends of its 95 % t interval over episodes."""

    mean: FloatArray
    low: FloatArray
    high: FloatArray


class Cliff(NamedTuple):
    """What was seen along the directions of the run.

    Attributes:
        word: *cliff* within one length of an update, *near* within 8, *steep all round* if a random direction falls
            there, too; *none*; *no return to lose* where the policy is no better than random actions.
        alpha: the smallest multiple at which the return has halved, infinite if there is none, however far it is.
        direction: along which; None if there is none.
        random: share of the random directions, either way, in which the return has halved at that multiple.
    """

    word: CliffWord
    alpha: float
    direction: str | None
    random: Quantity


def line_coordinates(lines: int) -> FloatArray:
    """Coordinates of L lines through one center: the center first, then the other multiples of each line.

    >>> line_coordinates(2)[[0, 1, 19]]
    array([[  0.,   0.],
           [-64.,   0.],
           [  0., -64.]])

    Args:
        lines: L.

    Returns:
        ``(1 + L (K - 1), L)`` with K multiples.
    """
    others = ALPHAS[ALPHAS != 0]
    blocks = [np.zeros((len(others), lines)) for _ in range(lines)]
    for k, block in enumerate(blocks):
        block[:, k] = others
    return np.concatenate([np.zeros((1, lines)), *blocks])


def split_lines(returns: FloatArray, names: list[str]) -> dict[str, FloatArray]:
    """The returns ``(K, E)`` of each line, in the order of :data:`ALPHAS`, from those at :func:`line_coordinates`."""
    center = int(np.flatnonzero(ALPHAS == 0)[0])
    parts = np.split(returns[1:], len(names)) if names else []
    return {name: np.insert(part, center, returns[0], axis=0) for name, part in zip(names, parts, strict=True)}


def band(returns: ArrayLike) -> Band:
    """The mean return of each policy with its t interval.

    Args:
        returns: ``(K, E)``.

    Raises:
        ValueError: not ``(K, E)``.
    """
    rows = np.asarray(returns, dtype=np.float64)
    if rows.ndim != 2:
        raise ValueError(f"expected returns (K, E), got {rows.shape}")
    low, high = np.array([t_interval(row) for row in rows]).T
    return Band(rows.mean(1), low, high)


def falls_by_half(returns: ArrayLike, center: ArrayLike, random_return: float = 0.0) -> BoolArray:
    """Whether each policy has surely lost half of what the center earns above random actions, bool ``(K,)``.

    The upper limit of ``J - R_random`` is below half of the lower limit of ``J_0 - R_random``. Where that is not above
    0, nothing falls.

    >>> falls_by_half([[9.0, 9.0], [90.0, 95.0]], [100.0, 100.0])
    array([ True, False])

    Args:
        returns: ``(K, E)``.
        center: ``(E,)``, returns of the center.
        random_return: R_random, of random actions.
    """
    half = (t_interval(center).low - random_return) / 2
    return (band(returns).high - random_return < half) & (half > 0)


def find_cliff(
    lines: Mapping[str, ArrayLike], alphas: ArrayLike, center: ArrayLike, random_return: float = 0.0
) -> Cliff:
    """Look for the first multiple of an update at which the return halves along the mean update or the gradient.

    Sullivan et al. 2022 (arXiv 2205.07015) look along the gradient at a fixed multiple; here the unit is what the run
    would really do.

    >>> alphas = np.array([0.0, 1.0, 2.0, 4.0])
    >>> line = np.repeat(500 / (1 + np.exp(5 * (alphas - 3))), 2).reshape(4, 2)
    >>> find_cliff({"gradient": line}, alphas, line[0])[:3]
    ('near', 4.0, 'gradient')

    Args:
        lines: returns ``(K, E)`` by direction; see :data:`LEADING` and :data:`RANDOM`.
        alphas: ``(K,)``, multiples of an update's length.
        center: ``(E,)``, returns at 0.
        random_return: R_random.
    """
    multiples = np.asarray(alphas, dtype=np.float64)
    limits = Thresholds()
    if not t_interval(center).low > random_return:
        return Cliff("no return to lose", np.inf, None, Quantity.missing("the policy is no better than random actions"))
    fallen = {name: falls_by_half(returns, center, random_return) for name, returns in lines.items()}
    first = {name: _first(multiples, fallen[name]) for name in LEADING if name in fallen}
    direction = min(first, key=lambda name: first[name], default=None)
    if direction is None or np.isinf(first[direction]):
        return Cliff("none", np.inf, None, Quantity.missing("the return halves nowhere along the lines"))
    alpha = first[direction]
    there = np.abs(multiples) == alpha
    falls = [bool(fallen[name][there].any()) for name in fallen if name.startswith(RANDOM)]
    random = Quantity.missing("no random directions")
    if falls:
        random = Quantity(float(np.mean(falls)), *wilson(sum(falls), len(falls))[1:], n=len(falls))
    if alpha > limits.near_cliff:
        return Cliff("none", alpha, direction, random)
    if any(falls):
        return Cliff("steep all round", alpha, direction, random)
    return Cliff("cliff" if alpha <= limits.cliff else "near", alpha, direction, random)


def falls_at(lines: Mapping[str, ArrayLike], alphas: ArrayLike, center: ArrayLike, random_return: float) -> FloatArray:
    """The smallest ``|alpha|`` at which the return halves, of each line to either side; infinite where it does not.

    Returns:
        ``(2 L,)``.
    """
    multiples = np.asarray(alphas, dtype=np.float64)
    fallen = [falls_by_half(returns, center, random_return) for returns in lines.values()]
    return np.array([_first(sign * multiples, row) for row in fallen for sign in (1, -1)])


def _first(multiples: FloatArray, fallen: BoolArray) -> float:
    """The smallest positive multiple at which the return has fallen."""
    return float(min(multiples[fallen & (multiples > 0)], default=np.inf))
