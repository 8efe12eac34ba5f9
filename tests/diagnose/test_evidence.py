"""Intervals of curvatures, differences of the return, and words."""

import math

import numpy as np
import pytest

from pgkit.diagnose.evidence import (
    choose_step,
    curvature_by_differences,
    curvature_words,
    mean_quantity,
    slope_by_differences,
)
from pgkit.diagnose.results import Quantity

UP = Quantity(2.0, 1.0, 3.0, 9)
DOWN = Quantity(-2.0, -3.0, -1.0, 9)
FLAT = Quantity(0.0, -1.0, 1.0, 9)
MISSING = Quantity.missing("not measured")


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_interval_of_a_mean() -> None:
    """By hand: mean 2, standard error 1/sqrt(3), t_{2, .975} = 4.302653; for 5 looks t_{2, .995} = 9.924843."""
    quantity = mean_quantity([1.0, 2.0, 3.0])
    assert quantity.n == 3
    assert (quantity.low, quantity.high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    many = mean_quantity([1.0, 2.0, 3.0], looks=5)
    assert many.high == pytest.approx(2 + 9.924843 / 3**0.5)
    assert np.isnan(mean_quantity([1.0]).low)


def test_differences_with_common_random_numbers() -> None:
    """J = sigmoid(x y) at (1, 2) along (1, 1); an episode pays 1 where its uniform number is below J."""
    uniform = np.random.default_rng(0).random(200_000)
    h = 0.25

    def returns(alpha: float) -> np.ndarray:
        return (uniform < sigmoid((1 + alpha) * (2 + alpha))).astype(float)

    plus, minus, center = returns(h), returns(-h), returns(0.0)
    slope = slope_by_differences(plus, minus, h)
    assert slope.low < (sigmoid(1.25 * 2.25) - sigmoid(0.75 * 1.75)) / (2 * h) < slope.high
    curvature = curvature_by_differences(plus, minus, center, h)
    exact = (sigmoid(1.25 * 2.25) + sigmoid(0.75 * 1.75) - 2 * sigmoid(2.0)) / h**2
    assert curvature.low < exact < curvature.high
    assert curvature.excludes(0.0)
    independent = np.random.default_rng(1).permutation(center)  # without common numbers
    assert curvature.high - curvature.low < 0.7 * np.ptp(curvature_by_differences(plus, minus, independent, h)[1:3])


def test_returns_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one shape \(E,\)"):
        curvature_by_differences([1.0, 2.0], [1.0, 2.0], [1.0], h=1.0)


@pytest.mark.parametrize("initial", [1e-6, 0.3, 1e5])
def test_chosen_step_changes_the_return_by_1_to_10_percent(initial: float) -> None:
    def change(h: float) -> float:
        return 1 - math.exp(-((7 * h) ** 2))

    h = choose_step(change, initial)
    assert h is not None
    assert 0.01 <= change(h) <= 0.1


def test_no_step_where_the_return_does_not_change_or_jumps() -> None:
    assert choose_step(lambda h: 0.0, initial=1.0) is None
    assert choose_step(lambda h: float(h > 3.0), initial=1.0) is None


def words(top: Quantity, bottom: Quantity, **others: object) -> str:
    arguments = {"curvatures": [FLAT] * 26, "slopes": [FLAT] * 27, "odd": FLAT, "gradient_resolved": False, "rope": 2.0}
    return curvature_words(top, bottom, **(arguments | others))  # type: ignore[arg-type]


def test_words() -> None:
    assert words(UP, DOWN) == "saddle"
    assert words(UP, DOWN, gradient_resolved=True) == "indefinite"
    assert words(UP, DOWN, rope=0.5) == "indefinite"
    assert words(UP, DOWN, odd=MISSING) == "indefinite"
    assert words(FLAT, DOWN) == "like a local optimum"
    assert words(DOWN, DOWN, curvatures=[DOWN] * 26) == "like a local optimum"
    assert words(FLAT, DOWN, curvatures=[FLAT] * 25 + [UP]) == "not resolved"
    assert words(FLAT, DOWN, slopes=[FLAT, DOWN]) == "not resolved"
    assert words(UP, UP) == "not resolved"


def test_nothing_is_said_where_nothing_was_measured() -> None:
    assert words(FLAT, FLAT) == "not resolved"
    assert words(MISSING, DOWN) == "not resolved"
    assert words(UP, MISSING) == "not resolved"
    assert words(FLAT, DOWN, slopes=[FLAT, MISSING]) == "not resolved"
