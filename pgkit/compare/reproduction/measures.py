"""What the rules of a study need of an analysed comparison: scores by learning rate and seed, and what was reported."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgkit.compare.tables import LEARNT, Analysis
from pgkit.stats import width
from pgkit.stats.sensitivity import NEAR_BEST

Array = NDArray[np.float64]
Case = tuple[str, str]
"""Environment and agent."""

RESAMPLES = 2_000
SEED = 30_000
"""Seed of the resampled seeds; the rest of a generator's key is the place of the case."""


@dataclass(frozen=True)
class RateCurve:
    """An arm's tuning runs in one case: L rates, ascending, by S seeds.

    Attributes:
        rates: ``(L,)``.
        scores: ``(L, S)``, normalised areas under learning curves.
        finals: ``(L, S)``, scores at the end of training.
        unlearnt: ``(L, S)``, whether a run failed or did not learn.
        least: the best mean score from which an arm counts as effective.
    """

    rates: Array
    scores: Array
    finals: Array
    unlearnt: NDArray[np.bool_]
    least: float

    @property
    def means(self) -> Array:
        """Mean score of each rate, ``(L,)``."""
        return self.scores.mean(1)

    @property
    def best(self) -> int:
        """Index of the best rate, the lowest of those that tie."""
        return int(np.argmax(self.means))

    @property
    def effective(self) -> bool:
        """Whether the best rate learns anything; else a window of learning rates means nothing."""
        return bool(self.means[self.best] >= self.least)

    @property
    def window(self) -> tuple[int, int]:
        """Indices of the lowest and the highest rate of the window: around the best, at least 0.9 of its score."""
        outside = np.flatnonzero(self.means < NEAR_BEST * self.means[self.best])
        below = outside[outside < self.best]
        above = outside[outside > self.best]
        low = int(below[-1]) + 1 if len(below) else 0
        high = int(above[0]) - 1 if len(above) else len(self.rates) - 1
        return low, high

    @property
    def cut_off(self) -> str:
        """The ends of the grid that the window reaches, and behind which it may go on: "low", "high", both, or ""."""
        low, high = self.window
        return " and ".join(["low"] * (low == 0) + ["high"] * (high == len(self.rates) - 1))

    @property
    def decades(self) -> float:
        """Width of the window, 0 for a single rate."""
        return float(width(self.means, self.rates))

    def drawn_means(self, drawn: NDArray[np.int64]) -> Array:
        """Return the mean curves ``(B, L)`` over drawn seeds ``(B, S)``."""
        return np.stack([row[drawn].mean(1) for row in self.scores], axis=1)

    def beyond(self) -> list[int]:
        """Return the indices of the rates above the window, up to a decade above its end."""
        high = self.window[1]
        limit = self.rates[high] * 10 * (1 + 1e-3)
        return [index for index in range(high + 1, len(self.rates)) if self.rates[index] <= limit]


class Reported(NamedTuple):
    """What a plan reports of an arm at its selected rate: ``(n,)`` scores and final scores, one for each run."""

    lr: float
    scores: Array
    finals: Array


@dataclass(frozen=True)
class Side:
    """One of the two plans of a study, as far as it has run.

    Attributes:
        name: "linear" or "log".
        cases: all cases of the plan.
        arms: all arms of the plan.
        curves: by case and arm, of the cases whose tuning is complete.
        reported: by case and arm, what the plan reports: scores of the seeds that chose the rate, or of fresh seeds.
        fresh: by case and arm, scores of fresh seeds, also where they are not what is reported.
        rope: the largest difference of scores that does not matter.
    """

    name: str
    cases: tuple[Case, ...]
    arms: tuple[str, ...]
    curves: Mapping[Case, Mapping[str, RateCurve]]
    reported: Mapping[Case, Mapping[str, Reported]]
    fresh: Mapping[Case, Mapping[str, Reported]]
    rope: float

    @property
    def missing(self) -> list[Case]:
        """Cases that are not complete."""
        return [case for case in self.cases if case not in self.curves or case not in self.reported]

    def drawn(self, case: Case) -> NDArray[np.int64]:
        """Return ``(B, S)`` resampled seeds of a case: all its arms and rates share them."""
        seeds = next(iter(self.curves[case].values())).scores.shape[1]
        rng = np.random.default_rng([SEED, self.cases.index(case)])
        return rng.integers(0, seeds, (RESAMPLES, seeds))


def read_side(analysis: Analysis, name: str, same_seeds: bool) -> Side:
    """Return one plan of a study.

    Args:
        analysis: of its comparison, finished or not.
        name: "linear" or "log".
        same_seeds: whether the seeds that chose a rate are those that are reported.
    """
    runs = analysis.tables["runs"]
    least = float(analysis.plan["failure_below"])
    tuning = runs[runs["stage"] == "tuning"]
    curves = {case: _curves(tuning, analysis, case, least) for case in analysis.cases}
    curves = {case: of_case for case, of_case in curves.items() if of_case}
    fresh = {case: _fresh(runs[runs["stage"] == "evaluation"], analysis, case) for case in curves}
    fresh = {case: of_case for case, of_case in fresh.items() if of_case}
    chosen = {case: {arm: _at_best(curve) for arm, curve in of_case.items()} for case, of_case in curves.items()}
    reported = chosen if same_seeds else fresh
    return Side(name, tuple(analysis.cases), tuple(analysis.labels), curves, reported, fresh, analysis.plan["rope"])


def _curves(tuning: pd.DataFrame, analysis: Analysis, case: Case, least: float) -> dict[str, RateCurve]:
    """Return the curves of all arms of a case; none before its tuning is complete."""
    if not len(analysis.of("sensitivity", case)):
        return {}
    of_case = _of(tuning, case)
    return {arm: _curve(of_case[of_case["optimizer"] == arm], least) for arm in analysis.labels}


def _curve(runs: pd.DataFrame, least: float) -> RateCurve:
    def by_rate(column: str) -> pd.DataFrame:
        return runs.pivot(index="lr", columns="seed", values=column).sort_index()

    scores = by_rate("auc")
    return RateCurve(
        scores.index.to_numpy(dtype=float),
        scores.to_numpy(dtype=float),
        by_rate("final").to_numpy(dtype=float),
        (by_rate("outcome") != LEARNT).to_numpy(dtype=bool),
        least,
    )


def _at_best(curve: RateCurve) -> Reported:
    return Reported(float(curve.rates[curve.best]), curve.scores[curve.best], curve.finals[curve.best])


def _fresh(evaluated: pd.DataFrame, analysis: Analysis, case: Case) -> dict[str, Reported]:
    """Return the evaluation runs of all arms of a case; none before all of them are there."""
    of_case = _of(evaluated, case)
    by_arm = {arm: of_case[of_case["optimizer"] == arm] for arm in analysis.labels}
    if any(len(rows) < len(analysis.plan["evaluation_seeds"]) for rows in by_arm.values()):
        return {}
    return {
        arm: Reported(float(rows["lr"].iloc[0]), _floats(rows["auc"]), _floats(rows["final"]))
        for arm, rows in by_arm.items()
    }


def _floats(column: "pd.Series[Any]") -> Array:
    return np.asarray(column, dtype=np.float64)


def _of(runs: pd.DataFrame, case: Case) -> pd.DataFrame:
    return runs[(runs["environment"] == case[0]) & (runs["agent"] == case[1])]
