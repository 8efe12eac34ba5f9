"""Figures of gradients: noise and cosines along training, estimators on the same data, curvature.

Each function takes the points of one member and returns a figure, or None where there is nothing to draw.
"""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from pgkit.diagnose.report.axes import (
    NETWORKS,
    draw_log_series,
    draw_series,
    finite_interval,
    is_finite,
    log_y,
    measured,
    network_styles,
    parts_of,
    root,
    root_axis,
    series,
    signed,
    symlog,
)
from pgkit.diagnose.results import PointResult, Quantity, Row, is_measured
from pgkit.plots.style import FAINT, INK, SOLID, ArmStyle, new_figure, percent, settings, short_number

VARIANCE, BIAS = "#0072b2", "#d55e00"
DIRECTIONS = {"top": "most positive", "bottom": "most negative", "gradient": "gradient", "mean_update": "mean update"}
PRODUCTS, DIFFERENCES = "#0072b2", "#c77700"
PANELS = 5
"""Points in a row of small multiples, where none was looked at closely."""

FLOOR_DECADES = 4
"""Decades of a log axis of bars; smaller values, and negative ones, end at its left edge."""


@settings()
def draw_noise(points: Sequence[PointResult]) -> Figure | None:
    """Draw the noise-to-signal ratio of a batch and the median norm of its gradient along training, both log."""
    networks = [n for n in NETWORKS if any(f"noise/{n}/nsr" in p.quantities for p in points)]
    if not networks:
        return None
    figure = new_figure(4.2)
    above, below = figure.subplots(2, 1, sharex=True)
    for axes, measure, label in (
        (above, "nsr", "noise / signal\nof one batch"),
        (below, "grad_norm", "norm of gradient"),
    ):
        drawn = [series(points, f"noise/{network}/{measure}") for network in networks]
        log_y(axes, *drawn)
        for network, numbers in zip(networks, drawn, strict=True):
            draw_log_series(axes, numbers, network_styles()[network], network if measure == "nsr" else None)
        axes.set_ylabel(label)
    above.axhline(1, color=FAINT, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
    root_axis(below, points)
    above.set_title("Noise of the gradient")
    figure.legend(loc="outside upper right", ncols=3, handlelength=2.4)
    return figure


@settings()
def draw_cosines(points: Sequence[PointResult]) -> Figure | None:
    """Draw the mean cosine of two batches' gradients, and of a batch's with the expected gradient."""
    names = [(n, m) for m in ("pairwise_cosine", "true_cosine") for n in NETWORKS if measured(points, f"noise/{n}/{m}")]
    if not names:
        return None
    figure = new_figure(3.0)
    axes = figure.add_subplot()
    for network, measure in names:
        look = network_styles()[network]
        dashes, label = (SOLID, "true gradient") if measure == "true_cosine" else ((0, (1.2, 1.2)), "another batch")
        numbers = series(points, f"noise/{network}/{measure}")
        draw_series(axes, numbers, ArmStyle(look.color, look.marker, dashes), f"{network} to {label}")
    for network in dict.fromkeys(network for network, measure in names if measure == "pairwise_cosine"):
        ratios = series(points, f"noise/{network}/nsr")
        axes.plot(root(ratios.env_steps), 1 / (1 + ratios.value), "x", color=FAINT, markersize=5)
    axes.plot([], [], "x", color=FAINT, label="1 / (1 + NSR): isotropic noise")
    axes.axhline(0, color=INK, linewidth=0.8)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -1.05), min(max(high, 0.1), 1.05))
    root_axis(axes, points)
    axes.set_ylabel("cosine")
    axes.set_title("Do batches agree?")
    figure.legend(loc="outside upper left", ncols=2, handlelength=2.4)
    return figure


@settings()
def draw_pairwise_cosines(points: Sequence[PointResult], cosines: Sequence[Row]) -> Figure | None:
    """Draw the histogram of all pairs' cosines: a row for each network, a column for each point looked at closely.

    Args:
        points: of one member; if none was looked at closely, the last ones are shown.
        cosines: rows of the table ``cosines`` of that member, see :func:`pgkit.diagnose.cosines.cosine_histogram`.
    """
    having = [point for point in points if any(row["env_steps"] == point.env_steps for row in cosines)]
    shown = [point for point in having if point.critical] or having[-PANELS:]
    if not shown:
        return None
    networks = [network for network in NETWORKS if any(row["network"] == network for row in cosines)]
    figure = new_figure(0.7 + 1.3 * len(networks))
    panels = figure.subplots(len(networks), len(shown), sharex=True, squeeze=False)
    for network, row in zip(networks, panels, strict=True):
        for axes, point in zip(row, shown, strict=True):
            bins = [each for each in cosines if (each["network"], each["env_steps"]) == (network, point.env_steps)]
            _draw_bins(axes, bins, point.quantities.get(f"noise/{network}/nsr"), network_styles()[network].color)
        row[0].set_ylabel(network)
    for axes, point in zip(panels[0], shown, strict=True):
        axes.set_title(f"at {short_number(point.env_steps)}")
    figure.supxlabel("cosine of two batches' gradients", fontsize=8.5)
    figure.supylabel("share of pairs", fontsize=8.5)
    return figure


def _draw_bins(axes: Axes, bins: Sequence[Row], ratio: Quantity | None, color: str) -> None:
    """Draw one histogram, and where isotropic noise would put its mean."""
    total = sum(row["count"] for row in bins)
    for row in bins:
        width = row["high"] - row["low"]
        axes.bar(row["low"], row["count"] / total, width, align="edge", color=color, alpha=0.85, linewidth=0)
    if ratio is not None and is_measured(ratio):
        axes.axvline(1 / (1 + ratio.value), color=INK, linewidth=1.2, linestyle=(0, (1.2, 1.2)))
    axes.set_xlim(-1.05, 1.05)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(percent)
    axes.axvline(0, color=INK, linewidth=0.8)


@settings()
def draw_estimators(points: Sequence[PointResult]) -> Figure | None:
    """Draw variance and squared bias of each gradient estimator on the same data, a row of panels for each point."""
    names = parts_of(points, "estimators")
    shown = [point for point in points if any(f"estimators/{name}/variance" in point.quantities for name in names)]
    if not shown:
        return None
    figure = new_figure((0.5 + 0.17 * len(names)) * len(shown) + 0.3)
    panels = figure.subplots(len(shown), 2, sharey=True, sharex="col", squeeze=False)
    columns = (("variance", VARIANCE, "variance of a batch's gradient"), ("bias2", BIAS, "bias² / |G|²"))
    for column, (measure, color, label) in enumerate(columns):
        values = [p.quantities.get(f"estimators/{n}/{measure}", Quantity(math.nan)) for p in shown for n in names]
        floor = min(_log_floor(values), 0.1) if measure == "bias2" else _log_floor(values)
        for axes, point in zip(panels[:, column], shown, strict=True):
            for row, name in enumerate(names):
                quantity = point.quantities.get(f"estimators/{name}/{measure}", Quantity(math.nan))
                _log_bar(axes, row, quantity, floor, color)
            _log_bar_axis(axes, floor)
            axes.set_yticks(range(len(names)), names)
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.tick_params(axis="y", length=0)
        panels[-1, column].set_xlabel(f"{label} (log)")
    for axes, point in zip(panels[:, 0], shown, strict=True):
        axes.set_title(f"at {short_number(point.env_steps)} steps")
    for axes in panels[:, 1]:
        axes.axvline(1, color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
    return figure


def _log_floor(values: Sequence[Quantity]) -> float:
    """The left end of a log axis of bars."""
    positive = [q.value for q in values if is_measured(q) and q.value > 0]
    largest, smallest = max(positive, default=1.0), min(positive, default=1.0)
    return 10.0 ** math.floor(math.log10(max(smallest, largest / 10**FLOOR_DECADES)) - 0.3)


def _log_bar(axes: Axes, row: int, quantity: Quantity, floor: float, color: str) -> None:
    """Draw a bar with its interval; a value that is not above the floor becomes an open triangle at the edge."""
    if not is_measured(quantity):
        axes.annotate("not resolved", (0, row), (3, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                      va="center", color=FAINT, fontsize=6.5)  # fmt: skip
    elif quantity.value > floor:
        axes.barh(row, quantity.value - floor, 0.66, floor, color=color, alpha=0.85)
    else:
        axes.plot([floor], [row], "<", color="white", markeredgecolor=color, markersize=5, clip_on=False, zorder=4)
    ends = finite_interval(quantity)
    if ends is not None and ends[1] > floor:
        axes.hlines(row, max(ends[0], floor), ends[1], color=INK, linewidth=1.1)


def _log_bar_axis(axes: Axes, floor: float) -> None:
    axes.set_xscale("log")
    axes.set_xlim(left=floor)
    axes.xaxis.set_major_locator(LogLocator(numticks=6))
    axes.xaxis.set_major_formatter(signed)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", visible=False)


@settings()
def draw_curvature(points: Sequence[PointResult]) -> Figure | None:
    """Draw the curvature of the return along named directions: by products as bars, by differences as marks."""
    shown = [p for p in points if any(f"curvature/{name}" in p.quantities for name in DIRECTIONS)]
    if not shown:
        return None
    names = {**DIRECTIONS, **{f"{name}_differences": "" for name in ("top", "bottom")}}
    values = [p.quantities[f"curvature/{n}"] for p in shown for n in names if f"curvature/{n}" in p.quantities]
    figure = new_figure(0.9 + 0.34 * len(DIRECTIONS))
    panels = figure.subplots(1, len(shown), sharey=True, sharex=True, squeeze=False)[0]
    for axes, point in zip(panels, shown, strict=True):
        symlog(axes, "x", [number for quantity in values for number in quantity[:3]])
        for row, name in enumerate(DIRECTIONS):
            _curvature_bar(axes, row, point.quantities.get(f"curvature/{name}"))
            _curvature_mark(axes, row + 0.27, point.quantities.get(f"curvature/{name}_differences"))
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(DIRECTIONS)), list(DIRECTIONS.values()))
        axes.set_ylim(len(DIRECTIONS) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.set_title(f"at {short_number(point.env_steps)}")
        axes.tick_params(axis="x", labelsize=7)
    panels[0].bar([], [], color=PRODUCTS, label="by products")
    panels[0].plot([], [], "D", color=DIFFERENCES, markersize=5, label="by differences of the return")
    figure.legend(loc="outside upper right", ncols=2, handlelength=1.2)
    figure.supxlabel("curvature of the return, v'Hv (log on both sides of 0)", fontsize=8.5)
    return figure


def _curvature_bar(axes: Axes, row: float, quantity: Quantity | None) -> None:
    if quantity is not None and is_measured(quantity):
        axes.barh(row, quantity.value, 0.4, color=PRODUCTS, alpha=0.85)
        if ends := finite_interval(quantity):
            axes.hlines(row, *ends, color=INK, linewidth=1.2)


def _curvature_mark(axes: Axes, row: float, quantity: Quantity | None) -> None:
    if quantity is not None and is_measured(quantity):
        if ends := finite_interval(quantity):
            axes.hlines(row, *ends, color=DIFFERENCES, linewidth=1.2)
        axes.plot([quantity.value], [row], "D", color=DIFFERENCES, markersize=4)


@settings()
def draw_probes(points: Sequence[PointResult], curvature: Sequence[Row]) -> Figure | None:
    """Draw slope against curvature of all directions, random ones faint, a panel for each point.

    Args:
        points: of one member.
        curvature: rows of the table ``curvature`` of that member.
    """
    rows = [row for row in curvature if row["method"] == "products" and is_finite(row.get("slope"))]
    steps = sorted({row["env_steps"] for row in rows} & {point.env_steps for point in points})
    if not steps:
        return None
    figure = new_figure(2.5)
    panels = figure.subplots(1, len(steps), sharey=True, squeeze=False)[0]
    for axes, step in zip(panels, steps, strict=True):
        symlog(axes, "y", [row["value"] for row in rows])
        at_point = [row for row in rows if row["env_steps"] == step]
        symlog(axes, "x", [row["slope"] for row in at_point], decades=1)
        for row in at_point:
            name = DIRECTIONS.get(row["direction"])
            color = FAINT if name is None else PRODUCTS
            axes.vlines(row["slope"], row["low"], row["high"], color=color, linewidth=0.8, alpha=0.5)
            axes.plot([row["slope"]], [row["value"]], "o", color=color, markersize=3 if name is None else 5)
            if name is not None:
                axes.annotate(name, (row["slope"], row["value"]), (4, 3), textcoords="offset points", fontsize=6.5)
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.margins(x=0.25)
        axes.set_title(f"at {short_number(step)}")
        axes.tick_params(axis="x", labelsize=7)
    panels[0].set_ylabel("curvature v'Hv")
    figure.supxlabel("slope along v", fontsize=8.5)
    return figure
