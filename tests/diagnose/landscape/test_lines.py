"""Lines and cliffs, on returns that are known."""

import numpy as np
import pytest
import torch

from pgkit.diagnose.landscape.lines import (
    ALPHAS,
    band,
    falls_at,
    falls_by_half,
    find_cliff,
    line_coordinates,
    split_lines,
)
from pgkit.stats import t_interval

FLAT = np.full((len(ALPHAS), 2), 500.0)


def exact(returns: np.ndarray) -> np.ndarray:
    """Two equal episodes ``(K, 2)``: the interval is the point."""
    return np.repeat(returns[:, None], 2, axis=1)


def step_down(at: float) -> np.ndarray:
    """J = 500 / (1 + exp(5 (alpha - at)))."""
    return exact(500 / (1 + np.exp(5 * np.clip(ALPHAS - at, -100, 100))))


def center_of(line: np.ndarray) -> np.ndarray:
    return line[ALPHAS == 0][0]


def test_multiples_of_an_update_are_those_of_both_signs() -> None:
    positive = [0.25, 0.5, 1, 2, 4, 8, 16, 32, 64]
    assert ALPHAS.tolist() == [*[-x for x in positive[::-1]], 0, *positive]


def test_the_cliff_of_the_reference_line_is_near_at_four() -> None:
    line = step_down(3)
    cliff = find_cliff({"mean_update": line, "random-1": FLAT}, ALPHAS, center_of(line))
    assert cliff[:3] == ("near", 4.0, "mean_update")
    assert cliff.random.value == 0
    assert cliff.random.n == 1


@pytest.mark.parametrize(
    ("at", "word", "alpha"),
    [(0.4, "cliff", 0.5), (0.7, "cliff", 1.0), (1.5, "near", 2.0), (6, "near", 8.0), (10, "none", 16.0)],
)
def test_words_depend_on_how_far_it_is(at: float, word: str, alpha: float) -> None:
    line = step_down(at)
    cliff = find_cliff({"gradient": line, "random-1": FLAT}, ALPHAS, center_of(line))
    assert (cliff.word, cliff.alpha, cliff.direction) == (word, alpha, "gradient")


def test_the_nearest_of_mean_update_and_gradient_counts_and_no_other_direction() -> None:
    lines = {"mean_update": step_down(6), "gradient": step_down(1.5), "update-1": step_down(0.3), "top": step_down(0.3)}
    assert find_cliff(lines, ALPHAS, FLAT[0])[1:3] == (2.0, "gradient")
    assert find_cliff({"update-1": step_down(0.3)}, ALPHAS, FLAT[0]).word == "none"


def test_what_falls_behind_the_policy_is_no_cliff() -> None:
    behind = step_down(3)[::-1]
    cliff = find_cliff({"gradient": behind}, ALPHAS, center_of(step_down(3)))
    assert cliff.word == "none"
    assert np.isinf(cliff.alpha)


@pytest.mark.parametrize("sign", [1, -1])
def test_where_random_directions_fall_either_way_it_is_steep_all_round(sign: int) -> None:
    line = step_down(3)
    cliff = find_cliff({"gradient": line, "random-1": FLAT, "random-2": line[::sign]}, ALPHAS, center_of(line))
    assert cliff.word == "steep all round"
    assert cliff.random[:1] == (0.5,)
    far = find_cliff({"gradient": line, "random-1": step_down(10)}, ALPHAS, center_of(line))
    assert far.word == "near"  # a random direction that falls farther away does not count


def test_half_is_counted_from_random_actions_and_between_the_limits() -> None:
    center = np.array([100.0, 110.0, 90.0, 100.0])
    low = t_interval(center).low
    falling = np.array([[0.0, 1.0, 2.0, 1.0]]) + (low + 20) / 2
    assert not falls_by_half(falling, center, random_return=20)[0]
    assert falls_by_half(falling - 2.4, center, random_return=20)[0]
    assert not falls_by_half(falling - 2.4, center, random_return=10)[0]


def test_a_policy_no_better_than_random_actions_has_nothing_to_lose() -> None:
    line = exact(np.where(ALPHAS > 0, 0.0, 9.0))
    assert find_cliff({"gradient": line}, ALPHAS, [9.0, 9.0], random_return=22.0).word == "no return to lose"
    assert find_cliff({"gradient": line}, ALPHAS, [9.0, 9.0], random_return=0.0).word == "cliff"
    assert not falls_by_half(line, [9.0, 9.0], random_return=22.0).any()


def test_lines_share_the_center_and_come_back_in_order() -> None:
    directions = torch.eye(2, dtype=torch.float64).numpy()
    places = line_coordinates(2) @ directions
    returns = np.stack([places.sum(1), places[:, 0]], 1)
    lines = split_lines(returns, ["first", "second"])
    np.testing.assert_array_equal(lines["first"], np.stack([ALPHAS, ALPHAS], 1))
    np.testing.assert_array_equal(lines["second"], np.stack([ALPHAS, 0 * ALPHAS], 1))


def test_falls_to_both_sides_of_each_line() -> None:
    lines = {"x": step_down(3), "y": np.minimum(step_down(10), step_down(1.5)[::-1])}
    assert falls_at(lines, ALPHAS, FLAT[0], 0.0).tolist() == [4.0, np.inf, 16.0, 2.0]


def test_bands_are_t_intervals_over_episodes() -> None:
    returns = np.random.default_rng(0).normal(size=(3, 20))
    drawn = band(returns)
    for row, *limits in zip(returns, drawn.low, drawn.high, strict=True):
        assert tuple(limits) == t_interval(row)
    with pytest.raises(ValueError, match="expected returns"):
        band(returns[0])
