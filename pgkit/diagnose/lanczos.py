"""Extreme eigenvectors of a symmetric matrix that is known by its products with vectors alone."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""``v (D,) -> A v (D,)`` for a symmetric A."""

_BREAKDOWN = 1e-10
"""Below this share of the largest coefficient, what is left of a vector is rounding: the subspace is invariant."""


class RitzPairs(NamedTuple):
    """Approximate eigenvalues in ascending order, and their vectors.

    Attributes:
        values: ``(K,)`` float64. Of a matrix that was *estimated* they are no estimates of its eigenvalues: noise alone
            spreads them. Measure the curvature along the vectors on fresh data instead.
        vectors: ``(K, D)`` float64, orthonormal rows.
    """

    values: Tensor
    vectors: Tensor


def lanczos(product: Product, start: Tensor, steps: int) -> RitzPairs:
    """Approximate both ends of the spectrum by Lanczos iteration with full reorthogonalisation.

    Source: Golub and Van Loan 2013, "Matrix Computations", section 10.1; Parlett 1998 on reorthogonalisation.

    >>> diagonal = torch.tensor([-5.0, 0.0, 0.1, 3.0], dtype=torch.float64)
    >>> lanczos(lambda v: diagonal * v, torch.ones(4, dtype=torch.float64), steps=4).values[[0, -1]].round(decimals=6)
    tensor([-5.,  3.], dtype=torch.float64)

    Args:
        product: ``v -> A v``, called once a step with a unit vector.
        start: ``(D,)``, which should have a part along the vectors that are looked for: a random one.
        steps: at most this many products; fewer if the subspace is invariant before, and never more than D.

    Returns:
        K pairs, one for each product.

    Raises:
        ValueError: the start is 0 or not ``(D,)``, no steps, or a product is not finite.
    """
    start = start.double()
    if start.dim() != 1 or not start.norm() > 0 or steps < 1:
        raise ValueError(f"expected a start (D,) that is not 0 and steps >= 1, got {tuple(start.shape)} and {steps}")
    basis = (start / start.norm()).unsqueeze(0)
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(steps, len(start))):
        image = product(basis[-1]).double()
        if not image.isfinite().all():
            raise ValueError("a product with a vector is not finite")
        diagonal.append(float(basis[-1] @ image))
        for _ in range(2):  # once is not enough where cancellation is severe
            image = image - basis.T @ (basis @ image)
        beside.append(float(image.norm()))
        if beside[-1] <= _BREAKDOWN * max(map(abs, diagonal + beside)):
            break
        basis = torch.cat([basis, (image / image.norm()).unsqueeze(0)])
    count = len(diagonal)
    off = torch.tensor(beside[: count - 1], dtype=torch.float64)
    tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + torch.diag(off, 1) + torch.diag(off, -1)
    values, rotation = torch.linalg.eigh(tridiagonal)
    return RitzPairs(values.to(basis.device), rotation.T.to(basis.device) @ basis[:count])


def largest_magnitudes(pairs: RitzPairs, count: int) -> RitzPairs:
    """Select the pairs with the ``count`` largest ``|value|``, largest first; all if there are fewer.

    >>> pairs = RitzPairs(torch.tensor([-3.0, 1.0, 2.0]), torch.eye(3))
    >>> largest_magnitudes(pairs, 2).values
    tensor([-3.,  2.])
    """
    order = pairs.values.abs().argsort(descending=True)[:count]
    return RitzPairs(pairs.values[order], pairs.vectors[order])


def subspace_share(vectors: Tensor, first: Tensor, second: Tensor) -> float:
    """Compute the share of the squared gradient in a subspace, ``(P g_A).(P g_B) / (g_A.g_B)``.

    g_A and g_B are gradients of independent halves: with one of them in both places, their noise would count as
    gradient. Both must be independent of the data that the vectors were computed from, or the share is too high, above
    all if a gradient was the start of the iteration. By chance it is K / D.

    Source: Schneider et al. 2024 (arXiv 2401.06604), S_frac; with halves instead of one gradient.

    >>> axes = torch.eye(4, dtype=torch.float64)
    >>> gradient = torch.tensor([3.0, 4.0, 0.0, 0.0], dtype=torch.float64)
    >>> subspace_share(axes[:1], gradient, gradient)
    0.36

    Args:
        vectors: ``(K, D)``, orthonormal rows.
        first: ``(D,)``, g_A.
        second: ``(D,)``, g_B.

    Returns:
        The share; NaN where ``g_A.g_B`` is not positive: then the gradient is not resolved.
    """
    whole = float(first.double() @ second.double())
    inside = float((vectors.double() @ first.double()) @ (vectors.double() @ second.double()))
    return inside / whole if whole > 0 else float("nan")
