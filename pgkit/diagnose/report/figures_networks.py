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
            and ``count``, its number of steps; see :func:`histogram_rows`.
    """
    known = [name for name, *_ in EXPLAINED if measured(points, f"critic/{name}")]
    steps = sorted({row["env_steps"] for row in histogram} & {point.env_steps for point in points})
    if not known and not steps:
        return None
    figure = new_figure(2.4 + (2.1 if steps else 0))
    if steps:
        above, below = np.ravel(figure.subfigures(2, 1, squeeze=False, height_ratios=(2.1, 2.4)))
        panels = above.subplots(1, len(steps), sharey=True, sharex=True, squeeze=False)[0]
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
    """Draw the cells of one point, and the diagonal on which values are right."""
    values, targets = (np.unique([row[name] for row in rows]) for name in ("value", "target"))
    counts = np.zeros((len(targets), len(values)))
    for row in rows:
        place = np.searchsorted(targets, row["target"]), np.searchsorted(values, row["value"])
        counts[place] += row["count"]
    if counts.max() > 0:
        norm = LogNorm(1, max(2.0, counts.max()))
        axes.pcolormesh(
            values, targets, np.ma.masked_less(counts, 1), cmap="Blues", norm=norm, shading="nearest", rasterized=True
        )
    low, high = min(values.min(), targets.min()), max(values.max(), targets.max())
    axes.plot([low, high], [low, high], color=INK, linewidth=0.8, linestyle=(0, (4, 2)))


def histogram_rows(values: Sequence[float], targets: Sequence[float], bins: int = 30) -> list[Row]:
    """Count steps by value and Monte-Carlo return: the rows of the table ``critic_histogram``.

    Empty cells are left out.

    >>> histogram_rows([1.0, 1.0, 3.0], [2.0, 2.0, 4.0], bins=2)
    [{'value': 1.5, 'target': 2.5, 'count': 2}, {'value': 2.5, 'target': 3.5, 'count': 1}]

    Args:
        values: ``(n,)``, V of n steps.
        targets: ``(n,)``, their returns G; steps where one of both is not finite are left out.
        bins: cells along each axis.
    """
    pairs = np.stack([np.asarray(values, dtype=np.float64), np.asarray(targets, dtype=np.float64)])
    pairs = pairs[:, np.isfinite(pairs).all(0)]
    if not pairs.shape[1]:
        return []
    counts, *edges = np.histogram2d(pairs[0], pairs[1], bins=bins)
    x, y = ((ends[1:] + ends[:-1]) / 2 for ends in edges)
    cells = zip(*np.nonzero(counts), strict=True)
    return [{"value": float(x[i]), "target": float(y[j]), "count": int(counts[i, j])} for i, j in cells]


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
