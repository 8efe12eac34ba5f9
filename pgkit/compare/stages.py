"""Which runs come next: a pure function of the plan and of what is stored, so resuming is calling it again."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from pgkit.compare.checks import Scale
from pgkit.compare.plan import EXTENSIONS, KEYS, Plan, Run
from pgkit.compare.scores import score_runs
from pgkit.stats import Selection, select

SELECTION_SEED = 0
"""Of the resamples that say how sure a selection is."""

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Scores = Mapping[tuple[str | float, ...], float]
"""The score of each tuning run by (environment, agent, optimizer, lr, seed)."""


class Stage(NamedTuple):
    """What is being run.

    Attributes:
        name: "tuning", "evaluation" or "neighbour".
        todo: the runs that are still missing.
        runs: all runs of the stage, as far as they are known.
    """

    name: str
    todo: list[Run]
    runs: list[Run]


class Tuned(NamedTuple):
    """What tuning found for one case.

    Attributes:
        rates: the grid with its extensions, ascending, ``(L,)``.
        scores: ``(L, S)`` per arm: rates x seeds.
        selections: which rate each arm selects, and how sure that is.
    """

    rates: tuple[float, ...]
    scores: dict[str, Array]
    selections: dict[str, Selection]

    def selected(self, arm: str) -> float:
        """The arm's selected rate."""
        return self.rates[self.selections[arm].best]

    def second(self, arm: str) -> float | None:
        """The second-best rate of the arm's uncertainty set, if that has several."""
        index = self.selections[arm].second
        return None if index is None else self.rates[index]

    def edge(self, arm: str) -> str:
        """The end of the grid at which the arm's selected rate is: "low", "high" or ""."""
        return _edge(self.selections[arm].best, len(self.rates))


def stages(plan: Plan, scale: Mapping[str, Scale], stored: pd.DataFrame) -> list[Stage]:
    """The stages as far as what is stored tells; the last one may have runs to do, the others have none.

    A stage waits until the one before is complete.
    """
    done = set(stored[list(KEYS)].itertuples(index=False, name=None))
    scores = _tuning_scores(plan, scale, stored)
    found: list[Stage] = []
    for name, of_stage in (("tuning", _tuning), ("evaluation", _evaluation), ("neighbour", _neighbours)):
        runs = of_stage(plan, scores)
        found.append(Stage(name, [run for run in runs if tuple(run) not in done], runs))
        if found[-1].todo:
            break
    return found


def tuned(plan: Plan, scale: Mapping[str, Scale], stored: pd.DataFrame) -> dict[tuple[str, str], Tuned]:
    """What tuning found, by (environment, agent), for the cases whose tuning is complete."""
    return _tuned(plan, _tuning_scores(plan, scale, stored))


def _tuned(plan: Plan, scores: Scores) -> dict[tuple[str, str], Tuned]:
    found = {}
    for case in plan.cases:
        key = (case.environment, case.agent)
        rates, complete = _grid(plan, key, scores)
        if complete:
            table = _table(plan, key, rates, scores)
            found[key] = Tuned(rates, table, _select(table))
    return found


def extended(rates: Sequence[float], low: int, high: int) -> tuple[float, ...]:
    """A logarithmic grid with this many more points at its ends, three significant digits."""
    if len(rates) < 2:
        return tuple(rates)
    ratio = (rates[-1] / rates[0]) ** (1 / (len(rates) - 1))
    below = [float(f"{rates[0] / ratio**k:.3g}") for k in range(low, 0, -1)]
    above = [float(f"{rates[-1] * ratio**k:.3g}") for k in range(1, high + 1)]
    return (*below, *rates, *above)


def _tuning_scores(plan: Plan, scale: Mapping[str, Scale], stored: pd.DataFrame) -> Scores:
    rows = score_runs(plan, scale, stored[stored["stage"] == "tuning"])
    keys = rows[list(KEYS[1:])].itertuples(index=False, name=None)
    return dict(zip(keys, rows["auc"].tolist(), strict=True))


def _tuning(plan: Plan, scores: Scores) -> list[Run]:
    return [
        Run("tuning", case.environment, case.agent, arm, rate, seed)
        for case in plan.cases
        for rate in _grid(plan, (case.environment, case.agent), scores)[0]
        for arm in plan.arms
        for seed in plan.tuning_seeds
    ]


def _grid(plan: Plan, case: tuple[str, str], scores: Scores) -> tuple[tuple[float, ...], bool]:
    """The grid of a case as far as it is known, and whether all its runs are there."""
    low = high = 0
    while True:
        rates = extended(plan.rates, 2 * low, 2 * high)
        table = _table(plan, case, rates, scores)
        if any(np.isnan(arm).any() for arm in table.values()):
            return rates, False
        edges = {_edge(selection.best, len(rates)) for selection in _select(table).values()}
        more_low, more_high = ("low" in edges and low < EXTENSIONS), ("high" in edges and high < EXTENSIONS)
        if len(rates) < 2 or not (more_low or more_high):
            return rates, True
        low, high = low + more_low, high + more_high


def _table(plan: Plan, case: tuple[str, str], rates: Sequence[float], scores: Scores) -> dict[str, Array]:
    """Scores ``(L, S)`` per arm; NaN where a run is missing."""
    return {
        arm: np.array([[scores.get((*case, arm, rate, seed), np.nan) for seed in plan.tuning_seeds] for rate in rates])
        for arm in plan.arms
    }


def _edge(best: int, count: int) -> str:
    if count == 1:
        return ""
    return "low" if best == 0 else "high" if best == count - 1 else ""


def _select(table: Mapping[str, Array]) -> dict[str, Selection]:
    return {arm: select(scores, SELECTION_SEED) for arm, scores in table.items()}


def _evaluation(plan: Plan, scores: Scores) -> list[Run]:
    return [
        Run("evaluation", *case, arm, found.selected(arm), seed)
        for case, found in _tuned(plan, scores).items()
        for arm in plan.arms
        for seed in plan.evaluation_seeds
    ]


def _neighbours(plan: Plan, scores: Scores) -> list[Run]:
    """The rates beside the selected one, and the second-best setting, on the first evaluation seeds."""
    runs = []
    for case, found in _tuned(plan, scores).items():
        for arm, (best, second, *_) in found.selections.items():
            beside = {best - 1, best + 1, best if second is None else second} - {best, -1, len(found.rates)}
            runs += [
                Run("neighbour", *case, arm, found.rates[index], seed)
                for index in sorted(beside)
                for seed in plan.neighbour_seeds
            ]
    return runs
