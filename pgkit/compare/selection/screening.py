"""Which learning rates of an arm go on: the rungs of a plan, applied to the learning curves that are there.

A decision uses nothing but evaluations up to its rung, so it is the same whether runs have paused there or were trained
to the end: stored full grids can be screened after the fact (``scripts/replay_screening.py``).
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from pgkit.compare.plan.plan import SearchPoint
from pgkit.compare.plan.screening import BESIDE, Rung, last_evaluation
from pgkit.stats.selection import DECIMALS

Array = np.ndarray[Any, np.dtype[np.float64]]

SeedScores = Mapping[tuple[SearchPoint, int], tuple[Array, float]]
"""Of an arm's runs, by setting and seed: the curve ``(K,)`` and the score; NaN what comes after a pause."""

WHOLE = 1.0
"""Share of the steps of a run that is trained to the end."""


class Drop(NamedTuple):
    """Why a rate was dropped.

    Attributes:
        rung: its number, from 1.
        seeds: number of seeds it had trained on.
        share: of their steps.
        score: its mean score so far.
    """

    rung: int
    seeds: int
    share: float
    score: float


class Screened(NamedTuple):
    """How far an arm is.

    Attributes:
        going_on: the settings that were not dropped, ascending.
        drops: the others.
        seeds: what the settings that go on need next: runs on the first so many tuning seeds,
        share: for this share of their steps.
        missing: setting and seed of those of these runs that have not trained so far.
    """

    going_on: tuple[SearchPoint, ...]
    drops: Mapping[SearchPoint, Drop]
    seeds: int
    share: float
    missing: frozenset[tuple[SearchPoint, int]]


def screen(
    points: Sequence[SearchPoint],
    before: Screened | None,
    rungs: Sequence[Rung],
    seeds: Sequence[int],
    scores: SeedScores,
) -> Screened:
    """Take the settings of an arm from rung to rung, as far as its runs go.

    Args:
        points: all settings, ascending.
        before: what became of some of them before the grid was extended: they have the results that they will have.
        rungs: of the plan; without any, all settings train on all seeds.
        seeds: the tuning seeds.
        scores: of the arm's runs.
    """
    drops = {} if before is None else dict(before.drops)
    finished = set[SearchPoint]() if before is None else set(before.going_on)
    going_on = [point for point in points if point not in drops]
    for number, rung in enumerate(rungs, start=1):
        missing = _missing(going_on, seeds[: rung.seeds], rung.share, scores)
        if missing:
            return Screened(tuple(going_on), drops, rung.seeds, rung.share, missing)
        means = [_mean_so_far(point, seeds[: rung.seeds], rung.share, scores) for point in going_on]
        kept = _kept(means, [points.index(point) for point in going_on], rung.keep)
        for point, mean, stays in zip(going_on, means, kept, strict=True):
            if not stays and point not in finished:
                drops[point] = Drop(number, rung.seeds, rung.share, mean)
        going_on = [point for point in going_on if point not in drops]
    missing = _missing(going_on, seeds, WHOLE, scores)
    return Screened(tuple(going_on), drops, len(seeds), WHOLE, missing)


def _kept(means: Sequence[float], places: Sequence[int], keep: float) -> list[bool]:
    """Whether each setting goes on: it is among the better ones or ties with them, or lies beside the best."""
    rounded = np.round(means, DECIMALS)
    worst = np.sort(rounded)[::-1][ceil(keep * len(rounded)) - 1]
    best = places[int(np.argmax(rounded))]
    return [bool(mean >= worst or abs(place - best) <= BESIDE) for mean, place in zip(rounded, places, strict=True)]


def _missing(
    points: Sequence[SearchPoint], seeds: Sequence[int], share: float, scores: SeedScores
) -> frozenset[tuple[SearchPoint, int]]:
    runs = ((point, seed) for point in points for seed in seeds)
    return frozenset(run for run in runs if np.isnan(_so_far(*run, share, scores)))


def _mean_so_far(point: SearchPoint, seeds: Sequence[int], share: float, scores: SeedScores) -> float:
    return float(np.mean([_so_far(point, seed, share, scores) for seed in seeds]))


def _so_far(point: SearchPoint, seed: int, share: float, scores: SeedScores) -> float:
    """Return the mean score of a run up to a share of its steps; NaN if it has not got there."""
    if (point, seed) not in scores:
        return float("nan")
    curve, score = scores[point, seed]
    if share == WHOLE:
        return score
    return float(curve[: last_evaluation(share, len(curve)) + 1].mean())
