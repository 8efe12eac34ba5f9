"""Write what the study of `configs/study-2026.toml` found, from the pieces that `scripts/study.py` has finished.

    python scripts/study_report.py

It writes, in `scripts/results/study-2026/`: `index.html`, a page that works offline; `README.md`, the same in short with
the data card; `figures/`; and `tables/`: all runs and learning curves as Parquet, the rest as CSV, in the schema of any
comparison (`pgkit/compare/README.md`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from study import CONTROL, PIECES, ROOT, Piece, lr_pieces, tuned_pieces

from pgkit.cli.errors import one_line_errors
from pgkit.compare.analysis.across_environments import spread
from pgkit.compare.api import load_analysis
from pgkit.compare.report.html import write_table
from pgkit.compare.tables import Analysis
from pgkit.errors import PgkitError
from pgkit.logging.parquet import write_frame
from pgkit.plots.columns import Column, View, cells, estimate, number, percent, whole, word
from pgkit.plots.page import Drawing, Grid, drawing, duration, template_environment, write_drawings
from pgkit.plots.style import new_figure, settings
from pgkit.stats import aggregates
from pgkit.system.files import write_text

RESULTS = PIECES.parent
REFERENCE = "adam"
"""The arm that all others are compared with on the page; the tables have every pair."""

KEPT = ("selection", "arms", "pairs", "neighbours", "screening", "baselines")
SYMBOLS = {"better": "+", "worse": "\u2212", "equivalent": "=", "unresolved": ""}
SEED = 40_000
"""Seed of all resampling in this module."""


class Study(NamedTuple):
    """The analysed pieces of a track.

    Attributes:
        pieces: those that are finished.
        analyses: theirs.
    """

    pieces: Sequence[Piece]
    analyses: Sequence[Analysis]

    @property
    def cases(self) -> list[tuple[str, str]]:
        """(environment, agent) of each piece."""
        return [analysis.cases[0] for analysis in self.analyses]

    @property
    def agents(self) -> list[str]:
        """The agents, in the order of the plan."""
        return list(dict.fromkeys(agent for _, agent in self.cases))

    @property
    def arms(self) -> list[str]:
        """The arms, in the order of the plan."""
        return self.analyses[0].labels

    def table(self, name: str) -> pd.DataFrame:
        """Return a table of all pieces."""
        return pd.concat([analysis.tables[name] for analysis in self.analyses], ignore_index=True)

    def against(self, reference: str) -> pd.DataFrame:
        """Return how each other arm compares with one: ``optimizer``, ``difference`` and its ends, ``verdict``."""
        pairs = self.table("pairs")
        first = pairs[pairs["second"] == reference].rename(columns={"first": "optimizer"})
        second = pairs[pairs["first"] == reference].rename(columns={"second": "optimizer"})
        swapped = second.assign(
            difference=-second["difference"],
            low=-second["high"],
            high=-second["low"],
            verdict=second["verdict"].replace({"better": "worse", "worse": "better"}),
        )
        columns = ["environment", "agent", "optimizer", "difference", "low", "high", "verdict"]
        return pd.concat([first, swapped], ignore_index=True)[columns]

    def scores(self, arm: str, agent: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the scores ``(n, E)`` of the evaluation seeds of an arm with an agent."""
        runs = self.table("runs")
        runs = runs[(runs["stage"] == "evaluation") & (runs["optimizer"] == arm) & (runs["agent"] == agent)]
        return runs.pivot(index="seed", columns="environment", values="auc").to_numpy()


def load(pieces: Sequence[Piece]) -> Study:
    """Analyse the pieces that are finished."""
    finished = [piece for piece in pieces if piece.finished]
    return Study(finished, [load_analysis(PIECES / piece.name) for piece in finished])


def pooled(study: Study) -> pd.DataFrame:
    """Return measures across the environments of each agent, for every arm: the tables ``across`` of a comparison."""
    rows = []
    for agent in study.agents:
        for number, arm in enumerate(study.arms):
            measures = aggregates(study.scores(arm, agent), np.random.default_rng([SEED, number]))._asdict()
            measures.pop("median")
            rows.append({"agent": agent, "optimizer": arm, **spread(measures)})
    return pd.DataFrame(rows)


def overview(study: Study) -> pd.DataFrame:
    """Return a row for each arm: its mean over all cases, and in how many it is better or worse than the reference."""
    arms, against = study.table("arms"), study.against(REFERENCE)
    rows = []
    for arm in study.arms:
        of_arm, verdicts = arms[arms["optimizer"] == arm], against.loc[against["optimizer"] == arm, "verdict"]
        rows.append(
            {
                "optimizer": arm,
                "mean": of_arm["mean"].mean(),
                "worst": of_arm["mean"].min(),
                **{verdict: int((verdicts == verdict).sum()) for verdict in SYMBOLS},
                "not_learnt": 1 - of_arm["learnt"].sum() / of_arm["n"].sum(),
                "collapsed": of_arm["collapses"].sum() / of_arm["n"].sum(),
            }
        )
    return pd.DataFrame(rows).sort_values("mean", ascending=False, ignore_index=True)


@settings()
def draw_scores(study: Study, order: Sequence[str]) -> Axes:
    """Draw the score of every arm in every case, its colour the difference from the reference, and the verdict."""
    arms = study.table("arms").set_index(["optimizer", "environment", "agent"])["mean"]
    verdicts = study.against(REFERENCE).set_index(["optimizer", "environment", "agent"])["verdict"]
    score = np.array([[arms[arm, *case] for case in study.cases] for arm in order])
    difference = score - score[list(order).index(REFERENCE)]
    axes = new_figure(0.9 + 0.21 * len(order), 1.6 + 0.62 * len(study.cases)).add_subplot()
    image = axes.imshow(difference, aspect="auto", cmap="RdBu", norm=TwoSlopeNorm(0, -0.5, 0.5))
    for row, column in np.ndindex(score.shape):
        symbol = SYMBOLS[verdicts.get((order[row], *study.cases[column]), "unresolved")]
        dark = abs(difference[row, column]) > 0.35
        axes.text(column, row, f"{score[row, column]:.2f}{symbol}", ha="center", va="center", color="w" if dark else "k")
    axes.set_yticks(range(len(order)), order)
    axes.set_xticks(range(len(study.cases)), [f"{env.partition('-')[0]}\n{agent}" for env, agent in study.cases])
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=7)
    axes.grid(visible=False)
    axes.figure.colorbar(image, ax=axes, shrink=0.5, label=f"difference from {REFERENCE}", extend="both")
    return axes


@settings()
def draw_pooled(across: pd.DataFrame) -> Axes:
    """Draw the mean over environments of every arm, with its interval, a panel for each agent."""
    agents = list(dict.fromkeys(across["agent"]))
    arms = list(dict.fromkeys(across["optimizer"]))
    panels = new_figure(0.9 + 0.18 * len(arms), 9).subplots(1, len(agents), sharey=True, squeeze=False)[0]
    order = list(across.groupby("optimizer")["mean"].mean().sort_values().index)
    for axes, agent in zip(panels, agents, strict=True):
        rows = across[across["agent"] == agent].set_index("optimizer").loc[order]
        errors = [rows["mean"] - rows["mean_low"], rows["mean_high"] - rows["mean"]]
        colors = ["#d55e00" if arm in (REFERENCE, CONTROL) else "#0072b2" for arm in order]
        axes.axvline(rows.loc[REFERENCE, "mean"], color="#d55e00", linewidth=0.8, linestyle=":")
        axes.errorbar(rows["mean"], range(len(order)), xerr=errors, fmt="none", ecolor=colors, linewidth=1.2)
        axes.scatter(rows["mean"], range(len(order)), c=colors, s=14, zorder=3)
        axes.set_yticks(range(len(order)), order)
        axes.set_title(agent)
        axes.set_xlabel("mean score over environments")
    return panels[0]


@settings()
def draw_rates(study: Study, order: Sequence[str]) -> Axes:
    """Draw the learning rate that each arm selects in every case: one that transfers has its points together."""
    selection = study.table("selection")
    axes = new_figure(0.9 + 0.2 * len(order), 6.5).add_subplot()
    markers = dict(zip(study.agents, "osD^v", strict=False))
    colors = dict(zip(dict.fromkeys(env for env, _ in study.cases), ("#0072b2", "#009e73", "#c77700", "#7a1f4e"), strict=False))
    for row, arm in enumerate(order):
        for number, (environment, agent) in enumerate(study.cases):
            chosen = selection[
                (selection["optimizer"] == arm)
                & (selection["environment"] == environment)
                & (selection["agent"] == agent)
            ]
            place = row + 0.5 * (number / len(study.cases) - 0.5)
            axes.scatter(chosen["lr"], [place], marker=markers[agent], color=colors[environment], s=12)
    handles = [axes.scatter([], [], marker=marker, color="#555555", s=12, label=agent) for agent, marker in markers.items()]
    handles += [axes.scatter([], [], marker="o", color=color, s=12, label=name) for name, color in colors.items()]
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=4, fontsize=7)
    axes.set_xscale("log")
    axes.set_yticks(range(len(order)), order)
    axes.invert_yaxis()
    axes.set_xlabel("selected learning rate")
    return axes
