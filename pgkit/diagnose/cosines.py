"""Whether batches agree: cosines of the gradients of all pairs of batches (Ilyas et al. 2018, arXiv 1811.02553).

Isotropic noise puts them around 1 / (1 + NSR). Humps at -1 and 1 mean that most of the noise lies along one direction.
"""

import numpy as np
from numpy.typing import ArrayLike

from pgkit.diagnose.noise import gram
from pgkit.diagnose.results import Row

BINS = 40
"""Bins of the histogram, from -1 to 1."""


def cosine_histogram(gradients: ArrayLike) -> list[Row]:
    """Count the pairs of batches by the cosine of their gradients: rows with both ends of a bin, and its pairs.

    Gradients that are zero have no direction and are left out; so are empty bins. There are no rows if a gradient is
    not finite.

    >>> cosine_histogram([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    [{'low': 0.0, 'high': 0.05, 'count': 2}, {'low': 0.95, 'high': 1.0, 'count': 1}]

    Args:
        gradients: ``(M, D)``, of one network, M independent batches.
    """
    products = gram(gradients)
    lengths = np.sqrt(np.diagonal(products))
    if not np.isfinite(products).all():
        return []
    pairs = np.triu(np.outer(lengths, lengths), 1)
    cosines = products[pairs > 0] / pairs[pairs > 0]
    edges = np.linspace(-1.0, 1.0, BINS + 1).round(2)
    counts, _ = np.histogram(cosines.clip(-1.0, 1.0), edges)
    rows = zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
    return [{"low": low, "high": high, "count": count} for low, high, count in rows if count]
