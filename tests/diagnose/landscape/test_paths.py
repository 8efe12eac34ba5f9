"""Barriers, on functions whose saddles, maxima and minima are known."""

import numpy as np
import pytest
from scipy import optimize

from pgkit.diagnose.landscape.paths import barrier, chord, path_coordinates
from pgkit.stats import t_interval


def product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """J of one state with logit x y, whose reward is the action: a saddle at 0."""
    return 1 / (1 + np.exp(-x * y))


def along(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Exact returns ``(21, 2)`` on the straight path."""
    places = start + path_coordinates() * (end - start)
    return np.repeat(product(*places.T)[:, None], 2, axis=1)


def test_the_barrier_between_both_sides_of_a_saddle() -> None:
    a = np.array([2.0, 2.0])
    dip = barrier(along(-a, a))
    assert dip.at == 0.5
    assert dip.depth.value == pytest.approx(0.482014, abs=5e-7)
    assert dip.depth.value == pytest.approx(1 / (1 + np.exp(-4)) - 0.5, abs=1e-12)
    assert (dip.depth.low, dip.depth.high) == pytest.approx((dip.depth.value, dip.depth.value), abs=1e-12)


def test_every_path_between_both_sides_crosses_one_half() -> None:
    """x y changes its sign where x or y does: no way round the saddle stays above J = .5."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        middle = rng.normal(scale=3, size=(3, 2))
        corners = np.concatenate([[[2.0, 2.0]], middle, [[-2.0, -2.0]]])
        t = np.linspace(0, 1, 20_001)
        places = np.stack([np.interp(t, np.linspace(0, 1, 5), column) for column in corners.T])
        assert product(*places).min() <= 0.5 + 1e-3


def test_there_is_no_barrier_on_one_side() -> None:
    dip = barrier(along(np.array([1.0, 1.0]), np.array([2.0, 2.0])))
    assert dip.depth.value < 0
    assert 0 < dip.at < 1


HILLS = ((1.0, -1.0), (2.0, 2.0))


def two_hills(mean: np.ndarray, sigma: float, order: int = 0) -> np.ndarray:
    """J of a Gaussian policy, reward exp(-2 (a + 1)^2) + 2 exp(-2 (a - 2)^2), or its second derivative."""
    v = 0.25 + sigma**2
    total = np.zeros_like(np.asarray(mean, dtype=np.float64))
    for height, peak in HILLS:
        hill = height * 0.5 / np.sqrt(v) * np.exp(-((mean - peak) ** 2) / (2 * v))
        total += hill if order == 0 else hill * ((mean - peak) ** 2 / v**2 - 1 / v)
    return total


@pytest.mark.parametrize(
    ("sigma", "place", "value", "curvature"),
    [
        (0.5, -0.99926, 0.707282, -1.4083),
        (0.5, 1.99981, 1.414301, -2.8255),
        (0.5, 0.35133, 0.207211, 1.4322),
        (1.0, -0.69176, 0.479838, None),
        (1.0, -0.23697, None, None),
        (1.0, 1.95503, 0.907305, None),
        (1.5, 1.67289, None, None),
    ],
)
def test_maxima_and_minima_of_two_hills(
    sigma: float, place: float, value: float | None, curvature: float | None
) -> None:
    stationary = optimize.brentq(
        lambda m: two_hills(m + 1e-5, sigma) - two_hills(m - 1e-5, sigma), place - 0.05, place + 0.05
    )
    assert stationary == pytest.approx(place, abs=2e-5)
    if value is not None:
        assert two_hills(place, sigma) == pytest.approx(value, abs=1e-6)
    if curvature is not None:
        assert two_hills(place, sigma, order=2) == pytest.approx(curvature, abs=2e-4)


def test_entropy_removes_the_local_optimum_and_the_barrier() -> None:
    """Ahmed et al. 2019: with sigma 1.5 there is one maximum, and no barrier between the former two."""
    t = path_coordinates(201)

    def dip(sigma: float) -> float:
        line = two_hills(-0.99926 + t * (1.99981 + 0.99926), sigma)
        return barrier(np.repeat(line, 2, axis=1)).depth.value

    grid = np.linspace(-4, 5, 9_001)
    maxima = {sigma: int((np.diff(np.sign(np.diff(two_hills(grid, sigma)))) < 0).sum()) for sigma in (0.5, 1.0, 1.5)}
    assert maxima == {0.5: 2, 1.0: 2, 1.5: 1}
    expected = 0.707282 + (0.35133 + 0.99926) / (1.99981 + 0.99926) * (1.414301 - 0.707282) - 0.207211
    assert dip(0.5) == pytest.approx(expected, abs=0.02)
    assert dip(0.5) > dip(1.0)
    assert dip(1.5) < 0.05


def test_the_interval_pairs_episodes_and_holds_for_all_points_at_once() -> None:
    rng = np.random.default_rng(0)
    luck = rng.normal(scale=100, size=30)  # what all policies share cancels
    noise = rng.normal(size=(21, 30))
    returns = 500 + luck + noise
    returns[10] -= 50
    dip = barrier(returns)
    straight = chord(returns, path_coordinates())
    deepest = (straight - returns)[10]
    assert dip.at == 0.5
    assert dip.depth.value == pytest.approx(deepest.mean())
    narrow = t_interval(deepest)
    assert dip.depth.low < narrow.low < narrow.high < dip.depth.high
    assert dip.depth.high - dip.depth.low < 3


def test_one_point_between_the_ends_is_needed() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        barrier([[1.0, 1.0], [2.0, 2.0]])
