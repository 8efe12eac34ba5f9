"""What measured curvatures say: intervals, differences of the return, and words for them."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from pgkit.diagnose.results import Quantity
from pgkit.stats import LEVEL, t_interval
from pgkit.stats.samples import FloatArray

CurvatureWords = Literal["indefinite", "saddle", "like a local optimum", "not resolved"]

RANDOM_DIRECTIONS = 25
"""How many random directions are looked at before a point is called like a local optimum."""

_TRIES = 20
"""How often a step is changed before it is given up; each changes it at least by a factor of sqrt(2)."""


def mean_quantity(values: ArrayLike, looks: int = 1) -> Quantity:
    """The mean of independent numbers with its t interval, at 95 %.

    >>> mean_quantity([1.0, 2.0, 3.0]).value
    2.0

    Args:
        values: ``(E,)``, one number of each episode.
        looks: how many intervals are to hold all at once, with probability 95 % (Bonferroni): for many directions.

    Raises:
        ValueError: not ``(E,)``, or a number that is not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    low, high = t_interval(sample, 1 - (1 - LEVEL) / looks)
    return Quantity(float(sample.mean()), low, high, len(sample))


def slope_by_differences(plus: ArrayLike, minus: ArrayLike, h: float, looks: int = 1) -> Quantity:
    """Slope of the return along v, ``[J(theta + h v) - J(theta - h v)] / 2h``, with common random numbers.

    Arguments and errors as :func:`curvature_by_differences`.
    """
    after, before = _paired(plus, minus)
    return mean_quantity((after - before) / (2 * h), looks)


def curvature_by_differences(
    plus: ArrayLike, minus: ArrayLike, center: ArrayLike, h: float, looks: int = 1
) -> Quantity:
    """Curvature of the return along v, ``[J(theta + h v) + J(theta - h v) - 2 J(theta)] / h^2``.

    Episode i has the same random numbers for all three parameters. The difference is taken for each episode first, so
    that what they share drops out; then comes a t interval over episodes. It is right for a small h: where it differs
    from :func:`pgkit.diagnose.curvature.directional_derivatives`, h is too large.

    >>> curvature_by_differences([1.0, 3.0], [1.0, 3.0], [2.0, 4.0], h=0.5).value
    -8.0

    Args:
        plus: ``(E,)``, returns of the episodes with ``theta + h v``.
        minus: ``(E,)``, with ``theta - h v``.
        center: ``(E,)``, with theta.
        h: in units of v, above 0.
        looks: as of :func:`mean_quantity`.

    Raises:
        ValueError: the arrays are not ``(E,)`` of one length, or hold a number that is not finite.
    """
    after, before, at = _paired(plus, minus, center)
    return mean_quantity((after + before - 2 * at) / h**2, looks)


def choose_step(
    change: Callable[[float], float], initial: float, low: float = 0.01, high: float = 0.1, tries: int = _TRIES
) -> float | None:
    """Choose h so that the return changes by 1 to 10 %.

    Steps grow or shrink by a factor of 4 until one changes too little and another too much, then by halving the
    interval between them in log h.

    >>> choose_step(lambda h: h * h, initial=1.0)
    0.25

    Args:
        change: ``h -> `` the relative change of the return, at least 0: the larger one of ``|J(theta + h v) - J|`` and
            ``|J(theta - h v) - J|``, over ``|J|``.
        initial: the first h, above 0.
        low: the smallest change.
        high: the largest.
        tries: at most so many calls of ``change``.

    Returns:
        h; None if no step was right: the return does not change, or it jumps.
    """
    too_small = 0.0
    too_large = float("inf")
    h = initial
    for _ in range(tries):
        size = change(h)
        if low <= size <= high:
            return h
        if size < low:
            too_small = h
        else:
            too_large = h
        bracketed = too_small > 0 and too_large < float("inf")
        h = float(np.sqrt(too_small * too_large)) if bracketed else h * (4.0 if size < low else 0.25)
    return None


def curvature_words(
    top: Quantity,
    bottom: Quantity,
    curvatures: Sequence[Quantity],
    slopes: Sequence[Quantity],
    odd: Quantity,
    gradient_resolved: bool,
    rope: float,
) -> CurvatureWords:
    """Say in words what the curvature of J is like at a point.

    - indefinite: ``top`` curves up and ``bottom`` down, both intervals exclude 0;
    - saddle: indefinite, the gradient is not resolved, and the mean update changes the return by less than ``rope``;
    - like a local optimum: ``bottom`` curves down, and neither ``top`` nor the gradient nor a random direction is
      resolved to curve up, nor is any slope resolved. Where nothing at all is resolved, this is not said.

    >>> up, down, flat = Quantity(2.0, 1.0, 3.0, 9), Quantity(-2.0, -3.0, -1.0, 9), Quantity(0.0, -1.0, 1.0, 9)
    >>> curvature_words(up, down, [flat] * 26, [flat] * 27, flat, gradient_resolved=False, rope=2.0)
    'saddle'
    >>> curvature_words(flat, down, [flat] * 26, [flat] * 27, flat, gradient_resolved=False, rope=2.0)
    'like a local optimum'

    Args:
        top: v'Hv of the most positive direction, on fresh episodes.
        bottom: the same of the most negative one.
        curvatures: of the gradient and of 25 random directions. With ``looks`` of :func:`mean_quantity` equal to their
            number, chance alone rarely bends one up.
        slopes: of all these directions.
        odd: what the mean update gains to first order, in units of the return.
        gradient_resolved: whether ``|G|^2`` differs from 0 (section A of the diagnosis, p of the sign flips).
        rope: the change of the return that does not matter, in the same units.
    """
    if top.low > 0 and bottom.high < 0:
        is_flat = not gradient_resolved and -rope < odd.low and odd.high < rope
        return "saddle" if is_flat else "indefinite"
    none_up = all(curvature.low <= 0 for curvature in (top, *curvatures))  # False for NaN: a missing number is no proof
    if bottom.high < 0 and none_up and all(slope.low <= 0 <= slope.high for slope in slopes):
        return "like a local optimum"
    return "not resolved"


def _paired(*columns: ArrayLike) -> list[FloatArray]:
    """Arrays ``(E,)`` of one length, float64."""
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    if any(array.ndim != 1 or array.shape != arrays[0].shape for array in arrays):
        raise ValueError(f"expected returns of one shape (E,), got {', '.join(str(array.shape) for array in arrays)}")
    return arrays
