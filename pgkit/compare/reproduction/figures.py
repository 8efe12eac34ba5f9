"""Figures of a reproduced study: both grids on one axis, windows, and what momentum adds. All take tables."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pgkit.plots.style import (
    FAINT,
    INK,
    WIDTH,
    arm_styles,
    freeze_layout,
    log_axis,
    name_rows,
    new_figure,
    settings,
)

BAND = "#f1e3c4"
"""Colour of the learning rates that the study tried."""

COLUMNS = 4
PANEL_HEIGHT = 1.45


@settings()
def draw_grids(rates: pd.DataFrame, span: tuple[float, float], labels: Sequence[str]) -> Figure:
    """Draw score against learning rate in one case, a panel for each arm, both plans on one logarithmic axis.

    Args:
        rates: table ``rates`` of one case.
        span: lowest and highest rate of the study.
        labels: all arms.
    """
    rows = -(-len(labels) // COLUMNS)
    figure = new_figure(0.5 + PANEL_HEIGHT * rows, width=1.45 * WIDTH)
    panels = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (arm, look) in zip(panels, arm_styles(labels).items(), strict=False):
        _mark_span(axes, span)
        of_arm = rates[rates["optimizer"] == arm].sort_values("lr")
        ours = of_arm[of_arm["grid"] == "log"]
        theirs = of_arm[of_arm["grid"] == "linear"]
        axes.plot(
            ours["lr"], ours["score"], color=look.color, marker="o", markersize=3, linewidth=1.4, label="log grid"
        )
        axes.plot(
            theirs["lr"], theirs["score"], color=INK, marker="|", markersize=5, linewidth=1.0, label="linear grid"
        )
        lost = of_arm[of_arm["unlearnt"] > 0.5]
        axes.scatter(lost["lr"], lost["score"], s=16, marker="x", color="#b3400e", linewidths=1.0, zorder=4)
        log_axis(axes, numticks=4)
        axes.set_title(arm, color=look.color, pad=3)
    for axes in panels[len(labels) :]:
        axes.set_axis_off()
    figure.supxlabel("learning rate (log scale)", fontsize="medium")
    figure.supylabel("mean score", fontsize="medium")
    return freeze_layout(figure)


@settings()
def draw_windows(windows: pd.DataFrame, span: tuple[float, float], labels: Sequence[str]) -> Figure:
    """Draw the window of each arm in one case: a bar for our grid, and below it a dark one for the study's.

    Arguments as :func:`draw_grids`, with table ``windows``. Arms that do not learn at any rate of a grid have no bar.
    """
    figure = new_figure(0.9 + 0.3 * len(labels))
    axes = figure.add_subplot()
    _mark_span(axes, span)
    places = {arm: place for place, arm in enumerate(labels)}
    looks = arm_styles(labels)
    for row in windows[windows["effective"].astype(bool)].to_dict("records"):
        ours = row["grid"] == "log"
        height = places[row["optimizer"]] + (-0.14 if ours else 0.18)
        color = looks[row["optimizer"]].color if ours else INK
        ends = [row["lowest_lr"], row["highest_lr"]]
        axes.plot(ends, [height] * 2, color=color, linewidth=5 if ours else 2.4, solid_capstyle="butt")
        axes.scatter([row["best_lr"]], [height], s=22 if ours else 10, color=color, edgecolors=INK, zorder=4)
    name_rows(axes, looks)
    log_axis(axes)
    axes.set_xlabel("learning rate (log scale)")
    return freeze_layout(figure)


@settings()
def draw_momentum(momentum: pd.DataFrame, pair: tuple[str, str]) -> Figure:
    """Draw what momentum adds to the score in each case, with 95 % intervals: filled ours, hollow the study's plan."""
    cases = list(dict.fromkeys(zip(momentum["environment"], momentum["agent"], strict=True)))
    figure = new_figure(0.9 + 0.42 * max(len(cases), 1))
    axes = figure.add_subplot()
    axes.axvline(0, color=FAINT, linewidth=0.8)
    for row in momentum.to_dict("records"):
        ours = row["grid"] == "log"
        height = cases.index((row["environment"], row["agent"])) + (-0.14 if ours else 0.14)
        axes.plot([row["low"], row["high"]], [height] * 2, color=INK, linewidth=1.2)
        axes.scatter([row["effect"]], [height], s=28, color=INK if ours else "white", edgecolors=INK, zorder=4)
    axes.set_yticks(range(len(cases)), [", ".join(case) for case in cases])
    axes.set_ylim(len(cases) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"score of {pair[0]} minus score of {pair[1]}")
    return freeze_layout(figure)


def _mark_span(axes: Axes, span: tuple[float, float]) -> None:
    axes.axvspan(*span, color=BAND, linewidth=0, zorder=0)
