"""Figures of single runs. Each function takes the tables of one case and returns the axes it drew on."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pgkit.compare.tables import FEW_SEEDS, LEARNT
from pgkit.plots.learning import draw_each, draw_median
from pgkit.plots.style import (
    FAINT,
    INK,
    ArmStyle,
    arm_styles,
    arms_in,
    label_at_right,
    log_axis,
    name_rows,
    panel,
    percent,
    rate_axis,
    settings,
    steps_axis,
)
from pgkit.stats import SKEW_LIMIT

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@settings()
def draw_sensitivity(
    runs: pd.DataFrame,
    sensitivity: pd.DataFrame,
    labels: Sequence[str] | None = None,
    axes: Axes | None = None,
    screening: pd.DataFrame | None = None,
) -> Axes:
    """Draw score against learning rate: a dot for every tuning run, a line through each arm's means.

    A ring marks the selected rate, dotted lines mark the ends of the grid, crosses rates that screening has dropped.

    Args:
        runs: table ``runs`` of one case; its tuning runs are drawn.
        sensitivity: table ``sensitivity`` of the same case.
        labels: all arms, in the order that decides their styles; default: those of the table.
        axes: where to draw; None for a new figure.
        screening: table ``screening`` of the same case, if there is one.
    """
    axes = panel(axes)
    dropped = sensitivity[:0] if screening is None else screening
    tuning = runs[(runs["stage"] == "tuning") & ~_is_in(runs, dropped)]
    for arm, look in arm_styles(arms_in(labels, sensitivity["optimizer"])).items():
        dots, line = tuning[tuning["optimizer"] == arm], sensitivity[sensitivity["optimizer"] == arm].sort_values("lr")
        axes.scatter(dots["lr"], dots["auc"], s=9, color=look.color, marker=look.marker, alpha=0.45, linewidths=0)
        axes.plot(line["lr"], line["mean"], color=look.color, linestyle=look.dashes, linewidth=1.7, label=arm)
        best = line[line["selected"].astype(bool)]
        axes.scatter(best["lr"], best["mean"], s=52, color=look.color, marker=look.marker, edgecolors=INK, zorder=4)
        crosses = dropped[dropped["optimizer"] == arm]
        if len(crosses):
            axes.scatter(crosses["lr"], crosses["score"], s=26, color=look.color, marker="x", linewidths=1.1)
    _mark_grid_ends(axes, pd.concat([sensitivity["lr"], dropped["lr"]]))
    rate_axis(axes)
    axes.set_ylabel("score")
    axes.set_title(f"Score at each learning rate ({_seeds(tuning)} tuning seeds)")
    return axes


@settings()
def draw_learnt(sensitivity: pd.DataFrame, labels: Sequence[str] | None = None, axes: Axes | None = None) -> Axes:
    """Draw the share of tuning runs that learnt against learning rate; arguments as :func:`draw_sensitivity`.

    Arms are shifted sideways a little, so that none hides another.
    """
    axes = panel(axes, 1.6)
    arms = arm_styles(arms_in(labels, sensitivity["optimizer"]))
    for k, (arm, look) in enumerate(arms.items()):
        line = sensitivity[sensitivity["optimizer"] == arm].sort_values("lr")
        shift = 10 ** (0.045 * (k - (len(arms) - 1) / 2))
        axes.vlines(line["lr"] * shift, 0, line["learnt_rate"], color=look.color, linewidth=1.2)
        axes.scatter(line["lr"] * shift, line["learnt_rate"], s=15, color=look.color, marker=look.marker, clip_on=False)
    _mark_grid_ends(axes, sensitivity["lr"])
    rate_axis(axes)
    axes.set_ylim(0, 1.04)
    axes.yaxis.set_major_formatter(percent)
    axes.set_ylabel("runs that\nlearnt")
    return axes


@settings()
def draw_setting(
    runs: pd.DataFrame,
    sensitivity: pd.DataFrame,
    table: pd.DataFrame,
    arm: str,
    hyperparameter: str,
    space: Mapping[str, Any],
    labels: Sequence[str] | None = None,
    axes: Axes | None = None,
) -> Axes:
    """Draw score against one hyperparameter of one arm, over all its settings; the other hyperparameters vary, too.

    Small dots are tuning runs, larger marks are means of settings (hollow where a run did not learn), a ring marks the
    selected setting.

    Args:
        runs: table ``runs`` of one case; its tuning runs are drawn.
        sensitivity: table ``sensitivity`` of the same case.
        table: table ``settings``.
        arm: label of the arm.
        hyperparameter: name of the hyperparameter on the horizontal axis.
        space: its range: ``low``, ``high`` and ``scale``; with "1-x log" the axis shows 1 - x.
        labels: all arms, in the order that decides their styles; default: those of the table.
        axes: where to draw; None for a new figure.
    """
    axes, look = panel(axes, 1.6), arm_styles(arms_in(labels, sensitivity["optimizer"]))[arm]
    chosen = table[(table["optimizer"] == arm) & (table["hyperparameter"] == hyperparameter)]
    place = chosen.set_index("setting")["value"]
    ends, is_share = np.array([space["low"], space["high"]]), space["scale"] == "1-x log"
    place, ends = (1 - place, 1 - ends[::-1]) if is_share else (place, ends)
    dots = runs[(runs["stage"] == "tuning") & (runs["optimizer"] == arm)]
    means = sensitivity[sensitivity["optimizer"] == arm]
    axes.scatter(dots["setting"].map(place), dots["auc"], s=4, color=look.color, alpha=0.35, linewidths=0)
    for learnt, face in ((True, look.color), (False, "white")):
        some = means[(means["learnt_rate"] == 1) == learnt]
        where = some["setting"].map(place)
        axes.scatter(where, some["mean"], s=18, marker=look.marker, c=face, edgecolors=look.color, linewidths=0.8)
    best = means[means["selected"].astype(bool)]
    where = best["setting"].map(place)
    axes.scatter(where, best["mean"], s=70, facecolors="none", edgecolors=INK, linewidths=1.3, zorder=4)
    axes.set_xlim(*ends)
    if space["scale"] != "linear":
        log_axis(axes, numticks=3)
        axes.set_xlim(ends[0] / (ends[1] / ends[0]) ** 0.06, ends[1] * (ends[1] / ends[0]) ** 0.06)
    axes.set_xlabel(f"1 \u2212 {hyperparameter}" if is_share else hyperparameter)
    return axes


@settings()
def draw_learning(
    curves: pd.DataFrame,
    scale: Mapping[str, float],
    labels: Sequence[str] | None = None,
    every_run: Sequence[str] = (),
    axes: Axes | None = None,
) -> Axes:
    """Draw return against environment steps: each arm's median over evaluation seeds with the band from 10 % to 90 %.

    Args:
        curves: table ``curves`` of one case; its evaluation runs are drawn.
        scale: the environment's ``reference_return`` and ``threshold``, drawn as lines, and its ``random_return``,
            which replaces the missing evaluations of diverged runs.
        labels: all arms, in the order that decides their styles; default: those of the table.
        every_run: arms whose runs are drawn one by one; medians of the others are then faint background lines.
        axes: where to draw; None for a new figure.
    """
    axes = panel(axes)
    evaluation = curves[curves["stage"] == "evaluation"]
    ends = []
    for arm, look in arm_styles(arms_in(labels, evaluation["optimizer"])).items():
        steps, returns = curves_of(evaluation[evaluation["optimizer"] == arm], "return_mean", scale["random_return"])
        if len(steps):
            _draw_arm(axes, steps, returns, look, background=bool(every_run) and arm not in every_run)
            axes.lines[-1].set_label(arm)
            if arm in every_run:
                draw_each(axes, [(steps, run) for run in returns], look)
                _draw_greedy(axes, evaluation[evaluation["optimizer"] == arm], scale["random_return"])
            ends.append((arm, float(np.median(returns[:, -1])), look.color))
    _mark_returns(axes, scale, named=not every_run)
    steps_axis(axes)
    axes.set_ylabel("return")
    if not every_run:
        label_at_right(axes, ends)
    axes.set_title(f"Learning curves ({_seeds(evaluation)} fresh seeds)")
    return axes


@settings()
def draw_scores(
    runs: pd.DataFrame, arms: pd.DataFrame, labels: Sequence[str] | None = None, axes: Axes | None = None
) -> Axes:
    """Draw the score of every evaluation run as a dot (a cross if it did not learn), a row for each arm.

    Below the dots: the mean with its 95 % interval (Student's t) and, where the scores are skewed, a stroke at their
    median; with fewer than ten runs, the minimum, median and maximum.

    Args:
        runs: table ``runs`` of one case; its evaluation runs are drawn.
        arms: table ``arms`` of the same case.
        labels: all arms, in the order that decides their styles; default: those of the table.
        axes: where to draw; None for a new figure.
    """
    chosen = arm_styles(arms_in(labels, arms["optimizer"]))
    axes = panel(axes, 0.9 + 0.5 * len(chosen))
    evaluation, by_arm = runs[runs["stage"] == "evaluation"], arms.set_index("optimizer")
    for row, (arm, look) in enumerate(chosen.items()):
        of_arm = evaluation[evaluation["optimizer"] == arm].sort_values("auc")
        height = row - 0.16 + 0.22 * np.tile([-0.5, 0.5, 0.0], len(of_arm))[: len(of_arm)]
        lost = (of_arm["outcome"] != LEARNT).to_numpy()
        score = of_arm["auc"].to_numpy(dtype=float)
        axes.scatter(score[~lost], height[~lost], s=18, color=look.color, marker=look.marker, alpha=0.6, linewidths=0)
        axes.scatter(score[lost], height[lost], s=26, color=look.color, marker="x", linewidths=1.3)
        if len(score) >= FEW_SEEDS and arm in by_arm.index:
            low, middle, high = by_arm.loc[arm, ["t_low", "mean", "t_high"]].astype(float)
            if abs(by_arm.loc[arm, "skew"]) > SKEW_LIMIT:
                axes.scatter([by_arm.loc[arm, "median"]], [row + 0.24], s=90, marker="|", color=INK, linewidths=2)
        elif len(score):
            low, middle, high = score.min(), float(np.median(score)), score.max()
        else:
            continue
        axes.plot([low, high], [row + 0.24] * 2, color=INK, linewidth=2, solid_capstyle="butt")
        axes.scatter([middle], [row + 0.24], s=30, color="white", edgecolors=INK, linewidths=1.4, zorder=4)
    name_rows(axes, chosen)
    axes.set_xlabel("score (0: random policy, 1: reference return)")
    axes.set_title(f"Score of every evaluation run ({_seeds(evaluation)} seeds, x: did not learn)")
    return axes


@settings()
def draw_drawdowns(curves: pd.DataFrame, labels: Sequence[str] | None = None, axes: Axes | None = None) -> Axes:
    """Draw the drawdown of each arm's worst evaluation seed: its best score so far minus its score.

    Args:
        curves: table ``curves`` of one case.
        labels: all arms, in the order that decides their styles; default: those of the table.
        axes: where to draw; None for a new figure.
    """
    axes = panel(axes)
    evaluation = curves[curves["stage"] == "evaluation"]
    ends = []
    for arm, look in arm_styles(arms_in(labels, evaluation["optimizer"])).items():
        steps, score = curves_of(evaluation[evaluation["optimizer"] == arm], "score", 0.0)
        if len(steps):
            drawdown = np.maximum.accumulate(score, axis=1) - score
            worst = drawdown[drawdown.max(1).argmax()]
            axes.plot(steps, worst, color=look.color, linestyle=look.dashes, linewidth=1.6, label=arm)
            ends.append((f"{arm} ({worst.max():.2f})", float(worst[-1]), look.color))
    axes.set_ylim(bottom=0)
    axes.axhline(0.5, color=FAINT, linewidth=0.8, linestyle=(0, (1, 2)))
    axes.annotate("half the range", (0, 0.5), xytext=(3, 2), textcoords="offset points", color=FAINT, fontsize=7.5)
    steps_axis(axes)
    axes.set_ylabel("best so far minus now (score)")
    label_at_right(axes, ends)
    axes.set_title("Drawdown of each optimizer's worst run (largest in brackets)")
    return axes


def curves_of(curves: pd.DataFrame, column: str, floor: float) -> tuple[Array, Array]:
    """Return env steps ``(K,)`` and the values ``(n, K)`` of a column for the n runs of a setting.

    Args:
        curves: rows of the table ``curves`` of one setting and stage.
        column: ``score`` or ``return_mean``, or their greedy counterparts.
        floor: value for evaluations that a diverged run lacks, so that the run stays in the figure.
    """
    table = curves.pivot(index="seed", columns="point", values=[column, "env_steps"])
    if table.empty:
        return np.empty(0), np.empty((0, 0))
    return table["env_steps"].max(axis=0).to_numpy(dtype=float), table[column].fillna(floor).to_numpy(dtype=float)


def _draw_arm(axes: Axes, steps: Array, returns: Array, look: ArmStyle, background: bool) -> None:
    """Draw a median with its band or, in the background, a faint median only."""
    if background:
        axes.plot(steps, np.median(returns, axis=0), color="#c4c4c4", linewidth=1.0, zorder=1.5)
        return
    draw_median(axes, steps, returns, look)


def _draw_greedy(axes: Axes, curves: pd.DataFrame, floor: float) -> None:
    """Draw the median of greedy evaluations, if there are any."""
    if "greedy_return_mean" in curves:
        steps, returns = curves_of(curves, "greedy_return_mean", floor)
        axes.plot(steps, np.median(returns, axis=0), color=INK, linestyle=(0, (1, 1)), linewidth=1.2, zorder=4)


def _mark_returns(axes: Axes, scale: Mapping[str, float], named: bool) -> None:
    """Draw lines at the reference return and at the threshold."""
    for name, key, dashes in (("reference", "reference_return", (0, (4, 2))), ("threshold", "threshold", (0, (1, 2)))):
        axes.axhline(scale[key], color=FAINT, linewidth=0.9, linestyle=dashes, zorder=1)
        if named:
            above = scale[key] == max(scale["reference_return"], scale["threshold"])
            place, side = ((2, 1.5), "bottom") if above else ((2, -1.5), "top")
            axes.annotate(name, (0, scale[key]), place, textcoords="offset points", va=side, color=FAINT, fontsize=7)


def _mark_grid_ends(axes: Axes, rates: pd.Series) -> None:
    """Draw dotted lines at the smallest and the largest rate tried."""
    for end in (rates.min(), rates.max()):
        axes.axvline(end, color=FAINT, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)


def _is_in(runs: pd.DataFrame, settings: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each run is one of these settings."""
    keys = set(zip(settings["optimizer"], settings["lr"], strict=True))
    return pd.Series([key in keys for key in zip(runs["optimizer"], runs["lr"], strict=True)], runs.index, dtype=bool)


def _seeds(rows: pd.DataFrame) -> int:
    return int(rows["seed"].nunique())
