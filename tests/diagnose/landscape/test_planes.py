"""Planes: principal components, projections and grids."""

import numpy as np
import pytest
import torch

from pgkit.diagnose.landscape.planes import (
    FARTHEST,
    centered_grid,
    grid_coordinates,
    plane_of,
    project,
    span_of_falls,
    trajectory_grid,
    trajectory_plane,
)


def test_a_random_walk_has_most_of_its_variance_in_two_components() -> None:
    """6 / (pi^2 k^2) in high dimension: .608 and .152; with 20,000 dimensions and 100 points .606 and .153."""
    generator = torch.Generator().manual_seed(0)
    walk = torch.randn(100, 20_000, generator=generator).cumsum(0)
    shares = trajectory_plane(walk).variance_shares
    assert shares == pytest.approx((0.606, 0.153), abs=0.005)
    assert shares == pytest.approx((6 / np.pi**2, 6 / np.pi**2 / 4), abs=0.006)


def test_components_are_those_of_the_deviations_from_the_mean() -> None:
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(12, 7, generator=generator, dtype=torch.float64) + 100
    plane = trajectory_plane(points)
    _, singular, rows = torch.linalg.svd(points - points.mean(0), full_matrices=False)
    overlap = (plane.axes @ rows[:2].T).abs()
    torch.testing.assert_close(overlap, torch.eye(2, dtype=torch.float64))
    assert plane.variance_shares == pytest.approx((singular**2 / (singular**2).sum())[:2].tolist())
    torch.testing.assert_close(plane.axes @ plane.axes.T, torch.eye(2, dtype=torch.float64))
    begin = project(plane, points[-1], points).coordinates[0]
    assert (begin <= 0).all()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_checkpoints_on_a_line_span_no_plane(count: int) -> None:
    line = torch.arange(count, dtype=torch.float64)[:, None] * torch.tensor([[1.0, 2.0, 3.0]])
    with pytest.raises(ValueError, match="do not lie on one line"):
        trajectory_plane(line)
    with pytest.raises(ValueError, match="not lie on one line"):
        trajectory_plane(torch.ones(5, 3))


def test_projection_and_distance_add_up() -> None:
    generator = torch.Generator().manual_seed(2)
    points = torch.randn(9, 20, generator=generator, dtype=torch.float64)
    plane = trajectory_plane(points)
    shadows = project(plane, points[-1], points)
    squares = (shadows.coordinates**2).sum(1) + shadows.distances**2
    np.testing.assert_allclose(squares, ((points - points[-1]) ** 2).sum(1).numpy())
    assert shadows.distances[-1] == 0
    on_plane = points[-1] + torch.tensor([[3.0, -4.0]], dtype=torch.float64) @ plane.axes
    there = project(plane, points[-1], on_plane)
    np.testing.assert_allclose(there.coordinates, [[3.0, -4.0]])
    np.testing.assert_allclose(there.distances, 0, atol=1e-12)


def test_parallel_directions_span_no_plane() -> None:
    with pytest.raises(ValueError, match="not parallel"):
        plane_of(torch.tensor([1.0, 2.0]), torch.tensor([-2.0, -4.0]))


def test_the_grid_of_a_trajectory_has_the_policy_on_a_node_and_a_fifth_around() -> None:
    way = np.array([[-10.3, 2.1], [-7.0, 6.9], [0.0, 0.0]])
    x, y = trajectory_grid(way, 21)
    cell = x[1] - x[0]
    assert len(x) == len(y) == 21
    assert 0.0 in x
    assert 0.0 in y
    np.testing.assert_allclose([np.ptp(x), np.ptp(y)], 1.4 * 10.3)
    np.testing.assert_allclose(np.diff(y), cell)
    for axis, column in zip((x, y), way.T, strict=True):
        assert axis[0] <= column.min() - cell
        assert axis[-1] >= column.max() + cell


def test_other_planes_reach_as_far_as_the_return_falls_but_not_too_far() -> None:
    assert span_of_falls([4.0, 2.0, 8.0, 1.0]) == 8
    assert span_of_falls([4.0, np.inf]) == FARTHEST == 64
    x, _ = centered_grid(8.0, 21)
    assert (x[0], x[10], x[20]) == (-8, 0, 8)


def test_nodes_come_row_by_row() -> None:
    nodes = grid_coordinates(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0]))
    assert nodes.tolist() == [[1, 10], [2, 10], [3, 10], [1, 20], [2, 20], [3, 20]]
