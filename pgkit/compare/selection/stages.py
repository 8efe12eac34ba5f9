"""The runs that come next: a pure function of the plan and the stored runs, so resuming is calling it again."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from pgkit.compare.plan.baselines import ScoreScale
from pgkit.compare.plan.plan import EXTENSIONS, KEYS, Plan, Run, SearchPoint
from pgkit.compare.selection.scores import score_runs
from pgkit.stats import Selection, select

SELECTION_SEED = 0
"""Seed of the resamples that say how certain a selection is."""

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Scores = Mapping[tuple[str | float, ...], float]
"""The score of each tuning run by (environment, agent, optimizer, lr, seed, setting)."""

EDGE = 0.05
"""With track "all tuned", a selected rate in the outer 5 % of its range is at the edge."""


class Stage(NamedTuple):
    """A stage of a comparison.

    Attributes:
        name: "tuning", "evaluation" or "neighbour".
        todo: runs that are still missing.
        runs: all runs of the stage that are known so far.
    """

    name: str
    todo: list[Run]
    runs: list[Run]


class TuningResult(NamedTuple):
    """The result of tuning one case.

    Attributes:
        points: L settings of each arm: the extended grid, ascending, or quasi-random settings.
        scores: ``(L, S)`` for each arm: settings x seeds.
        selections: the selected setting of each arm, and how certain that is.
        edges: the end of the range at which the selected rate of each arm lies: "low", "high" or "".
    """

    points: dict[str, tuple[SearchPoint, ...]]
    scores: dict[str, Array]
    selections: dict[str, Selection]
    edges: dict[str, str]

    @property
    def rates(self) -> tuple[float, ...]:
        """Learning rates of the grid, which all arms share."""
        return tuple(point.lr for point in next(iter(self.points.values())))

    def selected(self, arm: str) -> SearchPoint:
        """Return the selected setting of an arm."""
        return self.points[arm][self.selections[arm].best]

    def second(self, arm: str) -> SearchPoint | None:
        """Return the second-best setting in the arm's uncertainty set, if there are several."""
        index = self.selections[arm].second
        return None if index is None else self.points[arm][index]


def stages(plan: Plan, scale: Mapping[str, ScoreScale], stored: pd.DataFrame) -> list[Stage]:
    """Return the stages known from the stored runs; only the last one may have runs to do.

    A stage begins when the one before is complete.
    """
    done = set(stored[list(KEYS)].itertuples(index=False, name=None))
    scores = _tuning_scores(plan, scale, stored)
    known: list[Stage] = []
    for name, of_stage in (("tuning", _tuning), ("evaluation", _evaluation), ("neighbour", _neighbours)):
        runs = of_stage(plan, scores)
        known.append(Stage(name, [run for run in runs if tuple(run) not in done], runs))
        if known[-1].todo:
            break
    return known


def tuned(plan: Plan, scale: Mapping[str, ScoreScale], stored: pd.DataFrame) -> dict[tuple[str, str], TuningResult]:
    """What tuning result, by (environment, agent), for the cases whose tuning is complete."""
    return _tuned(plan, _tuning_scores(plan, scale, stored))


def _tuned(plan: Plan, scores: Scores) -> dict[tuple[str, str], TuningResult]:
    results = {}
    for case in plan.cases:
        key = (case.environment, case.agent)
        points, complete = _points(plan, key, scores)
        if complete:
            table = _table(plan, key, points, scores)
            selections = _select(table)
            edges = {arm: _edge(plan, arm, points[arm], selection.best) for arm, selection in selections.items()}
            results[key] = TuningResult(points, table, selections, edges)
    return results


def extended(rates: Sequence[float], low: int, high: int) -> tuple[float, ...]:
    """Extend a logarithmic grid by ``low`` and ``high`` points at its ends, rounded to three significant digits."""
    if len(rates) < 2:
        return tuple(rates)
    ratio = (rates[-1] / rates[0]) ** (1 / (len(rates) - 1))
    below = [float(f"{rates[0] / ratio**k:.3g}") for k in range(low, 0, -1)]
    above = [float(f"{rates[-1] * ratio**k:.3g}") for k in range(1, high + 1)]
    return (*below, *rates, *above)


def _tuning_scores(plan: Plan, scale: Mapping[str, ScoreScale], stored: pd.DataFrame) -> Scores:
    rows = score_runs(plan, scale, stored[stored["stage"] == "tuning"])
    keys = rows[list(KEYS[1:])].itertuples(index=False, name=None)
    return dict(zip(keys, rows["auc"].tolist(), strict=True))


def _tuning(plan: Plan, scores: Scores) -> list[Run]:
    return [
        Run("tuning", case.environment, case.agent, arm, point.lr, seed, point.setting)
        for case in plan.cases
        for of_arms in zip(*_points(plan, (case.environment, case.agent), scores)[0].values(), strict=True)
        for arm, point in zip(plan.arms, of_arms, strict=True)
        for seed in plan.tuning_seeds
    ]


def _points(plan: Plan, case: tuple[str, str], scores: Scores) -> tuple[dict[str, tuple[SearchPoint, ...]], bool]:
    """Return the settings to try of each arm in a case, as far as known, and whether all their runs are stored."""
    low = high = 0
    while True:
        grid = tuple(map(SearchPoint, extended(plan.rates, 2 * low, 2 * high)))
        points = {arm: plan.points(arm) if plan.all_tuned else grid for arm in plan.arms}
        table = _table(plan, case, points, scores)
        if any(np.isnan(arm).any() for arm in table.values()):
            return points, False
        edges = {_edge(plan, arm, points[arm], selection.best) for arm, selection in _select(table).items()}
        more_low = "low" in edges and low < EXTENSIONS
        more_high = "high" in edges and high < EXTENSIONS
        if plan.all_tuned or len(grid) < 2 or not (more_low or more_high):
            return points, True
        low = low + more_low
        high = high + more_high


def _table(
    plan: Plan, case: tuple[str, str], points: Mapping[str, Sequence[SearchPoint]], scores: Scores
) -> dict[str, Array]:
    """Return the scores ``(L, S)`` of each arm, NaN where a run is missing."""
    seeds = plan.tuning_seeds
    return {
        arm: np.array([[scores.get((*case, arm, p.lr, seed, p.setting), np.nan) for seed in seeds] for p in of_arm])
        for arm, of_arm in points.items()
    }


def _edge(plan: Plan, arm: str, points: Sequence[SearchPoint], best: int) -> str:
    """Return the end of the range at which the best setting of an arm lies: "low", "high" or ""."""
    if plan.all_tuned:
        place = plan.spaces[arm]["lr"].place(points[best].lr)
        return "low" if place < EDGE else "high" if place > 1 - EDGE else ""
    if len(points) == 1:
        return ""
    return "low" if best == 0 else "high" if best == len(points) - 1 else ""


def _select(table: Mapping[str, Array]) -> dict[str, Selection]:
    return {arm: select(scores, SELECTION_SEED) for arm, scores in table.items()}


def _evaluation(plan: Plan, scores: Scores) -> list[Run]:
    return [
        Run("evaluation", *case, arm, (point := result.selected(arm)).lr, seed, point.setting)
        for case, result in _tuned(plan, scores).items()
        for arm in plan.arms
        for seed in plan.evaluation_seeds
    ]


def _neighbours(plan: Plan, scores: Scores) -> list[Run]:
    """Return runs of the rates beside the selected one and of the second-best setting, on the first evaluation seeds.

    Quasi-random settings have no neighbours.
    """
    runs = []
    for case, result in _tuned(plan, scores).items():
        for arm, (best, second, *_) in result.selections.items():
            points = result.points[arm]
            beside = set() if plan.all_tuned else {best - 1, best + 1}
            beside = (beside | {best if second is None else second}) - {best, -1, len(points)}
            runs += [
                Run("neighbour", *case, arm, points[index].lr, seed, points[index].setting)
                for index in sorted(beside)
                for seed in plan.neighbour_seeds
            ]
    return runs
