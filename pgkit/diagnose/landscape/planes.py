"""Planes in parameter space: where they lie, which part of training they show, and how far they reach."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pgkit.stats.samples import FloatArray

MARGIN = 0.2
"""Of the extent of a trajectory, which a picture of it shows around it."""

FARTHEST = 64.0
"""In lengths of an update: how far other planes reach at most."""


class Plane(NamedTuple):
    """Two orthogonal directions through a policy.

    Attributes:
        axes: float64 ``(2, D)``, of length 1 and orthogonal.
        variance_shares: ``(2,)``, share of the variance of the checkpoints in each principal component; empty where the
            plane was not made from checkpoints.
    """

    axes: Tensor
    variance_shares: tuple[float, ...] = ()


class Projection(NamedTuple):
    """Points of parameter space as a plane shows them.

    Attributes:
        coordinates: ``(C, 2)``, of their shadows, from the center.
        distances: ``(C,)``, from the plane.
    """

    coordinates: FloatArray
    distances: FloatArray


def trajectory_plane(checkpoints: Tensor) -> Plane:
    """The plane of the first two principal components of checkpoints.

    Components are those of the deviations from the mean. A random walk in high dimension has 6/(pi^2 k^2) of its
    variance in component k: .608 and .152 (Antognini and Sohl-Dickstein 2018, arXiv 1806.08805), so large shares say
    nothing. Signs are such that training begins at the lower left.

    >>> corner = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [2.0, 1.0, 0.0]])
    >>> plane = trajectory_plane(corner)
    >>> bool(torch.allclose(plane.axes @ plane.axes.T, torch.eye(2).double())), round(sum(plane.variance_shares), 6)
    (True, 1.0)

    Args:
        checkpoints: ``(C, D)``, in order of time, C at least 3.

    Raises:
        ValueError: they lie on one line, or are fewer than 3.
    """
    points = checkpoints.double()
    deviations = points - points.mean(0)
    squares, vectors = torch.linalg.eigh(deviations @ deviations.T)  # (C, C): C is small, D is not
    if len(points) < 3 or not squares[-2] > 1e-12 * squares[-1]:
        raise ValueError("expected at least 3 checkpoints that do not lie on one line")
    axes = vectors[:, [-1, -2]].T @ deviations
    axes, _ = torch.linalg.qr(axes.T)  # of length 1, and orthogonal to the last bits
    starts = (points[0] - points[-1]) @ axes
    axes = axes.T * torch.where(starts > 0, -1.0, 1.0)[:, None]
    shares = squares[[-1, -2]] / squares.sum()
    return Plane(axes, tuple(shares.tolist()))


def plane_of(first: Tensor, second: Tensor) -> Plane:
    """The plane of two directions: the first, and the part of the second that is orthogonal to it.

    >>> plane_of(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0])).axes
    tensor([[1., 0.],
            [0., 1.]], dtype=torch.float64)

    Args:
        first: ``(D,)``.
        second: ``(D,)``.

    Raises:
        ValueError: they are parallel, or one is 0.
    """
    x = first.double()
    x = x / x.norm()
    y = second.double()
    rest = y - (y @ x) * x
    if not rest.norm() > 1e-9 * y.norm():
        raise ValueError("expected two directions that are not parallel")
    return Plane(torch.stack([x, rest / rest.norm()]))


def project(plane: Plane, center: Tensor, points: Tensor) -> Projection:
    """Project points ``(C, D)`` on a plane through a center ``(D,)``."""
    offsets = points.double() - center.double()
    coordinates = offsets @ plane.axes.T
    return Projection(coordinates.numpy(), (offsets - coordinates @ plane.axes).norm(dim=1).numpy())


def trajectory_grid(coordinates: ArrayLike, count: int) -> tuple[FloatArray, FloatArray]:
    """The x ``(count,)`` and y ``(count,)`` of a square grid around a trajectory, with the center on a node.

    The square is as large as the larger extent and 20 % of it on each side. It is moved by less than a cell, so that
    the center itself, the policy that the picture is about, is played.

    >>> x, y = trajectory_grid([[-10.0, 1.0], [-4.0, 4.0], [0.0, 0.0]], 21)
    >>> round(float(x[1] - x[0]), 6), bool(0.0 in x and 0.0 in y)
    (0.7, True)

    Args:
        coordinates: ``(C, 2)`` from the center.
        count: points along each side, odd.
    """
    low, high = np.min(coordinates, axis=0), np.max(coordinates, axis=0)
    half = (0.5 + MARGIN) * float(np.max(high - low))
    cell = 2 * half / (count - 1)
    middles = np.round((low + high) / 2 / cell)
    nodes = np.arange(count) - count // 2
    return (nodes + middles[0]) * cell, (nodes + middles[1]) * cell


def centered_grid(span: float, count: int) -> tuple[FloatArray, FloatArray]:
    """The same from ``-span`` to ``span``.

    >>> centered_grid(2.0, 5)[0]
    array([-2., -1.,  0.,  1.,  2.])
    """
    nodes = np.linspace(-1, 1, count) * span
    nodes[count // 2] = 0.0
    return nodes, nodes


def span_of_falls(falls: ArrayLike) -> float:
    """How far a plane reaches, in lengths of an update: as far as the return has fallen by half on all sides.

    >>> span_of_falls([2.0, 16.0]), span_of_falls([2.0, np.inf])
    (16.0, 64.0)

    Args:
        falls: where the return has halved along each axis to either side, see
            :func:`pgkit.diagnose.landscape.lines.falls_at`.
    """
    return min(FARTHEST, float(np.max(falls)))


def grid_coordinates(x: FloatArray, y: FloatArray) -> FloatArray:
    """The nodes ``(len(y) * len(x), 2)`` of a grid, row by row."""
    columns, rows = np.meshgrid(x, y)
    return np.stack([columns.ravel(), rows.ravel()], 1)
