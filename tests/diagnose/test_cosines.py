"""Cosines of the gradients of all pairs of batches."""

import numpy as np
import pytest

from pgkit.diagnose.cosines import cosine_histogram
from pgkit.diagnose.noise import gram, pairwise_cosine


def test_every_pair_is_counted_once_around_the_mean_cosine() -> None:
    gradients = np.random.default_rng(0).normal(0.3, 1.0, (20, 50))
    rows = cosine_histogram(gradients)
    counts = [row["count"] for row in rows]
    assert sum(counts) == 20 * 19 / 2
    middles = [(row["low"] + row["high"]) / 2 for row in rows]
    mean = np.average(middles, weights=counts)
    assert mean == pytest.approx(pairwise_cosine(gram(gradients)).value, abs=0.01)
    assert len(rows) > 5


def test_noise_along_one_direction_has_humps_at_both_ends() -> None:
    sizes = np.array([1.0, -2.0, 3.0, -4.0, 5.0])
    rows = cosine_histogram(np.outer(sizes, [1.0, 2.0]))
    assert [(row["low"], row["high"], row["count"]) for row in rows] == [(-1.0, -0.95, 6), (0.95, 1.0, 4)]


def test_gradients_without_direction_are_left_out_and_others_that_are_not_finite_give_nothing() -> None:
    assert [row["count"] for row in cosine_histogram([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])] == [1]
    assert cosine_histogram([[np.nan, 0.0], [1.0, 0.0]]) == []
    assert cosine_histogram(np.zeros((4, 2))) == []


@pytest.mark.parametrize("scale", [1e-150, 1e-12, 1e12])
def test_lengths_do_not_matter(scale: float) -> None:
    gradients = np.random.default_rng(1).normal(size=(8, 3))
    assert cosine_histogram(gradients * scale) == cosine_histogram(gradients)
