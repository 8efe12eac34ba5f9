"""Cuts through parameter space, and the returns of the policies on them: all play the same episodes."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pgkit.config.schema import TrainConfig
from pgkit.diagnose.play import open_player
from pgkit.diagnose.points import Point
from pgkit.diagnose.pool import results_of
from pgkit.diagnose.scan import obs_stats_of
from pgkit.diagnose.vectors import actor_names, unflatten
from pgkit.stats.samples import FloatArray
from pgkit.system.progress import track
from pgkit.types import Params

TASK_EPISODES = 2048
"""Episodes that are played at a time: as many as run side by side in one process."""


WORTH_SECONDS = 10.0
"""Starting processes takes seconds: they are started for more than so much work."""


@dataclass(frozen=True)
class Cut:
    """K policies at ``center + x_1 axes_1 + ... + x_A axes_A``: a line, a path or a plane.

    Attributes:
        config: of the member whose policy is at the center.
        center: leaves ``(1, ...)``.
        axes: leaves ``(A, ...)``; leaves of the center that are missing, such as a critic's, stay as they are.
        coordinates: float64 ``(K, A)``, x of each policy.
        episodes: E that each policy plays.
        obs_stats: statistics of observations at the center, leaves ``(1, ...)``, if policies act on normalized ones.
        stats_axes: how these change along each axis, leaves ``(A, ...)``; by default they stay.
    """

    config: TrainConfig
    center: Params
    axes: Params
    coordinates: FloatArray
    episodes: int
    obs_stats: Params | None = None
    stats_axes: Params = field(default_factory=dict)

    @classmethod
    def at(cls, point: Point, episodes: int, params: Params | None = None) -> "Cut":
        """A single policy: that of a point, or other parameters in its place."""
        return cls(point.config, params or point.params, {}, np.zeros((1, 0)), episodes, obs_stats_of(point))

    @classmethod
    def around(cls, point: Point, vectors: Tensor, coordinates: FloatArray, episodes: int) -> "Cut":
        """A cut through a point of training.

        Args:
            point: the center.
            vectors: ``(A, D)``, its axes in the order of :func:`pgkit.diagnose.vectors.actor_names`.
            coordinates: ``(K, A)``.
            episodes: E.
        """
        like = {name: point.params[name].double() for name in actor_names(point.params)}
        return cls(point.config, point.params, unflatten(vectors, like), coordinates, episodes, obs_stats_of(point))

    @classmethod
    def through(cls, points: Sequence[Point], coordinates: FloatArray, episodes: int) -> "Cut":
        """A cut through A + 1 points of training; axis k goes from the first to the k-th after it.

        Where policies act on normalized observations, their statistics change linearly, too.
        """
        center = points[0]
        names = actor_names(center.params)
        axes = _differences([{name: point.params[name] for name in names} for point in points])
        stats = [obs_stats_of(point) for point in points]
        stats_axes = _differences([leaves for leaves in stats if leaves is not None])
        return cls(center.config, center.params, axes, coordinates, episodes, stats[0], stats_axes)

    def rows(self, chosen: slice) -> "Cut":
        """The same cut with some of its policies."""
        return replace(self, coordinates=self.coordinates[chosen])


class Played(NamedTuple):
    """What the policies of some cuts have earned.

    Attributes:
        returns: of each cut, ``(K, E)``; the first half of the episodes is block A, the second block B.
        env_steps: environment steps that were played.
    """

    returns: list[FloatArray]
    env_steps: float


def displaced(center: Params, axes: Params, coordinates: FloatArray) -> Params:
    """Compute ``center + sum_k x_k axes_k`` in float64, leaves ``(K, ...)`` of the center's dtypes.

    Each row is computed element by element, so that it has the same bits alone and among others.

    >>> center = {"a": torch.zeros(1, 2), "b": torch.ones(1, 1)}
    >>> displaced(center, {"a": torch.tensor([[1.0, 2.0]])}, np.array([[0.0], [0.5]]))
    {'a': tensor([[0.0000, 0.0000],
            [0.5000, 1.0000]]), 'b': tensor([[1.],
            [1.]])}

    Args:
        center: leaves ``(1, ...)``.
        axes: leaves ``(A, ...)`` of some of these.
        coordinates: ``(K, A)``.
    """
    x = torch.as_tensor(coordinates, dtype=torch.float64)
    rows = {}
    for name, leaf in center.items():
        total = leaf.double().repeat(len(x), *[1] * (leaf.dim() - 1))
        for k, axis in enumerate(axes.get(name, ())):
            total += x[:, k].view(-1, *[1] * axis.dim()) * axis.double()
        rows[name] = total.to(leaf.dtype)
    return rows


def play_cuts(cuts: Sequence[Cut], seed: int, workers: int = 1, progress: bool = False) -> Played:
    """Play all policies of all cuts on common random numbers.

    Episode e of a policy is the same whatever else is played, and however many processes play.

    Args:
        cuts: what is played.
        seed: of the episodes.
        workers: how many processes play.
        progress: whether to show a progress bar.
    """
    tasks = [(number, _Task(part, seed)) for number, cut in enumerate(cuts) for part in _parts(cut)]
    results: list[tuple[FloatArray, float] | None] = [None] * len(tasks)
    playing = _play_all([task for _, task in tasks], workers)
    for position, result in track(playing, len(tasks), "parts", progress):
        results[position] = result
    of_cut: list[list[FloatArray]] = [[] for _ in cuts]
    env_steps = 0.0
    for (number, _), played in zip(tasks, results, strict=True):
        if played is not None:
            of_cut[number].append(played[0])
            env_steps += played[1]
    return Played([np.concatenate(parts) for parts in of_cut], env_steps)


def blocks(episodes: int) -> tuple[int, int]:
    """How many of E episodes are in block A and in block B."""
    return episodes // 2, episodes - episodes // 2


class _Task(NamedTuple):
    cut: Cut
    seed: int

    @property
    def episodes(self) -> int:
        """Of all its policies."""
        return len(self.cut.coordinates) * self.cut.episodes


def _play_all(tasks: Sequence[_Task], workers: int) -> Iterator[tuple[int, tuple[FloatArray, float]]]:
    """Play the largest task, and let other processes start only if the rest takes longer than starting them."""
    sizes = [task.episodes for task in tasks]
    order = sorted(range(len(tasks)), key=lambda position: -sizes[position])
    started = time.perf_counter()
    for number, result in results_of(_play, [tasks[order[0]]], 1):
        yield order[number], result
    seconds = (time.perf_counter() - started) / sizes[order[0]] * (sum(sizes) - sizes[order[0]])
    rest = order[1:]
    for number, result in results_of(_play, [tasks[k] for k in rest], workers if seconds > WORTH_SECONDS else 1):
        yield rest[number], result


def _parts(cut: Cut) -> Iterator[Cut]:
    rows = max(1, TASK_EPISODES // cut.episodes)
    return (cut.rows(slice(start, start + rows)) for start in range(0, len(cut.coordinates), rows))


def _play(task: _Task) -> tuple[FloatArray, float]:
    """The returns ``(K, E)`` of a part of a cut, and the environment steps that it took."""
    cut, seed = task
    params = displaced(cut.center, cut.axes, cut.coordinates)
    stats = None if cut.obs_stats is None else displaced(cut.obs_stats, cut.stats_axes, cut.coordinates)
    with open_player(cut.config, seed) as player:
        returns = [player.play(params, count, block, stats) for block, count in enumerate(blocks(cut.episodes))]
        return np.concatenate(returns, 1), player.env_steps


def _differences(leaves: Sequence[Params]) -> Params:
    """All but the first minus the first, leaves ``(A, ...)`` float64; nothing of nothing."""
    if not leaves:
        return {}
    first = {name: leaf.double() for name, leaf in leaves[0].items()}
    return {name: torch.cat([other[name].double() - leaf for other in leaves[1:]]) for name, leaf in first.items()}
