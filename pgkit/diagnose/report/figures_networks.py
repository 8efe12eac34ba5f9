"""Figures of the critic and of the health of policy and networks.

Each function takes the points of one member and returns a figure, or None where there is nothing to draw.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from pgkit.diagnose.report.axes import NETWORKS, draw_series, measured, network_styles, root_axis, series
from pgkit.diagnose.results import PointResult, Row, is_measured
from pgkit.plots.style import FAINT, INK, SOLID, ArmStyle, new_figure, percent, settings, short_number

EXPLAINED = (
    ("explained_variance", "#0072b2", "o", "nothing behind the limit"),
    ("explained_variance_bootstrapped", "#c77700", "s", "V behind the limit"),
    ("explained_variance_far", "#009e73", "^", "far from the limit"),
)

UNITS = (
    ("saturated", "#d55e00", "saturated"),
    ("flat", "#7a1f4e", "flat slope"),
    ("constant", "#0072b2", "constant"),
    ("dormant", "#56a0d3", "dormant"),
)
RANKS = (("srank", "#0072b2", "srank"), ("effective_rank", "#c77700", "effective rank"))
POLICY = (
    ("entropy", "#0072b2", "o", "entropy"),
    ("certain", "#d55e00", "s", "certain states"),
    ("log_std", "#009e73", "^", "log std"),
)
DASHES = {"actor": SOLID, "critic": (0, (1.2, 1.2)), "trunk": (0, (5, 1.5))}
LEAST_FLOOR = -5.0
"""Explained variance below this is drawn at the edge."""


@settings()
def draw_critic(points: Sequence[PointResult], histogram: Sequence[Row] = ()) -> Figure | None:
    """Draw values against Monte-Carlo returns at each critical point, and explained variance along training.

    Args:
        points: of one member.
        histogram: rows of the table ``critic_histogram`` of that member: ``value`` and ``target``, middles of a cell,
            ``width``, the length of its sides, and ``count``, its number of steps.
    """
    known = [name for name, *_ in EXPLAINED if measured(points, f"critic/{name}")]
    steps = sorted({row["env_steps"] for row in histogram} & {point.env_steps for point in points})
    if not known and not steps:
        return None
    figure = new_figure(2.4 + (2.1 if steps else 0))
    if steps:
        above, below = np.ravel(figure.subfigures(2, 1, squeeze=False, height_ratios=(2.1, 2.4)))
        panels = above.subplots(1, len(steps), squeeze=False)[0]
        for axes, step in zip(panels, steps, strict=True):
            _draw_histogram(axes, [row for row in histogram if row["env_steps"] == step])
            axes.set_title(f"at {short_number(step)}")
        panels[0].set_ylabel("return G")
        above.supxlabel("value V", fontsize=8.5)
    else:
        below = figure.subfigures(1, 1, squeeze=False)[0, 0]
    axes = below.add_subplot()
    for name, color, marker, label in EXPLAINED:
        if name in known:
            draw_series(axes, series(points, f"critic/{name}"), ArmStyle(color, marker, SOLID), label)
    lowest = min(axes.get_ylim()[0], -0.1)
    axes.set_ylim(max(lowest, LEAST_FLOOR), 1.05)
    for height in (0, 1):
        axes.axhline(height, color=INK, linewidth=0.8, linestyle=SOLID if height else (0, (4, 2)))
    axes.set_ylabel("explained variance")
    if known:
        axes.legend(loc="best", fontsize=7)
    root_axis(axes, points)
    return figure


def _draw_histogram(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw the cells of one point, all squares of one size, and the diagonal on which values are right."""
    width = rows[0]["width"]
    middles = [row[name] for row in rows for name in ("value", "target")]
    low, high = min(middles), max(middles)
    count = 1 + round((high - low) / width)
    cells = np.zeros((count, count))
    for row in rows:
        cells[round((row["target"] - low) / width), round((row["value"] - low) / width)] += row["count"]
    edges = low - width / 2 + width * np.arange(count + 1)
    norm = LogNorm(1, max(2.0, cells.max()))
    shown = np.ma.masked_less(cells, 1)
    axes.pcolormesh(edges, edges, shown, cmap="Blues", norm=norm, rasterized=True)
    axes.plot(edges[[0, -1]], edges[[0, -1]], color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
    axes.set_aspect("equal")
    axes.locator_params(nbins=5)


@settings()
def draw_health(points: Sequence[PointResult]) -> Figure | None:
    """Draw policy, hidden units, ranks and weights along training."""
    networks = [n for n in NETWORKS if any(name.startswith(f"health/{n}/") for p in points for name in p.quantities)]
    if not any(n.startswith("health/") and is_measured(q) for point in points for n, q in point.quantities.items()):
        return None
    figure = new_figure(4.6)
    (policy, units), (ranks, weights) = figure.subplots(2, 2, sharex=True)
    for measure, color, marker, label in POLICY:
        if measured(points, f"health/policy/{measure}"):
            numbers = series(points, f"health/policy/{measure}")
            draw_series(policy, numbers, ArmStyle(color, marker, SOLID), label)
    for axes, measures in ((units, UNITS), (ranks, RANKS)):
        for measure, color, label in measures:
            _draw_networks(axes, points, networks, measure, color, label)
    for network in networks:
        look = network_styles()[network]
        numbers = series(points, f"health/{network}/weight_norm")
        draw_series(weights, numbers, ArmStyle(look.color, look.marker, DASHES[network]), network)
    units.set_ylim(-0.03, 1.03)
    units.yaxis.set_major_formatter(percent)
    titles = ("Policy", "Hidden units", "Ranks of features", "Norm of weights")
    for axes, title in zip((policy, units, ranks, weights), titles, strict=True):
        axes.set_title(title)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="best", fontsize=6.5, handlelength=1.6)
        root_axis(axes, points, gap=0.19)
        axes.set_xlabel("")
        axes.tick_params(axis="x", labelsize=7)
    figure.supxlabel("environment steps (square-root scale); dotted: critic", fontsize=8.5)
    return figure


def _draw_networks(
    axes: Axes, points: Sequence[PointResult], networks: Sequence[str], measure: str, color: str, label: str
) -> None:
    """Draw one measure of each network: solid for the actor, dotted for the critic, dashed for the trunk."""
    for network in networks:
        if measured(points, f"health/{network}/{measure}"):
            look = ArmStyle(color, network_styles()[network].marker, DASHES[network])
            first = network == networks[0]
            draw_series(axes, series(points, f"health/{network}/{measure}"), look, label if first else None)
    if measure == "srank":
        axes.set_ylim(bottom=0)
        axes.tick_params(axis="y", color=FAINT)
