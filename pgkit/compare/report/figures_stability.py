"""The figure of stability: how many runs learnt and collapsed, and how bad the worst tenth is."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator

from pgkit.compare.tables import FEW_SEEDS
from pgkit.plots.style import INK, arm_styles, arms_in, name_rows, panel, percent, settings

TRACK = "#eceff2"
"""Colour of the whole range behind an interval."""


class Measure(NamedTuple):
    """A measure of stability in the table ``arms``.

    Attributes:
        title: title of its panel.
        value: its column.
        limits: columns with the ends of its interval.
        count_column: column with the number of runs, if it is a share of runs.
    """

    title: str
    value: str
    limits: tuple[str, str]
    count_column: str = ""


MEASURES = (
    Measure("Learnt", "learnt_rate", ("learnt_low", "learnt_high"), "learnt"),
    Measure("Collapsed", "collapse_rate", ("collapse_low", "collapse_high"), "collapses"),
    Measure("Worst tenth", "worst_tenth", ("worst_tenth_low", "worst_tenth_high")),
)


@settings()
def draw_stability(
    arms: pd.DataFrame, measure: Measure, labels: Sequence[str] | None = None, axes: Axes | None = None
) -> Axes:
    """Draw one measure of stability: a row for each arm, with a mark, its 95 % interval as a bar, and the number.

    Fewer than ten runs have no bar.

    Args:
        arms: table ``arms`` of one case.
        measure: one of :data:`MEASURES`.
        labels: all arms, in the order that decides their styles; default: those of the table.
        axes: where to draw; None for a new figure.
    """
    chosen = arm_styles(arms_in(labels, arms["optimizer"]))
    axes = panel(axes, 0.9 + 0.4 * len(chosen))
    by_arm = arms.set_index("optimizer")
    left = min(0.0, float(arms[[measure.value, measure.limits[0]]].min(axis=None)))
    right = max(1.0, float(arms[[measure.value, measure.limits[1]]].max(axis=None)))
    bar: dict[str, Any] = {"linewidth": 7, "solid_capstyle": "butt"}
    for row, (arm, look) in enumerate(chosen.items()):
        if arm not in by_arm.index:
            continue
        of_arm = by_arm.loc[arm]
        axes.plot([left, right], [row, row], color=TRACK, zorder=1, **bar)
        if of_arm["n"] >= FEW_SEEDS:
            axes.plot(of_arm[list(measure.limits)], [row, row], color=look.color, alpha=0.35, zorder=2, **bar)
        value = float(of_arm[measure.value])
        mark: dict[str, Any] = {"color": look.color, "marker": look.marker, "edgecolors": "white"}
        axes.scatter([value], [row], s=40, zorder=4, clip_on=False, **mark)
        text = f"{of_arm[measure.count_column]:.0f} of {of_arm['n']:.0f}" if measure.count_column else f"{value:.2f}"
        place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
        axes.text(1.0, row - 0.36, text, color=INK, size=7.5, **place)
    name_rows(axes, chosen)
    axes.set_ylim(len(chosen) - 0.55, -0.65)
    axes.set_xlim(left, right)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("share of runs" if measure.count_column else "score")
    if measure.count_column:
        axes.xaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
        axes.xaxis.set_major_formatter(percent)
    axes.set_title(measure.title)
    return axes
