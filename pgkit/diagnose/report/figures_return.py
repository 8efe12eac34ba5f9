"""Figures of the return: along training, after the next updates, taken apart, and with one thing changed.

Each function takes the points of one member and returns a figure, or None where there is nothing to draw.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pgkit.diagnose.report.axes import (
    BAD,
    GOOD,
    Array,
    draw_intervals,
    finite_interval,
    is_finite,
    measured,
    parts_of,
    point_axis,
    root,
    root_axis,
    series,
)
from pgkit.diagnose.results import PointResult, Quantity, Row, Verdict, is_measured
from pgkit.plots.style import FAINT, INK, ArmStyle, name_rows, new_figure, percent, settings, short_number

AS_IT_IS, CHANGED, FIRST, SECOND = INK, "#0072b2", "#56a0d3", "#c77700"

INTERVENTIONS: Mapping[str, str] = {
    "batch_x8": "batch \u00d7 8",
    "rate_div_10": "rate / 10, equal travel",
    "critic_fitted": "critic fitted first",
    "optimizer_reset": "optimizer reset",
    "lambda_1": "lambda 1",
}
"""How interventions are called in figures and tables."""

PARTS = (("odd", "#0072b2", "signal (odd)"), ("even", "#d55e00", "overshoot (even)"), ("gap", "#999999", "noise (gap)"))


@settings()
def draw_timeline(
    points: Sequence[PointResult], verdicts: Sequence[Verdict] = (), reference: float | None = None
) -> Figure | None:
    """Draw the return J along training, with what is said of each point below.

    Args:
        points: of one member.
        verdicts: of the same member.
        reference: the return at which the environment counts as solved, drawn as a line.
    """
    shown = measured(points, "return/mean")
    if not shown:
        return None
    rules = list(dict.fromkeys(verdict.rule for verdict in verdicts if verdict.env_steps))
    figure = new_figure(2.6 + 0.24 * len(rules))
    heights = (2.2, max(0.24 * len(rules), 0.01))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=heights) if rules else (figure.add_subplot(), None)
    _draw_returns(above, shown, reference)
    if below is not None:
        for row, rule in enumerate(rules):
            steps = [step for verdict in verdicts if verdict.rule == rule for step in verdict.env_steps]
            color = GOOD if rule == "healthy" else BAD
            below.plot(root(steps), [row] * len(steps), "o", color=color, markersize=6, clip_on=False)
        below.set_yticks(range(len(rules)), rules)
        below.set_ylim(len(rules) - 0.5, -0.5)
        below.tick_params(axis="y", length=0)
        below.grid(axis="y", visible=False)
        above.set_xlabel("")
    root_axis(above if below is None else below, points)
    above.set_title("Return along training" + (", and what is said of each point" if rules else ""))
    return figure


def _draw_returns(axes: Axes, points: Sequence[PointResult], reference: float | None) -> None:
    numbers = series(points, "return/mean")
    places = root(numbers.env_steps)
    axes.plot(places, numbers.value, color=CHANGED, linewidth=1.8, marker="o", markersize=4)
    known = np.isfinite(numbers.low) & np.isfinite(numbers.high)
    axes.fill_between(places[known], numbers.low[known], numbers.high[known], color=CHANGED, alpha=0.18, linewidth=0)
    draw_intervals(axes, places, numbers.low, numbers.high, CHANGED)
    critical = series([point for point in points if point.critical], "return/mean")
    axes.plot(root(critical.env_steps), critical.value, "o", color=INK, fillstyle="none", markersize=10)
    random = measured(points, "return/random")
    lines = [("random actions", random[0].quantities["return/random"].value, "right")] if random else []
    lines += [("solved", reference, "left")] if reference is not None and math.isfinite(reference) else []
    for name, height, side in lines:
        axes.axhline(height, color=FAINT, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": side}
        axes.annotate(name, (float(side == "right"), height), (0, 2), **place, color=FAINT, fontsize=7)
    axes.set_ylabel("return J")


@settings()
def draw_post_update(points: Sequence[PointResult], updates: Sequence[Row]) -> Figure | None:
    """Draw the returns of copies after one update (left halves) and after K (right halves), and P(half) below.

    Args:
        points: of one member.
        updates: rows of the table ``updates`` of that member.
    """
    returns = _returns_by_point(points, updates)
    shown = [point for point in points if any(key[0] == point.env_steps for key in returns)]
    if not shown:
        return None
    figure = new_figure(4.0)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
    largest = max(count for _, count in returns)
    heights = np.concatenate(list(returns.values()))
    heights = heights[np.isfinite(heights)]
    floor = 0.012 * max(float(np.ptp(heights)), 1e-9) if len(heights) else 1.0
    for place, point in enumerate(shown):
        for (steps, count), values in returns.items():
            if steps == point.env_steps:
                side, color = (1.0, SECOND) if count == largest and largest > 1 else (-1.0, FIRST)
                _half_violin(above, place, values, side, color, floor)
    before = series(shown, "return/mean")
    names = [point.env_steps for point in shown]
    places = np.array([names.index(step) for step in before.env_steps], dtype=np.float64)
    above.hlines(before.value, places - 0.45, places + 0.45, color=INK, linewidth=1.3)
    above.plot(places, before.value, color=INK, linewidth=0.7, alpha=0.5)
    above.set_ylabel("return")
    _draw_half_shares(below, shown)
    point_axis(below, shown)
    above.grid(axis="x", visible=False)
    above.set_title(f"Returns of copies after 1 and after {largest} more updates")
    named = [(FIRST, "after 1"), *([(SECOND, f"after {largest}")] if largest > 1 else [])]
    handles: list[Artist] = [Patch(color=color, alpha=0.75, label=label) for color, label in named]
    handles.append(Line2D([], [], color=INK, label="before, J"))
    figure.legend(handles=handles, loc="outside upper right", ncols=3, handlelength=1.6)
    return figure


def _returns_by_point(points: Sequence[PointResult], updates: Sequence[Row]) -> dict[tuple[float, int], Array]:
    """Returns of copies as they are, by (environment steps of the point, number of updates)."""
    known = {point.env_steps for point in points}
    lists: dict[tuple[float, int], list[float]] = {}
    for row in updates:
        if row["intervention"] == "none" and row["env_steps"] in known:
            lists.setdefault((row["env_steps"], row["updates"]), []).append((row["j_a"] + row["j_b"]) / 2)
    return {key: np.array(values, dtype=np.float64) for key, values in lists.items()}


def _half_violin(axes: Axes, place: float, values: Array, side: float, color: str, floor: float) -> None:
    """Draw one half of a violin, with a dot for the mean; ``floor`` is the least width of the kernel."""
    values = values[np.isfinite(values)]
    if not len(values):
        return
    bandwidth = max(1.06 * float(values.std()) * len(values) ** -0.2, floor)
    heights = np.linspace(values.min() - floor, values.max() + floor, 100)
    density = np.exp(-(((heights[:, None] - values) / bandwidth) ** 2) / 2).mean(1)
    widths = 0.42 * side * density / density.max()
    axes.fill_betweenx(heights, place, place + widths, color=color, alpha=0.75, linewidth=0)
    axes.plot([place + 0.12 * side], [values.mean()], "o", color="white", markeredgecolor=INK, markersize=3.5)


def _draw_half_shares(axes: Axes, points: Sequence[PointResult]) -> None:
    """Draw P(half) after one update and after K as bars with intervals."""
    for updates, shift, color in (("1", -0.14, FIRST), ("K", 0.14, SECOND)):
        name = f"post_update/{updates}/half_share"
        for place, point in enumerate(points):
            quantity = point.quantities.get(name)
            if quantity is not None and is_measured(quantity):
                axes.bar(place + shift, quantity.value, 0.26, color=color)
                ends = finite_interval(quantity)
                axes.vlines(place + shift, *(ends or (math.nan, math.nan)), color=INK, linewidth=1.0)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(percent)
    axes.set_ylabel("fell below\nhalf of J")


@settings()
def draw_parts(points: Sequence[PointResult]) -> Figure | None:
    """Draw what one update changes, on average: signal, overshoot and noise stacked, and their sum."""
    shown = measured(points, "parts/odd")
    if not shown:
        return None
    figure = new_figure(2.6)
    axes = figure.add_subplot()
    up, down = np.zeros(len(shown)), np.zeros(len(shown))
    for name, color, label in PARTS:
        heights = np.nan_to_num([_value(point, f"parts/{name}") for point in shown], posinf=0.0, neginf=0.0)
        axes.bar(range(len(shown)), heights, 0.6, np.where(heights > 0, up, down), color=color, label=label)
        up, down = up + np.maximum(heights, 0), down + np.minimum(heights, 0)
    total = [point.quantities.get("parts/total", Quantity(math.nan)) for point in shown]
    places = np.arange(len(shown), dtype=np.float64)
    low, high = (np.array([quantity[end] for quantity in total]) for end in (1, 2))
    draw_intervals(axes, places, low, high, INK)
    axes.plot(places, [q.value for q in total], "D", color="white", markeredgecolor=INK, markersize=5, label="sum")
    axes.axhline(0, color=INK, linewidth=0.8)
    point_axis(axes, shown)
    axes.set_ylabel("mean change of return")
    axes.set_title("One update, taken apart")
    figure.legend(loc="outside upper right", ncols=4, handlelength=1.2)
    return figure


@settings()
def draw_interventions(points: Sequence[PointResult]) -> Figure | None:
    """Draw P_K(half) as it is and with one thing changed, a panel for each critical point."""
    names = parts_of(points, "interventions")
    shown = [point for point in points if any(_has(point, f"interventions/{name}/half_share") for name in names)]
    if not shown:
        return None
    rows = {"as it is": "post_update/K", **{INTERVENTIONS.get(n, n): f"interventions/{n}" for n in names}}
    figure = new_figure(0.9 + 0.28 * len(rows))
    for axes, point in _panels(figure, shown):
        for row, stem in enumerate(rows.values()):
            gain = point.quantities.get(f"{stem}/improvement", Quantity(math.nan))
            color = AS_IT_IS if row == 0 else CHANGED if gain.low > 0 else BAD if gain.high < 0 else FAINT
            _draw_dot(axes, row, point.quantities.get(f"{stem}/half_share"), color, filled=row == 0 or gain.excludes(0))
        axes.axvline(_value(point, "post_update/K/half_share"), color=INK, linewidth=0.8, linestyle=(0, (1, 2)))
        _share_axis(axes, list(rows))
    figure.supxlabel("share of copies that fall below half of the return", fontsize=8.5)
    return figure


@settings()
def draw_directions(points: Sequence[PointResult]) -> Figure | None:
    """Draw P_1(half) of other optimizers' updates, scaled to equal KL and to equal length; a panel for each point."""
    names = parts_of(points, "directions")
    shown = [p for p in points if any(_has(p, f"directions/{n}/{e}/half_share") for n in names for e in ("kl", "norm"))]
    if not shown:
        return None
    figure = new_figure(1.1 + 0.28 * len(names))
    for axes, point in _panels(figure, shown):
        for row, name in enumerate(names):
            for equal, shift, color in (("kl", -0.13, CHANGED), ("norm", 0.13, SECOND)):
                _draw_dot(axes, row + shift, point.quantities.get(f"directions/{name}/{equal}/half_share"), color, True)
        _share_axis(axes, names)
    for label, color in (("at equal KL", CHANGED), ("at equal length", SECOND)):
        figure.axes[0].plot([], [], "o", color=color, label=label)
    figure.legend(loc="outside upper right", ncols=2, handlelength=1.2)
    figure.supxlabel("share of copies below half of the return after one update", fontsize=8.5)
    return figure


@settings()
def draw_same_states(rows: Sequence[Row], arms: Mapping[str, ArmStyle]) -> Figure | None:
    """Draw the mean return after K updates of each arm from the same policies, a panel for each policy.

    Args:
        rows: table ``same_states``: an arm (``label``) at a policy (``env_steps``), with quantities as in ``points``.
        arms: all arms, in their order.
    """
    name = "post_update/K/mean"
    shown = [row for row in rows if is_finite(row.get(name)) and row["label"] in arms]
    steps = list(dict.fromkeys(row["env_steps"] for row in shown))
    if not shown:
        return None
    figure = new_figure(0.9 + 0.28 * len(arms))
    panels: Any = figure.subplots(1, len(steps), sharey=True, squeeze=False)[0]
    for axes, step in zip(panels, steps, strict=True):
        at_policy = [row for row in shown if row["env_steps"] == step]
        for row in at_policy:
            low, high = (math.nan if row.get(end) is None else row[end] for end in (f"{name}_low", f"{name}_high"))
            quantity = Quantity(row[name], low, high)
            place = list(arms).index(row["label"])
            _draw_dot(axes, place, quantity, arms[row["label"]].color, filled=True)
        axes.axvline(at_policy[0].get("return/mean") or math.nan, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
        axes.set_title(f"at {short_number(step)}")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    name_rows(panels[0], arms)
    figure.supxlabel("mean return after K updates; dotted: before", fontsize=8.5)
    return figure


def _panels(figure: Figure, points: Sequence[PointResult]) -> list[tuple[Axes, PointResult]]:
    """A panel for each point, named by its environment steps, with one vertical axis."""
    panels: Any = figure.subplots(1, len(points), sharey=True, squeeze=False)[0]
    for axes, point in zip(panels, points, strict=True):
        axes.set_title(f"at {short_number(point.env_steps)}")
    return list(zip(panels, points, strict=True))


def _draw_dot(axes: Axes, row: float, quantity: Quantity | None, color: str, filled: bool) -> None:
    """Draw a quantity with its interval in a row."""
    if quantity is None or not is_measured(quantity):
        return
    ends = finite_interval(quantity)
    axes.hlines(row, *(ends or (math.nan, math.nan)), color=color, linewidth=1.4)
    face = color if filled else "white"
    axes.plot([quantity.value], [row], "o", color=face, markeredgecolor=color, markersize=5.5)


def _share_axis(axes: Axes, rows: Sequence[str]) -> None:
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlim(-0.04, 1.04)
    axes.set_xticks((0, 0.5, 1), ("0", "50 %", "100 %"))


def _value(point: PointResult, name: str) -> float:
    return point.quantities[name].value if name in point.quantities else math.nan


def _has(point: PointResult, name: str) -> bool:
    return math.isfinite(_value(point, name))
