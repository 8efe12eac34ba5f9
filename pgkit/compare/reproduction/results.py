"""A study, judged: the outcome of every claim on both plans, and tables of what the outcomes rest on."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pgkit import stats
from pgkit.compare.reproduction.measures import Side, read_side
from pgkit.compare.reproduction.rules import NOTHING, Outcome, momentum_effects
from pgkit.compare.reproduction.studies import Study
from pgkit.compare.tables import Analysis
from pgkit.stats import LEVEL, Estimate

Row = dict[str, Any]

LINEAR, LOG = "linear", "log"
"""The plans of a study, and their directories: the study's, and ours."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "claims": ("claim", "grid", "verdict", "value", "low", "high", "numbers"),
    "windows": (
        *("grid", "environment", "agent", "optimizer", "group", "best_lr", "best_score", "effective", "lowest_lr"),
        *("highest_lr", "rates_inside", "rates", "decades", "decades_low", "decades_high", "cut_off"),
    ),
    "rates": ("grid", "environment", "agent", "optimizer", "lr", "runs", "score", "unlearnt"),
    "momentum": ("grid", "environment", "agent", "effect", "low", "high"),
    "optimism": ("environment", "agent", "optimizer", "lr", "same_seeds", "fresh_seeds", "difference", "low", "high"),
}
"""Columns of the tables of a study."""


@dataclass(frozen=True)
class Reproduction:
    """A study that has been judged, finished or not.

    Attributes:
        study: what was asked.
        analyses: of the plans that have results, by :data:`LINEAR` and :data:`LOG`.
        sides: what rules need of them.
        outcomes: by claim and plan; a plan without results has none.
        tables: as in :data:`COLUMNS`.
        overrides: settings that were changed for both plans, as text.
    """

    study: Study
    analyses: Mapping[str, Analysis]
    sides: Mapping[str, Side]
    outcomes: Mapping[tuple[str, str], Outcome]
    tables: Mapping[str, pd.DataFrame]
    overrides: tuple[str, ...] = ()

    def outcome(self, claim: str, grid: str) -> Outcome:
        """Return what a plan says of a claim."""
        return self.outcomes.get((claim, grid), Outcome("not decided", NOTHING, "This plan has not run yet."))

    @property
    def missing(self) -> int:
        """Number of runs that are known to be missing."""
        return sum(int(analysis.facts["missing"]) for analysis in self.analyses.values())


def judge(study: Study, analyses: Mapping[str, Analysis], overrides: tuple[str, ...] = ()) -> Reproduction:
    """Judge all claims of a study on the plans that have results; the same results give the same numbers."""
    sides = {grid: read_side(analysis, grid, same_seeds=grid == LINEAR) for grid, analysis in analyses.items()}
    outcomes = {(claim.name, grid): claim.judge(side) for claim in study.claims for grid, side in sides.items()}
    rows: dict[str, list[Row]] = {
        "claims": [_claim_row(name, grid, outcome) for (name, grid), outcome in outcomes.items()],
        "windows": [row for side in sides.values() for row in _windows(study, side)],
        "rates": [row for side in sides.values() for row in _rates(side)],
        "momentum": [row for side in sides.values() for row in _momentum(study, side)],
        "optimism": list(_optimism(sides[LINEAR])) if LINEAR in sides else [],
    }
    tables = {name: pd.DataFrame(rows[name], columns=list(columns)) for name, columns in COLUMNS.items()}
    return Reproduction(study, analyses, sides, outcomes, tables, overrides)


def optimism(table: pd.DataFrame) -> Estimate:
    """Return by how much seeds that chose a rate overstate it, on average over cells, with Student's interval."""
    differences = table["difference"].to_numpy(dtype=float)
    if len(differences) < 2:
        return NOTHING
    return Estimate(float(differences.mean()), *stats.t_interval(differences))


def outside(reproduction: Reproduction) -> tuple[int, int]:
    """Return how many arms have their best rate outside the study's grid, and of how many that learn, on our grid."""
    if not {LINEAR, LOG} <= set(reproduction.analyses):
        return 0, 0
    rates = reproduction.analyses[LINEAR].plan["learning_rates"]
    windows = reproduction.tables["windows"]
    ours = windows[(windows["grid"] == LOG) & windows["effective"].astype(bool)]
    inside = ours["best_lr"].between(rates[0] * (1 - 1e-9), rates[-1] * (1 + 1e-9))
    return int((~inside).sum()), len(ours)


def _claim_row(name: str, grid: str, outcome: Outcome) -> Row:
    value, low, high = outcome.effect
    row = {"claim": name, "grid": grid, "verdict": outcome.verdict, "value": value, "low": low, "high": high}
    return row | {"numbers": outcome.numbers}


def _windows(study: Study, side: Side) -> Iterator[Row]:
    for case, curves in side.curves.items():
        drawn = side.drawn(case)
        for arm, curve in curves.items():
            low, high = curve.window
            widths = stats.width(curve.drawn_means(drawn), curve.rates)
            yield {
                "grid": side.name,
                "environment": case[0],
                "agent": case[1],
                "optimizer": arm,
                "group": next((group for group, arms in study.groups.items() if arm in arms), ""),
                "best_lr": curve.rates[curve.best],
                "best_score": curve.means[curve.best],
                "effective": curve.effective,
                "lowest_lr": curve.rates[low],
                "highest_lr": curve.rates[high],
                "rates_inside": high - low + 1,
                "rates": len(curve.rates),
                "decades": curve.decades,
                "decades_low": np.quantile(widths, (1 - LEVEL) / 2),
                "decades_high": np.quantile(widths, (1 + LEVEL) / 2),
                "cut_off": curve.cut_off,
            }


def _rates(side: Side) -> Iterator[Row]:
    for case, curves in side.curves.items():
        for arm, curve in curves.items():
            shares = curve.unlearnt.mean(1)
            for lr, score, share in zip(curve.rates, curve.means, shares, strict=True):
                row = {"grid": side.name, "environment": case[0], "agent": case[1], "optimizer": arm, "lr": lr}
                yield row | {"runs": curve.scores.shape[1], "score": score, "unlearnt": share}


def _momentum(study: Study, side: Side) -> Iterator[Row]:
    if not set(study.momentum) <= set(side.arms):
        return
    for effect in momentum_effects(side, *study.momentum):
        row = {"grid": side.name, "environment": effect.case[0], "agent": effect.case[1], "effect": effect.value}
        yield row | {"low": effect.low, "high": effect.high}


def _optimism(side: Side) -> Iterator[Row]:
    """Yield, for each arm that learns, the score of the seeds that chose its rate beside that of fresh seeds."""
    for case, fresh in side.fresh.items():
        for arm, reported in side.reported[case].items():
            if not side.curves[case][arm].effective:
                continue
            difference = stats.welch(reported.scores, fresh[arm].scores)
            yield {
                "environment": case[0],
                "agent": case[1],
                "optimizer": arm,
                "lr": reported.lr,
                "same_seeds": reported.scores.mean(),
                "fresh_seeds": fresh[arm].scores.mean(),
                "difference": difference.value,
                "low": difference.low,
                "high": difference.high,
            }
