"""What the figures of a diagnosis share: quantities along training, axes of environment steps, intervals."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from pgkit.diagnose.results import PointResult, Quantity, is_measured
from pgkit.plots.style import ArmStyle, arm_styles, short_number

Array = np.ndarray[Any, np.dtype[np.float64]]

NETWORKS = ("actor", "critic", "trunk")
GOOD, BAD = "#009e73", "#d55e00"
TICK_GAP = 0.085
"""Least distance of two ticks, as a share of the width of the panel."""


class Series(NamedTuple):
    """A quantity along training, each ``(K,)`` for the K points that have it; NaN where a number is missing."""

    env_steps: Array
    value: Array
    low: Array
    high: Array


def series(points: Sequence[PointResult], name: str) -> Series:
    """Return a quantity at all points that have it, also where it could not be measured.

    >>> series([PointResult("seed-0", 10.0, 0.0, False, {"return/mean": Quantity(9.5, 9.0, 10.0)})], "return/mean").low
    array([9.])
    """
    rows = [(p.env_steps, *p.quantities[name][:3]) for p in points if name in p.quantities]
    return Series(*np.array(rows, dtype=np.float64).reshape(-1, 4).T)


def measured(points: Sequence[PointResult], name: str) -> list[PointResult]:
    """Return the points where a quantity has a finite value."""
    return [point for point in points if name in point.quantities and is_measured(point.quantities[name])]


def parts_of(points: Sequence[PointResult], section: str, part: int = 1) -> list[str]:
    """Return one part of the names of a section's quantities, in the order in which they come.

    >>> parts_of([PointResult("seed-0", 0, 0, True, {"estimators/gae-1/bias2": Quantity(1.0)})], "estimators")
    ['gae-1']
    """
    names = (name.split("/") for point in points for name in point.quantities)
    return list(dict.fromkeys(parts[part] for parts in names if parts[0] == section and len(parts) > part + 1))


def network_styles() -> dict[str, ArmStyle]:
    """Return a style for each network."""
    return arm_styles(NETWORKS)


def root(env_steps: Any) -> Any:
    """Return the place of environment steps on a square-root axis, which gives early points more room."""
    return np.sqrt(np.asarray(env_steps, dtype=np.float64))


def root_axis(axes: Axes, points: Sequence[PointResult], gap: float = TICK_GAP) -> None:
    """Make the horizontal axis one of environment steps on a square-root scale, with ticks at points.

    Args:
        axes: where positions are :func:`root` of environment steps.
        points: all points of the figure.
        gap: least distance of two ticks, as a share of the width of the panel.
    """
    steps = sorted({point.env_steps for point in points})
    width = math.sqrt(steps[-1]) or 1.0
    ticks: list[float] = []
    for step in reversed(steps):  # the last has a tick
        if not ticks or root(ticks[-1]) - root(step) >= gap * width:
            ticks.append(step)
    axes.xaxis.set_major_locator(FixedLocator(root(ticks).tolist()))
    axes.xaxis.set_major_formatter(FixedFormatter([short_number(tick) for tick in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(-0.03 * width, 1.03 * width)
    axes.set_xlabel("environment steps (square-root scale)")


def point_axis(axes: Axes, points: Sequence[PointResult]) -> None:
    """Make the horizontal axis one with a place for each point, named by its environment steps."""
    axes.set_xticks(range(len(points)), [short_number(point.env_steps) for point in points])
    axes.set_xlim(-0.6, len(points) - 0.4)
    axes.grid(axis="x", visible=False)
    axes.set_xlabel("environment steps (one place for each point)")


def draw_series(axes: Axes, numbers: Series, look: ArmStyle, label: str | None = None) -> None:
    """Draw a quantity along training: a line through its values, with intervals."""
    places = root(numbers.env_steps)
    known = np.isfinite(numbers.value)
    style: dict[str, Any] = {"color": look.color, "marker": look.marker, "linestyle": look.dashes}
    axes.plot(places[known], numbers.value[known], **style, markersize=4, linewidth=1.5, label=label)
    draw_intervals(axes, places, numbers.low, numbers.high, look.color)


def draw_intervals(axes: Axes, places: Array, low: Array, high: Array, color: str) -> None:
    """Draw vertical intervals where both ends are finite."""
    known = np.isfinite(low) & np.isfinite(high)
    axes.vlines(places[known], low[known], high[known], color=color, linewidth=1.1, alpha=0.8)


def draw_log_series(axes: Axes, numbers: Series, look: ArmStyle, label: str | None = None) -> None:
    """Draw a positive quantity on a log axis; where it is not resolved, an open arrow up from its lower end."""
    places = root(numbers.env_steps)
    known = np.isfinite(numbers.value) & (numbers.value > 0)
    style: dict[str, Any] = {"color": look.color, "marker": look.marker, "linestyle": look.dashes}
    axes.plot(places[known], numbers.value[known], **style, markersize=4, linewidth=1.5, label=label)
    ends = known & (numbers.low > 0) & np.isfinite(numbers.high)
    draw_intervals(axes, places[ends], numbers.low[ends], numbers.high[ends], look.color)
    open_up = ~np.isfinite(numbers.value) | np.isposinf(numbers.high)
    arrow: dict[str, Any] = {
        "marker": "^",
        "markerfacecolor": "white",
        "color": look.color,
        "linestyle": "none",
        "markersize": 6,
    }
    for place, low, value in zip(places[open_up], numbers.low[open_up], numbers.value[open_up], strict=True):
        start = value if np.isfinite(value) else low
        if start > 0:
            end = (place, start), (0, 18)
            axes.annotate("", end[0], end[1], textcoords="offset points", arrowprops=_stem(look.color))
            axes.plot([place], [start], **(arrow | ({} if np.isfinite(value) else {"zorder": 4})))
        else:  # nothing is known: an arrow at the top of the panel
            axes.plot([place], [0.96], transform=axes.get_xaxis_transform(), **arrow)


def log_y(axes: Axes, *drawn: Series) -> None:
    """Make the vertical axis logarithmic, with room for arrows above and for an axis on which nothing is positive."""
    numbers = np.concatenate([part for each in drawn for part in (each.value, each.low, each.high)] or [np.empty(0)])
    positive = numbers[np.isfinite(numbers) & (numbers > 0)]
    low, high = (positive.min(), positive.max()) if len(positive) else (0.1, 10.0)
    axes.set_yscale("log")
    axes.set_ylim(low / 1.6, high * 3.0)


def symlog(axes: Axes, axis: str, values: Sequence[float], decades: int = 3) -> None:
    """Make an axis logarithmic on both sides of 0: linear within ``decades`` decades below the largest value.

    Ticks are at 0 and, on each side, at the largest power of ten; on vertical axes at all powers.
    """
    sizes = [abs(value) for value in values if math.isfinite(value) and value]
    threshold = 10.0 ** (math.floor(math.log10(max(sizes, default=1.0))) - decades)
    ticks = {0.0}
    for sign in (1.0, -1.0):
        largest = max((sign * value for value in values if math.isfinite(value)), default=0.0)
        while largest >= threshold:
            ticks.add(sign * 10.0 ** math.floor(math.log10(largest)))
            largest = largest / 10 if axis == "y" else 0.0
    scale, chosen = (axes.set_xscale, axes.xaxis) if axis == "x" else (axes.set_yscale, axes.yaxis)
    scale("symlog", linthresh=threshold, linscale=0.5)
    chosen.set_major_locator(FixedLocator(sorted(ticks)))
    chosen.set_minor_locator(NullLocator())
    chosen.set_major_formatter(signed)


def signed(value: float, _: object = None) -> str:
    """Format a number of any size with its sign: -10k, 0, 0.01."""
    return short_number(value).replace("-", "\u2212")


def is_finite(number: float | None) -> bool:
    """Whether a cell of a table holds a finite number."""
    return number is not None and math.isfinite(number)


def finite_interval(quantity: Quantity) -> tuple[float, float] | None:
    """Return the ends of an interval if both are finite."""
    return (quantity.low, quantity.high) if math.isfinite(quantity.low) and math.isfinite(quantity.high) else None


def _stem(color: str) -> dict[str, Any]:
    return {"arrowstyle": "<-", "color": color, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 3}
