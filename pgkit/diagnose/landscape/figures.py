"""Figures of lines, paths and planes; each function takes what was measured and returns a matplotlib figure."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import ArrayLike

from pgkit.diagnose.landscape.lines import RANDOM, Band, Cliff, band
from pgkit.diagnose.landscape.paths import Barrier, chord
from pgkit.diagnose.thresholds import Thresholds
from pgkit.diagnose.words import number, with_interval
from pgkit.plots.style import FAINT, INK, SOLID, ArmStyle, freeze_layout, new_figure, settings, short_number, spread
from pgkit.stats.samples import FloatArray

CLIFF, GREY, RING = "#b3400e", "#9aa3ab", "#111111"

LOOKS: Mapping[str, ArmStyle] = {
    "mean_update": ArmStyle("#0072b2", "o", SOLID),
    "gradient": ArmStyle("#c77700", "s", (0, (5, 1.5))),
    "update-1": ArmStyle("#56a0d3", "", (0, (2.5, 1))),
    "update-2": ArmStyle("#56a0d3", "", (0, (1.2, 1.2))),
    "top": ArmStyle("#009e73", "^", (0, (5, 1.5, 1.2, 1.5))),
    "bottom": ArmStyle("#7a1f4e", "D", (0, (5, 1.5, 1.2, 1.5))),
}
"""Colour, marker and dashes of each direction."""

NAMES: Mapping[str, str] = {
    "mean_update": "mean update",
    "gradient": "gradient",
    "update-1": "one update",
    "update-2": "another update",
    "top": "curves up most",
    "bottom": "curves down most",
}
"""What the directions are called in figures."""

BANDED = ("mean_update", "gradient")
"""Directions whose interval is drawn; all others would hide each other."""

SMALLEST = -2
"""Log2 of the smallest multiple of an update."""

COLOURS = "viridis"
LEVELS = 8


class Surface(NamedTuple):
    """The return on a plane.

    Attributes:
        x: ``(X,)``, from the center.
        y: ``(Y,)``.
        mean: ``(Y, X)``, J.
        unit: what 1 is, in words.
        names: of both axes.
    """

    x: FloatArray
    y: FloatArray
    mean: FloatArray
    unit: str
    names: tuple[str, str]


class Way(NamedTuple):
    """The checkpoints of a run on a plane.

    Attributes:
        coordinates: ``(C, 2)``.
        returns: ``(C,)``, their own J, which is not that of their shadows.
    """

    coordinates: FloatArray
    returns: FloatArray


@settings()
def draw_lines(
    lines: Mapping[str, ArrayLike], alphas: ArrayLike, cliff: Cliff, random_return: float, title: str = ""
) -> Figure:
    """Draw the return along each direction, with bands along the mean update and the gradient, and the cliff.

    Args:
        lines: returns ``(K, E)`` by direction.
        alphas: ``(K,)``, in lengths of an update, 0 among them.
        cliff: see :func:`pgkit.diagnose.landscape.lines.find_cliff`.
        random_return: R_random.
        title: of the figure.
    """
    multiples = np.asarray(alphas, dtype=np.float64)
    figure = new_figure(3.5)
    axes = figure.add_subplot()
    axes.set_title(title)
    bands = {name: band(returns) for name, returns in lines.items()}
    for name in sorted(bands, key=lambda name: (not name.startswith(RANDOM), name in BANDED)):
        _draw_line(axes, name, multiples, bands[name])
    center = int(np.flatnonzero(multiples == 0)[0])
    _half_level(axes, next(iter(bands.values())), center, random_return)
    _multiples_axis(axes, multiples)
    if math.isfinite(cliff.alpha):
        _mark_cliff(axes, cliff)
    axes.set_ylabel("return J")
    axes.set_xlabel("multiple of an update's length")
    _lines_legend(figure, bands)
    return freeze_layout(figure)


@settings()
def draw_path(returns: ArrayLike, t: ArrayLike, dip: Barrier, ends: tuple[str, str], title: str = "") -> Figure:
    """Draw the return along a straight path, the chord between its ends, and the barrier.

    Args:
        returns: ``(K, E)``.
        t: ``(K,)`` from 0 to 1.
        dip: see :func:`pgkit.diagnose.landscape.paths.barrier`.
        ends: names of both.
        title: of the figure.
    """
    share = np.asarray(t, dtype=np.float64)
    drawn = band(returns)
    straight = chord(returns, share).mean(1)
    figure = new_figure(3.1)
    axes = figure.add_subplot()
    axes.set_title(title)
    color = LOOKS["mean_update"].color
    axes.plot(share, straight, color=FAINT, linewidth=1.1, linestyle=(0, (4, 2)))
    axes.fill_between(share, drawn.low, drawn.high, color=color, alpha=0.18, linewidth=0)
    axes.plot(share, drawn.mean, color=color, marker="o", markersize=3.6, linewidth=1.6)
    _mark_barrier(axes, drawn, straight, share, dip)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], [f"0\n{ends[0]}", "0.25", "0.5", "0.75", f"1\n{ends[1]}"])
    axes.set_xlabel("share of the straight way")
    axes.set_ylabel("return J")
    axes.margins(y=0.12)
    return freeze_layout(figure)


@settings()
def draw_plane(surface: Surface, way: Way | None = None, title: str = "", note: str = "") -> Figure:
    """Draw the return on a plane: colours and contours, the way of training, the policy itself, and a scale.

    Args:
        surface: what was played.
        way: checkpoints; each is coloured by its own return, on the same scale as the plane.
        title: of the figure.
        note: one line below the title: how much of the way the plane shows.
    """
    figure = new_figure(4.8)
    figure.set_layout_engine("compressed")  # for axes of a fixed shape
    axes = figure.add_subplot()
    _title(axes, title, note)
    shown = np.concatenate([surface.mean.ravel(), way.returns if way is not None else np.empty(0)])
    margin = 0.0 if np.ptp(shown) else 0.5
    norm = Normalize(float(shown.min()) - margin, float(shown.max()) + margin)
    _draw_surface(axes, surface, norm)
    if way is not None:
        _draw_way(axes, way, norm)
    axes.plot([0], [0], marker="*", markersize=15, color="#ffffff", markeredgecolor=RING, markeredgewidth=1.1, zorder=6)
    _scale_bar(axes, surface)
    bar = figure.colorbar(ScalarMappable(norm, COLOURS), ax=axes, fraction=0.046, pad=0.02)
    bar.set_label("return J")
    bar.outline.set_visible(False)
    axes.set_aspect("equal")
    axes.set_xlabel(f"{surface.names[0]} ({surface.unit})")
    axes.set_ylabel(f"{surface.names[1]} ({surface.unit})")
    axes.grid(visible=False)
    for each in (axes.xaxis, axes.yaxis):
        each.set_major_locator(mpl.ticker.MaxNLocator(6))
        each.set_major_formatter(_signed)
    return freeze_layout(figure)


def nice_length(span: float) -> float:
    """The largest of 1, 2, 5, 10, 20, ... (and 1/2, 1/5, ...) that is at most a quarter of a span.

    >>> nice_length(100.0), nice_length(13.0), nice_length(1.0)
    (20.0, 2.0, 0.2)
    """
    power = 10.0 ** math.floor(math.log10(span / 4))
    return float(max(factor * power for factor in (1, 2, 5) if factor * power <= span / 4 * (1 + 1e-9)))


def _draw_line(axes: Axes, name: str, alphas: FloatArray, drawn: Band) -> None:
    places = _places(alphas)
    if name.startswith(RANDOM):
        axes.plot(places, drawn.mean, color=GREY, linewidth=0.8, alpha=0.75, zorder=1.5)
        return
    look = LOOKS[name]
    if name in BANDED:
        axes.fill_between(places, drawn.low, drawn.high, color=look.color, alpha=0.16, linewidth=0, zorder=2)
    heavy = 1.9 if name in BANDED else 1.2
    marks: dict[str, Any] = {"marker": look.marker or None, "markersize": 3.8}
    axes.plot(places, drawn.mean, color=look.color, linestyle=look.dashes, linewidth=heavy, zorder=3, **marks)


def _places(alphas: FloatArray) -> FloatArray:
    """Places on an axis that is logarithmic to both sides: 0 in the middle, each doubling one step farther."""
    sizes = np.abs(alphas)
    steps = np.log2(np.where(sizes > 0, sizes, 1.0)) - SMALLEST + 1
    return np.sign(alphas) * np.where(sizes > 0, steps, 0.0)


def _multiples_axis(axes: Axes, alphas: FloatArray) -> None:
    texts = {0.25: "\u00bc", 0.5: "\u00bd"}
    labels = [("\u2212" if a < 0 else "") + texts.get(abs(a), f"{abs(a):g}") for a in alphas]
    axes.set_xticks(_places(alphas), labels, fontsize=7)
    axes.margins(x=0.02)
    axes.axvline(0, color=FAINT, linewidth=0.8, zorder=1)


def _half_level(axes: Axes, drawn: Band, center: int, random_return: float) -> None:
    """The level at which half of what the policy earns above random actions is lost, and that of random actions."""
    half = (drawn.low[center] + random_return) / 2
    for level in (half, random_return):
        axes.axhline(level, color=INK, linewidth=0.7, linestyle=(0, (1, 2)), zorder=1)
    low, high = axes.get_ylim()
    named = sorted([((half - low) / (high - low), "half"), ((random_return - low) / (high - low), "random")])
    for place, (_, text) in zip(spread([place for place, _ in named], 0.05), named, strict=True):
        axes.text(1.01, place, text, transform=axes.transAxes, va="center", fontsize=7.5, color=FAINT)


def _mark_cliff(axes: Axes, cliff: Cliff) -> None:
    place = float(_places(np.array([cliff.alpha]))[0])
    to_the_left = cliff.alpha > Thresholds().near_cliff
    axes.axvline(place, color=CLIFF, linewidth=1.2, zorder=2.5)
    word = {"none": "halved", "near": "cliff near"}.get(cliff.word, cliff.word)
    axes.annotate(
        f"{word}, {number(cliff.alpha)} \u00d7",
        (place, 1),
        xycoords=axes.get_xaxis_transform(),
        xytext=(-4 if to_the_left else 4, -3),
        textcoords="offset points",
        ha="right" if to_the_left else "left",
        va="top",
        color=CLIFF,
        fontweight="bold",
        path_effects=[Stroke(linewidth=2.5, foreground="white"), Normal()],
    )


def _lines_legend(figure: Figure, bands: Mapping[str, Band]) -> None:
    handles = [
        Line2D([], [], color=look.color, marker=look.marker or None, markersize=4, linestyle=look.dashes, label=label)
        for name, look in LOOKS.items()
        if name in bands and (label := NAMES[name])
    ]
    randoms = sum(name.startswith(RANDOM) for name in bands)
    if randoms:
        handles.append(Line2D([], [], color=GREY, linewidth=0.9, label=f"{randoms} random directions"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, handlelength=2.6, fontsize=8, columnspacing=1.4)


def _mark_barrier(axes: Axes, drawn: Band, straight: FloatArray, t: FloatArray, dip: Barrier) -> None:
    deepest = int(np.abs(t - dip.at).argmin())
    resolved = dip.depth.low > 0
    color = CLIFF if resolved else FAINT
    ends = [(t[deepest], straight[deepest]), (t[deepest], drawn.mean[deepest])]
    if resolved:
        axes.annotate("", ends[1], ends[0], arrowprops={"arrowstyle": "<->", "color": color, "linewidth": 1.3})
    text = f"barrier {with_interval(dip.depth)}" if resolved else f"no barrier resolved: {with_interval(dip.depth)}"
    beyond = t[deepest] > 0.5
    axes.annotate(
        text,
        ends[0],
        xytext=(-7 if beyond else 7, -16),
        textcoords="offset points",
        ha="right" if beyond else "left",
        va="center",
        color=color,
        fontweight="bold" if resolved else "normal",
        path_effects=[Stroke(linewidth=3, foreground="white"), Normal()],
    )


def _draw_surface(axes: Axes, surface: Surface, norm: Normalize) -> None:
    axes.pcolormesh(surface.x, surface.y, surface.mean, cmap=COLOURS, norm=norm, shading="gouraud", rasterized=True)
    if np.ptp(surface.mean) == 0:
        return
    levels = mpl.ticker.MaxNLocator(LEVELS).tick_values(float(surface.mean.min()), float(surface.mean.max()))
    lines = axes.contour(
        surface.x, surface.y, surface.mean, levels=levels, colors="#0d1b2a", linewidths=0.6, alpha=0.55
    )
    texts = axes.clabel(lines, levels[::2], fontsize=6.5, fmt=lambda level: short_number(float(level)))
    for text in texts:
        text.set(color="#ffffff", path_effects=[Stroke(linewidth=1.6, foreground="#0d1b2a"), Normal()])


def _draw_way(axes: Axes, way: Way, norm: Normalize) -> None:
    """The white line of checkpoints, each coloured by its own return."""
    x, y = way.coordinates.T
    outline = [Stroke(linewidth=3.4, foreground="#00000090"), Normal()]
    axes.plot(x, y, color="#ffffff", linewidth=1.8, solid_joinstyle="round", path_effects=outline, zorder=4)
    axes.scatter(x, y, c=way.returns, cmap=COLOURS, norm=norm, s=26, edgecolors="#ffffff", linewidths=1.0, zorder=5)
    axes.annotate(
        "start",
        (x[0], y[0]),
        xytext=(0, 7),
        textcoords="offset points",
        color="#ffffff",
        fontsize=8,
        ha="center",
        zorder=6,
        path_effects=[Stroke(linewidth=2.4, foreground="#000000a0"), Normal()],
    )


def _scale_bar(axes: Axes, surface: Surface) -> None:
    """A bar as long as one update, or as so many that it can be seen."""
    width = float(surface.x[-1] - surface.x[0])
    length = nice_length(width)
    cell = width / max(1, len(surface.x) - 1)
    left, low = surface.x[0] + 0.4 * cell, surface.y[0] + 0.4 * cell
    count = "1 update" if length == 1 else f"{short_number(length)} updates"
    text = f"length of {count}" if "update" in surface.unit else f"distance {short_number(length)}"
    style: dict[str, Any] = {"solid_capstyle": "butt", "zorder": 7}
    axes.plot([left, left + length], [low, low], color="#000000", linewidth=5.0, alpha=0.65, **style)
    axes.plot([left, left + length], [low, low], color="#ffffff", linewidth=2.6, **style)
    axes.annotate(
        text,
        (left, low),
        xytext=(0, 5),
        textcoords="offset points",
        color="#ffffff",
        fontsize=8,
        fontweight="bold",
        zorder=7,
        path_effects=[Stroke(linewidth=2.4, foreground="#000000b0"), Normal()],
    )


def _title(axes: Axes, title: str, note: str) -> None:
    """The title, and a line of small grey letters below it."""
    axes.set_title(title, pad=20 if note else 8)
    below = axes.annotate(
        note, (0, 1), xycoords="axes fraction", xytext=(0, 7), textcoords="offset points", fontsize=7.8, color=FAINT
    )
    below.set_in_layout(False)


def _signed(value: float, _: object = None) -> str:
    return short_number(value).replace("-", "\u2212")
