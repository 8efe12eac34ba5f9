"""The runs that come next: a pure function of the plan and the stored runs, so resuming is calling it again."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pgkit.compare.plan.baselines import ScoreScale
from pgkit.compare.plan.plan import KEYS, Plan, Run, SearchPoint
from pgkit.compare.selection.scores import complete, curves_so_far, score_runs
from pgkit.compare.selection.screening import WHOLE, Drop, Screened, SeedScores, screen
from pgkit.stats import Selection, select

SELECTION_SEED = 0
"""Seed of the resamples that say how certain a selection is."""

Array = np.ndarray[Any, np.dtype[np.float64]]
Scores = Mapping[tuple[str, str, str], SeedScores]
"""The scores of all tuning runs by (environment, agent, optimizer)."""

EDGE = 0.05
"""With track "all tuned", a selected rate in the outer 5 % of its range is at the edge."""


class Stage(NamedTuple):
    """A stage of a comparison.

    Attributes:
        name: "tuning", "evaluation" or "neighbour".
        todo: runs that are still missing.
        runs: all runs of the stage that are known so far.
        share: of its steps that each run in ``todo`` is to train for, all in all.
    """

    name: str
    todo: list[Run]
    runs: list[Run]
    share: float = WHOLE


class TuningResult(NamedTuple):
    """The result of tuning one case.

    Attributes:
        points: L settings of each arm: the extended grid, ascending, or quasi-random settings.
        scores: ``(L, S)`` for each arm: settings x seeds; NaN for settings that were dropped.
        selections: the selected setting of each arm, and how certain that is.
        edges: the end of the range at which the selected rate of each arm lies: "low", "high" or "".
        drops: the settings of each arm that screening has dropped.
    """

    points: dict[str, tuple[SearchPoint, ...]]
    scores: dict[str, Array]
    selections: dict[str, Selection]
    edges: dict[str, str]
    drops: dict[str, Mapping[SearchPoint, Drop]]

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
    scores = tuning_scores(plan, scale, stored)
    tuning = _tuning(plan, scores)
    known = [tuning]
    done = set(complete(stored)[list(KEYS)].itertuples(index=False, name=None))
    for name, of_stage in (("evaluation", _evaluation), ("neighbour", _neighbours)):
        if known[-1].todo:
            break
        runs = of_stage(plan, scores)
        known.append(Stage(name, [run for run in runs if tuple(run) not in done], runs))
    return known


def tuned(plan: Plan, scale: Mapping[str, ScoreScale], stored: pd.DataFrame) -> dict[tuple[str, str], TuningResult]:
    """What tuning result, by (environment, agent), for the cases whose tuning is complete."""
    return _tuned(plan, tuning_scores(plan, scale, stored))


def _tuned(plan: Plan, scores: Scores) -> dict[tuple[str, str], TuningResult]:
    results = {}
    for case in plan.cases:
        key = (case.environment, case.agent)
        points, screened = _tune_case(plan, key, scores)
        if not any(arm.missing for arm in screened.values()):
            table = {arm: _table(plan, of_arm, points[arm], scores[*key, arm]) for arm, of_arm in screened.items()}
            selections = {arm: _select(of_arm) for arm, of_arm in table.items()}
            edges = {arm: _edge(plan, arm, points[arm], selection.best) for arm, selection in selections.items()}
            drops = {arm: of_arm.drops for arm, of_arm in screened.items()}
            results[key] = TuningResult(points, table, selections, edges, drops)
    return results


def extended(rates: Sequence[float], low: int, high: int) -> tuple[float, ...]:
    """Extend a logarithmic grid by ``low`` and ``high`` points at its ends, rounded to three significant digits."""
    if len(rates) < 2:
        return tuple(rates)
    ratio = (rates[-1] / rates[0]) ** (1 / (len(rates) - 1))
    below = [float(f"{rates[0] / ratio**k:.3g}") for k in range(low, 0, -1)]
    above = [float(f"{rates[-1] * ratio**k:.3g}") for k in range(1, high + 1)]
    return (*below, *rates, *above)


def tuning_scores(plan: Plan, scale: Mapping[str, ScoreScale], stored: pd.DataFrame) -> Scores:
    """Return the scores of the tuning runs that are stored; those that paused have a curve and no score."""
    rows = stored[stored["stage"] == "tuning"]
    whole = score_runs(plan, scale, complete(rows))["auc"].reindex(rows.index)
    curves = curves_so_far(scale, rows)
    scores: dict[tuple[str, str, str], dict[tuple[SearchPoint, int], tuple[Array, float]]] = {
        (case.environment, case.agent, arm): {} for case in plan.cases for arm in plan.arms
    }
    runs = rows[list(KEYS)].itertuples(index=False, name=None)
    for run, curve, score in zip(map(Run._make, runs), curves, whole.tolist(), strict=True):
        of_arm = scores[run.environment, run.agent, run.optimizer]
        of_arm[SearchPoint(run.lr, run.setting), run.seed] = (curve, score)
    return scores


def _tuning(plan: Plan, scores: Scores) -> Stage:
    """Return the tuning stage; of what is missing, the runs that need the smallest share of their steps come first."""
    runs: list[Run] = []
    missing: dict[float, list[Run]] = {}
    for case in plan.cases:
        key = (case.environment, case.agent)
        points, screened = _tune_case(plan, key, scores)
        for of_arms in zip(*points.values(), strict=True):
            for (arm, of_arm), point in zip(screened.items(), of_arms, strict=True):
                drop = of_arm.drops.get(point)
                for seed in plan.tuning_seeds[: of_arm.seeds if drop is None else drop.seeds]:
                    runs.append(Run("tuning", *key, arm, point.lr, seed, point.setting))
                    if (point, seed) in of_arm.missing:
                        missing.setdefault(of_arm.share, []).append(runs[-1])
    share = min(missing, default=WHOLE)
    return Stage("tuning", missing.get(share, []), runs, share)


def _tune_case(
    plan: Plan, case: tuple[str, str], scores: Scores
) -> tuple[dict[str, tuple[SearchPoint, ...]], dict[str, Screened]]:
    """Return the settings to try of each arm in a case, as far as known, and how far each arm is."""
    low = high = 0
    screened: dict[str, Screened] = {}
    while True:
        grid = tuple(map(SearchPoint, extended(plan.rates, 2 * low, 2 * high)))
        points = {arm: plan.points(arm) if plan.all_tuned else grid for arm in plan.arms}
        screened = {
            arm: screen(points[arm], screened.get(arm), plan.rungs, plan.tuning_seeds, scores[*case, arm])
            for arm in plan.arms
        }
        if plan.all_tuned or len(grid) < 2 or any(of_arm.missing for of_arm in screened.values()):
            return points, screened
        tables = {arm: _table(plan, of_arm, grid, scores[*case, arm]) for arm, of_arm in screened.items()}
        edges = {_edge(plan, arm, grid, _select(table).best) for arm, table in tables.items()}
        more_low = "low" in edges and low < plan.config.extensions
        more_high = "high" in edges and high < plan.config.extensions
        if not (more_low or more_high):
            return points, screened
        low = low + more_low
        high = high + more_high


def _table(plan: Plan, screened: Screened, points: Sequence[SearchPoint], scores: SeedScores) -> Array:
    """Return the scores ``(L, S)`` of an arm whose runs are there, NaN for settings that were dropped."""
    seeds = plan.tuning_seeds
    return np.array(
        [[np.nan if p in screened.drops else scores[p, seed][1] for seed in seeds] for p in points], dtype=np.float64
    )


def _edge(plan: Plan, arm: str, points: Sequence[SearchPoint], best: int) -> str:
    """Return the end of the range at which the best setting of an arm lies: "low", "high" or ""."""
    if plan.all_tuned:
        place = plan.spaces[arm]["lr"].place(points[best].lr)
        return "low" if place < EDGE else "high" if place > 1 - EDGE else ""
    if len(points) == 1:
        return ""
    return "low" if best == 0 else "high" if best == len(points) - 1 else ""


def _select(scores: Array) -> Selection:
    """Select among the settings ``(L, S)`` that were not dropped; what is returned counts all of them."""
    rows = np.flatnonzero(~np.isnan(scores).any(1))
    best, second, chosen, in_set = select(scores[rows], SELECTION_SEED)
    chosen_share = np.zeros(len(scores))
    chosen_share[rows] = chosen
    in_whole_set = np.zeros(len(scores), dtype=bool)
    in_whole_set[rows] = in_set
    return Selection(int(rows[best]), None if second is None else int(rows[second]), chosen_share, in_whole_set)


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
