"""Extreme eigenvectors by products, and what noise does to them."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pgkit.diagnose.evidence import mean_quantity
from pgkit.diagnose.lanczos import RitzPairs, lanczos, largest_magnitudes, subspace_share


def test_eight_steps_find_both_ends() -> None:
    diagonal = torch.cat([torch.tensor([-5.0, 3.0]), torch.linspace(-0.5, 0.5, 98)]).double()
    start = torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = lanczos(lambda v: diagonal * v, start, steps=8)
    assert pairs.vectors.shape == (8, 100)
    assert pairs.values[[0, -1]].tolist() == pytest.approx([-5.0, 3.0], abs=1e-6)
    assert pairs.vectors[0, 0].abs() == pytest.approx(1.0, abs=1e-6)
    assert pairs.vectors[-1, 1].abs() == pytest.approx(1.0, abs=1e-6)


def test_as_many_steps_as_dimensions_give_the_whole_spectrum() -> None:
    draws = torch.Generator().manual_seed(0)
    root = torch.randn(30, 30, generator=draws, dtype=torch.float64)
    matrix = root + root.T
    pairs = lanczos(lambda v: matrix @ v, torch.randn(30, generator=draws), steps=100)
    torch.testing.assert_close(pairs.values, torch.linalg.eigvalsh(matrix))
    torch.testing.assert_close(pairs.vectors @ pairs.vectors.T, torch.eye(30, dtype=torch.float64))
    torch.testing.assert_close(pairs.vectors @ matrix, pairs.values[:, None] * pairs.vectors)


def test_an_invariant_subspace_ends_the_iteration() -> None:
    diagonal = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    pairs = lanczos(lambda v: diagonal * v, torch.tensor([1.0, 1.0, 0.0, 0.0]), steps=4)
    assert pairs.values.tolist() == pytest.approx([1.0, 2.0])
    zero = lanczos(torch.zeros_like, torch.ones(4), steps=4)
    assert zero.values.tolist() == [0.0]


def test_bad_starts_and_products_are_refused() -> None:
    with pytest.raises(ValueError, match="that is not 0"):
        lanczos(lambda v: v, torch.zeros(3), steps=2)
    with pytest.raises(ValueError, match="not finite"):
        lanczos(lambda v: v * torch.nan, torch.ones(3), steps=2)


def test_share_of_the_gradient_in_the_top_subspace() -> None:
    pairs = RitzPairs(torch.tensor([-5.0, 0.1, 3.0]).double(), torch.eye(5, dtype=torch.float64)[:3])
    top = largest_magnitudes(pairs, 2)
    assert top.values.tolist() == [-5.0, 3.0]
    first = torch.tensor([1.0, 1.0, 2.0, 0.0, 0.0])
    second = torch.tensor([2.0, 2.0, 1.0, 5.0, 0.0])
    assert subspace_share(top.vectors, first, second) == pytest.approx(4 / 6)
    assert np.isnan(subspace_share(top.vectors, first, -second))


def test_halves_take_the_noise_out_of_the_share() -> None:
    """A gradient in the subspace, noise everywhere: one estimate in both places gives less than the true share 1."""
    draws = np.random.default_rng(0)
    truth = np.zeros(200)
    truth[0] = 1.0
    subspace = torch.eye(200, dtype=torch.float64)[:10]
    noisy = torch.from_numpy(truth + 0.1 * draws.normal(size=(400, 2, 200)))
    halves = [subspace_share(subspace, a, b) for a, b in noisy]
    single = [subspace_share(subspace, a, a) for a, _ in noisy]
    assert np.mean(halves) == pytest.approx(1.0, abs=0.02)
    assert np.mean(single) < 0.5


def test_noise_alone_spreads_ritz_values_and_not_fresh_curvatures() -> None:
    """H = 0, H_i = r (e e' - I), D = 20, n = 500: extremes .376 and -.380, sd .046; on fresh samples -.001 +- .062."""
    draws = np.random.default_rng(0)
    ends = []
    fresh = []
    covered = []
    for _ in range(200):
        matrix = torch.from_numpy(plug_in(draws))
        pairs = lanczos(lambda v, matrix=matrix: matrix @ v, torch.from_numpy(draws.normal(size=20)), steps=20)
        ends.append(pairs.values[[0, -1]].tolist())
        r, e = sample(draws)
        quantity = mean_quantity(r * ((e @ pairs.vectors[-1].numpy()) ** 2 - 1))
        fresh.append(quantity.value)
        covered.append(quantity.low <= 0 <= quantity.high)
    bottom, top = np.array(ends).T
    # Four standard errors of 200 replications.
    assert top.mean() == pytest.approx(0.376, abs=0.013)
    assert bottom.mean() == pytest.approx(-0.380, abs=0.013)
    assert top.std() == pytest.approx(0.046, abs=0.010)
    assert np.mean(fresh) == pytest.approx(0.0, abs=0.018)
    assert np.std(fresh) == pytest.approx(0.062, abs=0.013)
    assert np.mean(covered) > 0.89


def sample(draws: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """r ``(n,)`` and e ``(n, D)``: returns without meaning, and scores of a Gaussian policy."""
    return draws.normal(size=500), draws.normal(size=(500, 20))


def plug_in(draws: np.random.Generator) -> NDArray[np.float64]:
    r, e = sample(draws)
    return (e.T * r) @ e / len(r) - r.mean() * np.eye(20)
