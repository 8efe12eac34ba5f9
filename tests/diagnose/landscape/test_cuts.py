"""Cuts through parameter space: common random numbers, and the same bits in any company."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import pgkit
from pgkit.diagnose.landscape import cuts
from pgkit.diagnose.landscape.cuts import Cut, displaced, play_cuts
from pgkit.diagnose.landscape.planes import centered_grid, grid_coordinates
from pgkit.diagnose.points import Point, initial_point
from pgkit.diagnose.vectors import actor_names, flatten_params


@pytest.fixture(scope="module")
def point() -> Point:
    return initial_point(pgkit.load_config("cartpole-actor-critic", ["policy.hidden=[16]", "seed=1"]), "seed-1")


def axes_at(point: Point, count: int) -> torch.Tensor:
    size = flatten_params(point.params, actor_names(point.params)).shape[1]
    return torch.randn(count, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_rows_of_a_plane_have_the_same_bits_alone(point: Point, monkeypatch: pytest.MonkeyPatch) -> None:
    plane = Cut.around(point, 0.1 * axes_at(point, 2), grid_coordinates(*centered_grid(8.0, 5)), 6)
    together = play_cuts([plane], seed=0).returns[0]
    assert together.shape == (25, 6)
    assert len({tuple(row) for row in together.tolist()}) > 10
    for row in (0, 7, 24):
        (alone,) = play_cuts([plane.rows(slice(row, row + 1))], seed=0).returns
        np.testing.assert_array_equal(alone[0], together[row])
    monkeypatch.setattr(cuts, "TASK_EPISODES", 18)  # three policies at a time
    np.testing.assert_array_equal(play_cuts([plane], seed=0).returns[0], together)


def test_all_policies_play_the_same_episodes(point: Point) -> None:
    still = Cut.around(point, axes_at(point, 1), np.zeros((3, 1)), 6)
    other = Cut.at(point, 6)
    (three, one) = play_cuts([still, other], seed=0).returns
    np.testing.assert_array_equal(three, np.repeat(one, 3, axis=0))
    assert len(set(one[0].tolist())) > 1  # episodes differ, also those of both blocks
    assert sorted(one[0, :3].tolist()) != sorted(one[0, 3:].tolist())
    assert not np.array_equal(play_cuts([other], seed=1).returns[0], one)


def test_common_random_numbers_make_differences_small(point: Point) -> None:
    nearby = Cut.around(point, 1e-3 * axes_at(point, 1), np.array([[0.0], [1.0]]), 200)
    a, b = play_cuts([nearby], seed=0).returns[0]
    assert (b - a).var() < 0.2 * (a.var() + b.var())


@pytest.mark.process
@pytest.mark.slow
def test_two_processes_play_the_same(point: Point, monkeypatch: pytest.MonkeyPatch) -> None:
    plane = Cut.around(point, 0.1 * axes_at(point, 2), grid_coordinates(*centered_grid(8.0, 5)), 6)
    monkeypatch.setattr(cuts, "TASK_EPISODES", 30)
    monkeypatch.setattr(cuts, "WORTH_SECONDS", -1.0)
    one, two = (play_cuts([plane], 0, workers) for workers in (1, 2))
    np.testing.assert_array_equal(one.returns[0], two.returns[0])
    assert one.env_steps == two.env_steps > 0


def test_a_path_ends_in_both_policies_with_the_last_bit_and_their_statistics(point: Point) -> None:
    config = point.config.model_copy(
        update={"env": point.config.env.model_copy(update={"normalize_observations": True})}
    )
    generator = torch.Generator().manual_seed(3)
    ends = [
        replace(
            point,
            config=config,
            params={name: torch.randn(leaf.shape, generator=generator) for name, leaf in point.params.items()},
            obs_stats={
                "count": torch.tensor([float(count)], dtype=torch.float64),
                "mean": torch.full((1, 4), count / 10, dtype=torch.float64),
                "squares": torch.full((1, 4), 2.0 * count, dtype=torch.float64),
            },
        )
        for count in (10, 30)
    ]
    path = Cut.through(ends, np.array([[0.0], [0.5], [1.0]]), 6)
    rows = displaced(path.center, path.axes, path.coordinates)
    assert path.obs_stats is not None
    stats = displaced(path.obs_stats, path.stats_axes, path.coordinates)
    assert stats["count"].tolist() == [10, 20, 30]
    for name in actor_names(point.params):
        for k, end in ((0, ends[0]), (2, ends[1])):
            assert torch.equal(rows[name][k], end.params[name][0]), name
    together = play_cuts([path, Cut.at(ends[0], 6), Cut.at(ends[1], 6)], seed=0).returns
    np.testing.assert_array_equal(together[0][[0, 2]], np.concatenate(together[1:]))


def test_the_critic_stays(point: Point) -> None:
    cut = Cut.around(point, axes_at(point, 1), np.array([[2.0]]), 6)
    moved = displaced(cut.center, cut.axes, cut.coordinates)
    assert torch.equal(moved["critic.0.weight"], point.params["critic.0.weight"])
    assert not torch.equal(moved["actor.0.weight"], point.params["actor.0.weight"])
